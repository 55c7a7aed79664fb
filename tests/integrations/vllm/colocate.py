"""TRL's GRPO with vLLM in its own process (`vllm_mode="colocate"`) and covent's controls, as a program.

python -m tests.integrations.vllm.colocate FOLDER CONTROL
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.layers import utils

from covent.integrations.trl import CoventGRPOTrainer
from tests.support.tiny_trl import network, starts_low, tokenizer, trainer

STEPS = 30
CONTROLS: dict[str, Any] = {
    "clip_cov": {"type": "clip_cov", "clip_cov_ratio": 0.02, "clip_cov_lb": 0.1},
    "kl_cov": {"type": "kl_cov", "kl_cov_ratio": 0.05},
    "truncated_importance": {"type": "truncated_importance"},
}


def weights_stay_as_they_are(layer: torch.nn.Module, remove_weight: bool) -> None:
    """On a CPU vLLM packs the weights of linear layers and drops them, and TRL then finds none to write into."""
    layer.cpu_linear = torch.nn.functional.linear


def main(folder: Path, name: str) -> None:
    """Thirty optimizer steps."""
    utils.dispatch_cpu_unquantized_gemm = weights_stay_as_they_are
    network(hidden=128).save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    made = trainer(
        CoventGRPOTrainer,
        folder / "trl",
        model=str(folder / "model"),
        reward=starts_low,
        covent={"control": CONTROLS[name], "run_folder": folder / "run", "accuracy": "starts_low"},
        num_iterations=2,
        max_steps=STEPS,
        use_vllm=True,
        vllm_mode="colocate",
        vllm_gpu_memory_utilization=0.1,
        vllm_max_model_length=64,
        vllm_importance_sampling_correction=name != "truncated_importance",
    )
    made.train()
    (folder / "log.json").write_text(json.dumps(made.state.log_history), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
