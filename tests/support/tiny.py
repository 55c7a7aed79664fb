"""A whole training run in about a second: the smallest settings that give every part of the trainer work to do."""

from pathlib import Path
from typing import Any

import torch

from covent.controls import ClipCov, KLCov, PPOClip
from covent.store.reader import Run, read_run
from covent.train.config import TrainConfig
from covent.train.run import train

SETTINGS: dict[str, Any] = {
    "steps": 6,
    "task": {"name": "clock", "min_operations": 1, "max_operations": 2},
    "model": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 48},
    "warm_start": {"min_teacher_frac": 0, "steps": 120, "batch_size": 32, "lr": 0.01, "lr_warmup_steps": 10},
    "rollout": {"prompts_per_step": 8, "samples_per_prompt": 4},
    "optimizer": {"lr": 0.002, "updates_per_rollout": 2, "responses_per_micro_batch": 64},
    "evaluation": {
        "every": 2,
        "validation_problems": 16,
        "validation_samples": 2,
        "test_problems": 8,
        "test_samples": 4,
    },
    "probe_prompts": 4,
}

CONTROLS = {
    "ppo_clip": PPOClip(),
    "clip_cov": ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2, clip_cov_ub=5.0),
    "kl_cov": KLCov(kl_cov_ratio=0.2),
}
"""Shares large enough for batches of some fifty tokens."""


def tiny_config(**settings: Any) -> TrainConfig:
    """The tiny settings with some replaced; sections are merged, not replaced."""
    merged = dict(SETTINGS)
    for name, value in settings.items():
        merged[name] = {**merged.get(name, {}), **value} if isinstance(value, dict) else value
    return TrainConfig.model_validate(merged)


def tiny_run(folder: Path, **settings: Any) -> Run:
    """Train with the tiny settings and read the run folder."""
    train(tiny_config(**settings), folder)
    return read_run(folder)


def final_weights(run: Run) -> dict[str, torch.Tensor]:
    """The weights that the run left behind."""
    from safetensors.torch import load_file

    return load_file(run.folder / "model" / "model.safetensors")
