"""Processes that begin with TRL loaded, are killed, limited or run side by side; for `benchmarks.trl_faults`."""

from __future__ import annotations

import multiprocessing
import random
import resource
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.trl_faults"])
    return context


def _called(function: Callable[..., None], args: tuple[Any, ...], num_bytes: int | None) -> None:
    import torch

    torch.set_num_threads(1)
    if num_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
    function(*args)


def started(function: Callable[..., None], *args: Any, num_bytes: int | None = None) -> Any:
    """A process of a function of a module."""
    process = _server().Process(target=_called, args=(function, args, num_bytes))
    process.start()
    return process


def ended(process: Any, longest_s: float) -> str:
    """How a process ended, in words."""
    process.join(longest_s)
    if process.exitcode is None:
        process.kill()
        process.join()
        return f"no end within {longest_s:g} s"
    return f"exit code {process.exitcode}"


def in_process(function: Callable[..., None], *args: Any, longest_s: float) -> str:
    """Call a function in a process of its own."""
    return ended(started(function, *args), longest_s)


def limited(function: Callable[..., None], *args: Any, num_bytes: int) -> str:
    """The same, and no file may become larger than this."""
    return ended(started(function, *args, num_bytes=num_bytes), 600)


def killed_at_random(function: Callable[..., None], *args: Any, chance: random.Random, longest_s: float) -> bool:
    """Whether a process was there to be killed at a random moment of its life."""
    process = started(function, *args)
    process.join(chance.uniform(0, longest_s))
    was_there = process.exitcode is None
    process.kill()
    process.join()
    return was_there


def together(function: Callable[..., None], folder: Path, logs: list[Path]) -> list[int | None]:
    """Exit codes of processes that begin at the same time."""
    processes = [started(function, folder, log) for log in logs]
    for process in processes:
        ended(process, 600)
    return [process.exitcode for process in processes]
