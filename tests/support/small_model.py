"""A tiny Qwen2 at random weights, built the way a run builds its model."""

from __future__ import annotations

from functools import cache

import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

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


def exact_model(seed: int = 0) -> LanguageModel:
    """The fresh model with norms that stay in float64.

    transformers' RMSNorm goes through float32 whatever the model's dtype. Its rounding is the same in every forward
    pass, but parts of a gradient that are taken apart no longer add up to more than eight digits.
    """
    model = fresh_model(seed)
    for parent in list(model.network.modules()):
        for name, norm in list(parent.named_children()):
            if isinstance(norm, Qwen2RMSNorm):
                exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=torch.float64)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return model
