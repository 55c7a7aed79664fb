"""TRL's trainers with covent in them."""

from __future__ import annotations

from covent.errors import MissingExtraError
from covent.integrations.trl.mixin import CoventMixin

try:
    from trl import GRPOTrainer, RLOOTrainer
except ModuleNotFoundError as error:
    if error.name != "trl":
        raise
    raise MissingExtraError(
        "covent in TRL needs trl, which is not installed. Install the extra: pip install 'covent[trl]'"
    ) from error


class CoventGRPOTrainer(CoventMixin, GRPOTrainer):
    """`trl.GRPOTrainer` that measures and controls entropy; takes `covent=CoventConfig(...)` beside TRL's arguments."""


class CoventRLOOTrainer(CoventMixin, RLOOTrainer):
    """`trl.RLOOTrainer` that measures and controls entropy; takes `covent=CoventConfig(...)` beside TRL's arguments."""
