"""covent inside verl: exact entropy controls, measurement and the run folder, by verl's own plugin mechanism.

python -m verl.trainer.main_ppo ... trainer.v1.trainer_mode=covent \
  actor_rollout_ref.actor.policy_loss._target_=covent.integrations.verl.CoventPolicyLossConfig \
  actor_rollout_ref.actor.policy_loss.loss_mode=covent_clip_cov

Nothing is imported in the person's own code: verl loads `covent.integrations.verl.plugin` in each of its processes, and
`covent doctor --verl` says whether it did.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from covent.integrations.verl.config import CoventPolicyLossConfig

__all__ = ["CoventPolicyLossConfig"]


def __getattr__(name: str) -> Any:
    """The settings class, which needs verl, when it is asked for."""
    if name in __all__:
        from covent.integrations.verl import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
