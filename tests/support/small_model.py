"""A tiny Qwen2 at random weights, built the way a run builds its model."""

from __future__ import annotations

from functools import cache

import torch

from covent.tasks import ClockSettings, ClockTask
from covent.train.config import ModelSettings
from covent.train.model import LanguageModel, load_model

TASK = ClockTask(ClockSettings(), corpus_seed=0)


def fresh_model(seed: int = 0, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """Two layers of width 16, for tests that change the weights."""
    settings = ModelSettings(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32)
    return load_model(settings, TASK, seed=seed, dtype=dtype, device="cpu")


@cache
def shared_model(seed: int = 0, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """The same, for tests that leave the weights alone."""
    return fresh_model(seed, dtype)
