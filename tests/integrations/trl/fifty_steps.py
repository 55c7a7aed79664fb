"""Fifty optimizer steps of TRL's GRPO with each control, as a program that torchrun can start on several ranks.

python -m tests.integrations.trl.fifty_steps FOLDER WORLD
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from covent.integrations.trl import CoventGRPOTrainer, KillableReward
from tests.integrations.trl import rewards_to_load
from tests.support.tiny_trl import network, starts_low, trainer

STEPS = 50
CONTROLS: dict[str, Any] = {
    "none": None,
    "ppo_clip": {"type": "ppo_clip", "clip_ratio_low": 0.02, "clip_ratio_high": 0.03},
    "clip_cov": {"type": "clip_cov", "clip_cov_ratio": 0.02, "clip_cov_lb": 0.1},
    "kl_cov": {"type": "kl_cov", "kl_cov_ratio": 0.05},
    "top_entropy": {"type": "top_entropy"},
    "entropy_bonus": {
        "type": "entropy_bonus",
        "use_adaptive_entropy": True,
        "entropy_target": 3.0,
        "entropy_coef": 0.01,
    },
    "reference_kl": {"type": "reference_kl", "kl_loss_coef": 0.01, "kl_loss_type": "k2"},
    "clip_cov_released": {"type": "clip_cov_released", "clip_cov_ratio": 0.02, "clip_cov_lb": 0.1},
    "kl_cov_released": {"type": "kl_cov_released", "kl_cov_ratio": 0.05},
    "stack": [
        {"type": "top_entropy"},
        {"type": "kl_cov", "kl_cov_ratio": 0.05},
        {"type": "entropy_bonus", "entropy_coef": 0.001},
    ],
}
"""All but `truncated_importance`, which only vLLM's log-probs give something to do."""
FAILING = "ppo_clip"
"""The run whose reward function lives in a child and raises for some completions."""


def start_model(folder: Path) -> str:
    """A model as a folder, from which TRL can load the reference too."""
    network().save_pretrained(folder)
    return str(folder)


def main(folder: Path, world: int) -> None:
    """A run with each control, each with its run folder."""
    for name, control in CONTROLS.items():
        made = trainer(
            CoventGRPOTrainer,
            folder / "trl" / name,
            model=str(folder / "model"),
            reward=starts_low if name != FAILING else KillableReward(rewards_to_load.starts_low, max_error_frac=1.0),
            covent={"control": control, "run_folder": folder / "runs" / name, "accuracy": "starts_low"},
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            num_iterations=2,
            max_steps=STEPS,
            beta=0.01 if name == "reference_kl" else 0.0,
            **({"ddp_backend": "gloo"} if world > 1 else {}),
        )
        assert made.accelerator.num_processes == world
        assert (dist.get_world_size() if world > 1 else 1) == world
        made.train()
        assert made.state.global_step == STEPS
        assert all(bool(torch.isfinite(weight).all()) for weight in made.model.parameters())


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
