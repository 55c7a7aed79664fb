"""Runs of milliseconds a step that give every part of the trainer work to do, stopped in every way and compared."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from covent.store import durable
from covent.store.reader import read_run
from covent.store.schema import ROW_FILES, untimed
from covent.tasks import ClockTask, Problem, Verdict

TINIEST: dict[str, Any] = {
    "steps": 5,
    "task": {"name": "clock", "min_operations": 1, "max_operations": 1},
    "model": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8},
    "warm_start": {"steps": 3, "batch_size": 4, "cache": False, "min_teacher_frac": 0},
    "rollout": {"prompts_per_step": 4, "samples_per_prompt": 2, "group_filter": "none", "max_response_tokens": 4},
    "optimizer": {"lr": 0.01, "updates_per_rollout": 2, "responses_per_micro_batch": 2},
    "evaluation": {
        "every": 1,
        "validation_problems": 2,
        "validation_samples": 2,
        "test_problems": 3,
        "test_samples": 2,
    },
    "checkpoint": {"every": 1},
    "probe_prompts": 2,
    "device": "cpu",
}

MODES: dict[str, dict[str, Any]] = {
    "on-policy": {"optimizer": {"updates_per_rollout": 1}},
    "mini-batches": {"optimizer": {"updates_per_rollout": 4}},
    "accumulation": {"optimizer": {"updates_per_rollout": 1, "responses_per_micro_batch": 1}},
    "clip_cov": {"control": {"type": "clip_cov", "clip_cov_ratio": 0.2, "clip_cov_lb": -5.0, "clip_cov_ub": 5.0}},
    "kl_cov": {"control": {"type": "kl_cov", "kl_cov_ratio": 0.3}},
    "refill": {
        "rollout": {"group_filter": "refill", "max_generations": 3, "samples_per_prompt": 4},
        "attribute_every": 2,
    },
    "everything remembered": {
        "control": [
            {"type": "kl_cov", "kl_form": "exact", "kl_cov_ratio": 0.3},
            {"type": "entropy_bonus", "use_adaptive_entropy": True, "entropy_target": 2.85, "entropy_coef": 0.02},
            {"type": "reference_kl", "kl_loss_coef": 0.1},
        ],
    },
    "response ratios, float64": {
        "loss_mode": "gspo",
        "dtype": "float64",
        "loss_agg_mode": "seq-mean-token-sum-norm",
        "rollout": {"temperature": 0.8},
    },
    "tokens, recomputed": {
        "model": {"gradient_checkpointing": True},
        "optimizer": {"tokens_per_micro_batch": 24, "responses_per_micro_batch": 3},
    },
    "lora": {
        "model": {"lora_rank": 2},
        "optimizer": {"tokens_per_micro_batch": 24},
        "control": [
            {"type": "kl_cov", "kl_form": "exact", "kl_cov_ratio": 0.3},
            {"type": "reference_kl", "kl_loss_coef": 0.1},
        ],
    },
    "no probes, no warm start": {"probe_prompts": 0, "warm_start": {"steps": 0}},
}
"""Each with another thing to remember, or another place to be stopped in."""


def chance_verdict(task: object, problem: Problem, response: str) -> Verdict:
    """A verdict that an untrained model gets right about as often as wrong, so that there is something to learn."""
    return (Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE, Verdict.RIGHT)[zlib.crc32(response.encode()) % 4]


def settings(mode: str = "everything remembered", **changes: Any) -> dict[str, Any]:
    """The settings of a mode, with some replaced; sections are merged."""
    merged = {name: dict(value) if isinstance(value, dict) else value for name, value in TINIEST.items()}
    for more in (MODES[mode], changes):
        for name, value in more.items():
            merged[name] = {**merged[name], **value} if isinstance(merged.get(name), dict) else value
    return merged


def recorded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything that a run recorded but wall times, by kind of row; and no row may be torn."""
    run = read_run(folder)
    assert [note for note in run.notes if "cut off" in note] == []
    return {kind: [untimed(row) for row in getattr(run, kind)] for kind in ROW_FILES if kind != "resumes"}


def weights_digest(folder: Path) -> str:
    """Hash of the final weights' file."""
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def differences(expected: Path, found: Path) -> list[str]:
    """How a finished run differs from the same run without interruption; empty when they are identical."""
    before, after = recorded(expected), recorded(found)
    what = [f"{kind}: {len(before[kind])} rows, {len(after[kind])}" for kind in before if before[kind] != after[kind]]
    if weights_digest(expected) != weights_digest(found):
        what.append("final weights")
    state = read_run(found).status.state
    return what if state == "finished" else [*what, f"status {state}"]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Processes that begin with covent and torch already loaded: milliseconds instead of seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["covent.train.resume", "covent.cli.main", "tests.support.interrupted"])
    return context


def started(target: Callable[..., None], *args: Any) -> multiprocessing.Process:
    """A process that calls a function of a test's module; its exit code is the function's, as `os._exit` gets it."""
    process = _server().Process(target=target, args=args)
    process.start()
    return process


def exit_code(process: multiprocessing.Process, longest_s: float = 120) -> int:
    """Wait for a process to end, and give its exit code; negative for a signal that nobody caught."""
    process.join(longest_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the process did not end within {longest_s} s")
    return process.exitcode


def call(words: list[str], log: Path, prepare: Callable[[], None] | None = None) -> None:
    """`covent` with these words, as the process of `started`; what it prints goes to a file."""
    from covent.cli.main import main

    # Started processes do not inherit the test's patched environment.
    os.environ["XDG_CACHE_HOME"] = str(log.parent / "cache")
    with log.open("a", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = io.TextIOWrapper(os.fdopen(1, "wb", 0, closefd=False), write_through=True)
        ClockTask.verdict = chance_verdict
        if prepare is not None:
            prepare()
        code = 70
        try:
            code = main(words)
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            os._exit(code)


def slow_disk(seconds: float) -> None:
    """From now on, bringing a file to the disk takes longer."""
    sync = durable.sync

    def slow(descriptor: int) -> None:
        time.sleep(seconds)
        sync(descriptor)

    durable.sync = slow


def tiny_demo() -> None:
    """From now on, the demo's runs are long, and made of the smallest steps."""
    from covent.train import config_file

    parse = config_file.parse_config
    config_file.parse_config = lambda asked, source: parse(settings("mini-batches", steps=100_000), source=source)


def written(folder: Path, **config: Any) -> Path:
    """A config file for `covent train`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute with another value while the block runs; for processes that have no pytest."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
