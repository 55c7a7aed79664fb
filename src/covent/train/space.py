"""Whether the disk has room for a run's checkpoints, said before the first step."""

from __future__ import annotations

import shutil
from pathlib import Path

from covent.train.config import TrainConfig
from covent.train.model import LanguageModel

_COPIES = 3
"""Weights, and Adam's two moments of each."""


def checkpoint_bytes(model: LanguageModel) -> int:
    """About the size of one checkpoint on disk."""
    return _COPIES * sum(weight.nbytes for weight in model.network.parameters() if weight.requires_grad)


def space_warning(config: TrainConfig, model: LanguageModel, folder: Path) -> str:
    """What is missing for the checkpoints that are kept, one that is being written, and the final model; or nothing."""
    each = checkpoint_bytes(model)
    needed = each * (config.checkpoint.keep + 1) + each // _COPIES
    free = shutil.disk_usage(folder).free
    if free >= needed:
        return ""
    return (
        f"{folder} has {free / 1e9:.2f} GB free, and the run needs about {needed / 1e9:.2f} GB:"
        f" {config.checkpoint.keep} checkpoints of {each / 1e9:.2f} GB, one more while it is written, and the model."
        " Make room, or lower checkpoint.keep; a run that finds the disk full stops, and can be resumed once there is"
        " room."
    )
