"""Whole GRPO runs of verl on CPUs, from the recipe for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from recipes.verl.sums import make_model, make_prompts
from tests.contract.source import ROOT


def run(folder: Path, *, ranks: int, steps: int, own: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """recipes/verl/cpu.yaml in processes of its own.

    Which of covent's losses each of verl's processes had stands in the folder `processes` afterwards, and verl's log in
    `log.jsonl`.

    Args:
      folder: empty.
      ranks: FSDP2 ranks on gloo.
      steps: rollouts.
      own: further overrides, Hydra's.
    """
    for name in ("processes", "model"):
        (folder / name).mkdir()
    make_model(folder / "model")
    make_prompts(folder)
    settings = {
        "data.train_files": folder / "sums.parquet",
        "data.val_files": folder / "sums.parquet",
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.policy_loss.run_folder": folder / "run",
        "reward.custom_reward_function.path": ROOT / "recipes/verl/sums.py",
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.n_gpus_per_node": ranks,
        "trainer.total_training_steps": steps,
        "trainer.logger": "[console,file]",
        "ray_kwargs.ray_init.num_gpus": ranks,
        "hydra.run.dir": folder / "hydra",
        **own,
    }
    recipe = ["--config-dir", str(ROOT / "recipes/verl"), "--config-name", "cpu"]
    words = [f"{name}={value}" for name, value in settings.items()]
    done = subprocess.run(
        [sys.executable, "-m", "verl.trainer.main_ppo", *recipe, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")]),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "VERL_PLATFORM": "cpu",
            "VERL_USE_EXTERNAL_MODULES": "recipes.verl.cpu",
            "VERL_FILE_LOGGER_PATH": str(folder / "log.jsonl"),
            "COVENT_VERL_PROCESSES": str(folder / "processes"),
            "RAY_worker_niceness": "0",
            # A machine that is busy with other things takes its time.
            "RAY_raylet_start_wait_time_s": "600",
            "RAY_worker_register_timeout_seconds": "600",
            "RAY_agent_register_timeout_ms": "600000",
        },
        capture_output=True,
        text=True,
    )
    (folder / "out.txt").write_text(done.stdout + done.stderr)
    return done


def log(folder: Path) -> list[dict[str, float]]:
    """verl's own log, one entry a line."""
    return [json.loads(line)["data"] for line in (folder / "log.jsonl").read_text().splitlines()]
