"""Ranks as forked processes: one import of torch serves them all."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from typing import Any


def run_ranks(rank: Callable[..., None], num_ranks: int, *words: Any) -> None:
    """Call `rank(number, num_ranks, *words)` in a process each, and end the program with the worst exit code.

    To be called before this process has started a thread.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=rank, args=(number, num_ranks, *words)) for number in range(num_ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode or 0) for process in processes))
