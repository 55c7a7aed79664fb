"""Handlers that misbehave, for children under test. Imported in children only."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def obedient(settings: Any) -> Callable[[Any], Any]:
    """A handler that does what it is told, good or bad."""

    def handle(request: Any) -> Any:
        kind, *rest = request
        return _ACTS[kind](*rest)

    return handle


def unloadable(settings: Any) -> Callable[[Any], Any]:
    """A target that cannot be set up."""
    raise ValueError("it needs a licence")


def _once(path: str) -> str:
    """Die the first time, answer the second."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "answered"


def _recurse() -> int:
    sys.setrecursionlimit(1 << 30)
    return len(json.dumps(_nested(10_000_000)))


def _nested(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def _exit() -> None:
    sys.exit(0)


def _many_threads() -> None:
    for _ in range(4):
        threading.Thread(target=_spin, daemon=True).start()
    _spin()


def _spin() -> None:
    while True:
        pass


_ACTS: dict[str, Callable[..., Any]] = {
    "echo": lambda value: value,
    "pid": os.getpid,
    "sleep": time.sleep,
    "spin": _spin,
    "threads": _many_threads,
    "bomb": lambda: len(bytearray(1 << 40)),
    "grow": lambda: [bytearray(1 << 20) for _ in range(1 << 20)] and None,
    "exit": _exit,
    "os exit": os._exit,
    "signal": lambda number: os.kill(os.getpid(), number),
    "recurse": _recurse,
    "once": _once,
    "raise": lambda text: (_ for _ in ()).throw(ValueError(text)),
    "unsendable": lambda: object(),
    "write": lambda path: Path(path).write_text("x"),
    "environment": lambda: dict(os.environ),
    "print": lambda text: print(text, flush=True),
}
