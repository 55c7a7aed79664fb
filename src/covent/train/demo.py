"""GRPO, Clip-Cov and KL-Cov from one warm start, two processes at a time, one thread each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from covent import stopping
from covent.controls import ClipCov, Control, KLCov, PPOClip
from covent.errors import DemoError, RunExistsError
from covent.tasks import make_task
from covent.train.config import TrainConfig
from covent.train.config_file import config_yaml
from covent.train.model import load_model
from covent.train.state import RunState
from covent.train.warm_start import warm_start

METHODS: dict[str, Control] = {
    "grpo": PPOClip(),
    "clip_cov": ClipCov(clip_cov_ratio=0.012),
    "kl_cov": KLCov(kl_cov_ratio=0.05),
}
"""Chosen on validation problems of other seeds than the demo's; see docs/log.md. The shares are some 25 times the
paper's, whose optimizer batches have some hundred times as many tokens."""

_PROCESSES = 2
_POLL_S = 0.3
_STOP_S = 20.0


@dataclass(frozen=True)
class DemoRun:
    """One run of the demo."""

    name: str
    folder: Path
    config: TrainConfig

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")


def demo_runs(folder: Path, base: TrainConfig) -> list[DemoRun]:
    """The three runs, each with its own folder under the demo's: `base` with each control, on the CPU."""
    return [
        DemoRun(name, folder / name, base.model_copy(update={"name": name, "control": control, "device": "cpu"}))
        for name, control in METHODS.items()
    ]


def demo(
    folder: Path, runs: list[DemoRun], *, on_warm_start: Callable[[int, int], None], on_poll: Callable[[], None]
) -> None:
    """Warm start once, then all runs.

    Args:
      folder: made here; must be free.
      runs: from `demo_runs`.
      on_warm_start: called with (steps done, steps in all).
      on_poll: called a few times a second while the runs go on; their folders can be read meanwhile.
    Raises:
      RunExistsError: the folder holds something.
      DemoError: a run failed.
      KeyboardInterrupt: after all runs have been stopped; their folders are readable and can be resumed.
    """
    require_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _warm_start_once(runs[0].config, on_warm_start)
    waiting, going = list(runs), {}
    # Nothing is ever written to it: when this process is gone, however it went, its other end says so.
    alive, ours = os.pipe()
    try:
        while waiting or going:
            stopping.poll()
            while waiting and len(going) < _PROCESSES:
                run = waiting.pop(0)
                going[run.name] = (run, _start(run, alive))
            on_poll()
            time.sleep(_POLL_S)
            for name, (run, process) in list(going.items()):
                if process.poll() is not None:
                    del going[name]
                    _check(run, process.returncode)
    finally:
        _stop([process for _, process in going.values()])
        os.close(alive)
        os.close(ours)
    on_poll()


def require_free(folder: Path) -> None:
    """Raises: RunExistsError when the folder holds something, or is a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunExistsError(f"The demo's folder '{folder}' is taken. Choose another with --out, or remove it.")


def _warm_start_once(config: TrainConfig, progress: Callable[[int, int], None]) -> None:
    """Fill the cache that all runs load their start from."""
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    task = make_task(config.task, config.seed)
    model = load_model(config.model, task, seed=config.seed, dtype=torch.float32, device="cpu")
    warm_start(RunState.fresh(model), task, config, progress=progress)


def _start(run: DemoRun, alive: int) -> subprocess.Popen[bytes]:
    """`covent train` in a process of its own session, so that Ctrl-C reaches it once, through us.

    Args:
      alive: read end of a pipe that ends with this process.
    """
    settings = run.folder.with_suffix(".yaml")
    settings.write_text(config_yaml(run.config), encoding="utf-8")
    command = [sys.executable, "-m", "covent", "train", str(settings), "--out", str(run.folder)]
    # Threads of numerical libraries must be limited before they are loaded.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", stopping.PARENT_VARIABLE: str(alive)}
    with run.log.open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=[alive]
        )


def _check(run: DemoRun, exit_code: int) -> None:
    if exit_code != 0:
        tail = run.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        raise DemoError(
            f"The run '{run.name}' ended with exit code {exit_code}. The end of {run.log}: " + " | ".join(tail)
        )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Interrupt, wait until the run folders are closed, kill what does not end."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _STOP_S
    for process in processes:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
