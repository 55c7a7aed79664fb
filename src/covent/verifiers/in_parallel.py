"""One blocking call for each of many items, several at a time, until the caller's poll stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from covent.verifiers.verdict import Poll

Item = TypeVar("Item")
Result = TypeVar("Result")

_WAIT_S = 0.05


def in_parallel(
    function: Callable[[Item, Poll], Result], items: Sequence[Item], *, size: int, poll: Poll
) -> list[Result]:
    """`function` of each item, in the order of the items.

    Args:
        function: called in a thread, with a poll of its own that it must call while it waits.
        items: what it is called with.
        size: calls at the same time; with 1, or with one item, no thread is made.
        poll: called about every 50 ms; when it raises, the calls' own polls raise too, and its error is passed on.

    Example:
        >>> in_parallel(lambda item, poll: 2 * item, [1, 2, 3], size=2, poll=lambda: None)
        [2, 4, 6]
    """
    if len(items) < 2 or size == 1:
        return [function(item, poll) for item in items]
    stopped = threading.Event()

    def stop_when_asked() -> None:
        if stopped.is_set():
            raise _Stopped

    with ThreadPoolExecutor(size) as executor:
        # Ctrl-C may come while calls are still being handed out: those that run must hear of it then too.
        try:
            futures = [executor.submit(function, item, stop_when_asked) for item in items]
            pending: set[Future[Result]] = set(futures)
            while pending:
                _, pending = wait(pending, timeout=_WAIT_S)
                poll()
        except BaseException:
            stopped.set()
            executor.shutdown(wait=True, cancel_futures=True)
            raise
    return [future.result() for future in futures]


class _Stopped(Exception):
    """Another call's caller is gone."""
