"""covent inside TRL: exact entropy controls, measurement and the run folder for GRPO and RLOO.

from covent.integrations.trl import CoventConfig, CoventGRPOTrainer

trainer = CoventGRPOTrainer(..., covent=CoventConfig(control={"type": "clip_cov"}, run_folder="runs/clip_cov"))
"""

from typing import TYPE_CHECKING, Any

from covent.integrations.settings import CoventConfig
from covent.integrations.trl.mixin import CoventMixin
from covent.integrations.trl.rewards import KillableReward

if TYPE_CHECKING:
    from covent.integrations.trl.trainers import CoventGRPOTrainer, CoventRLOOTrainer

__all__ = ["CoventConfig", "CoventGRPOTrainer", "CoventMixin", "CoventRLOOTrainer", "KillableReward"]


def __getattr__(name: str) -> Any:
    """The trainers, whose classes need TRL, when they are asked for."""
    if name in __all__:
        from covent.integrations.trl import trainers

        return getattr(trainers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
