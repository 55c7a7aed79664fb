"""B5 row 35: a trainer with verifiers at work is killed at any moment, and nothing of it is left two seconds later."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.contract.source import ROOT
from tests.support.figures import figure
from tests.verifiers.processes import alive, all_gone, descendants
from tests.verifiers.test_sandbox import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
SETTINGS = {
    "steps": 100_000,
    "task": {"name": "code"},
    "verifier": {"timeout_s": 30, "memory_mb": 256},
    "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 16},
    "warm_start": {"steps": 0},
    "rollout": {"prompts_per_step": 8, "samples_per_prompt": 4, "group_filter": "none"},
    "evaluation": {"every": 3, "validation_problems": 8, "validation_samples": 2, "test_problems": 0},
    "probe_prompts": 0,
}


def run_and_end(folder: Path, how: signal.Signals, wait_s: float) -> set[int]:
    """Processes left of a trainer that was ended `wait_s` after its verifiers had begun to work."""
    folder.mkdir()
    (folder / "run.yaml").write_text(json.dumps(SETTINGS))
    command = [sys.executable, "-m", "covent", "train", "run.yaml", "--out", "run"]
    path = os.pathsep.join([str(ROOT / "src"), *sys.path])
    with subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    ) as trainer:
        try:
            while len(under := descendants(trainer.pid)) < 2:
                assert trainer.poll() is None
                time.sleep(0.02)
            time.sleep(wait_s)
            under |= descendants(trainer.pid)
            trainer.send_signal(how)
            trainer.wait(60)
        finally:
            trainer.kill()
    all_gone(under, 2)
    return alive(under)


def test_nothing_is_left_of_a_trainer_that_is_killed(tmp_path: Path) -> None:
    assert run_and_end(tmp_path / "one", signal.SIGKILL, 0.5) == set()


@pytest.mark.slow
def test_50_trainers_leave_nothing(tmp_path: Path) -> None:
    rng, left = Random(0), 0
    kinds = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
    for number in range(50):
        left += bool(run_and_end(tmp_path / str(number), kinds[number % 3], rng.uniform(0, 6)))
    assert left == 0
    figure(35, "50 of 50 trainers with verifiers at work, by SIGKILL, SIGINT or SIGTERM: no process left after 2 s")
