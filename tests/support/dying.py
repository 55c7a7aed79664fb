"""Processes that die after any single operation on the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from covent.store import checkpoint

OPERATIONS = ("mkdir", "open", "write", "fsync", "rename", "replace", "truncate", "unlink", "rmdir")


def die_at(number: int, *, half: bool) -> None:
    """From now on: SIGKILL before the operation of this number, or, for a write, after half of its bytes."""
    left = [number]

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if half and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return operation

    for name in OPERATIONS:
        setattr(os, name, counted(name, getattr(os, name)))


def files(content: int) -> list[tuple[str, bytes]]:
    """What a made-up checkpoint holds."""
    return [("state.json", b"%d" % content), *((f"{n}.safetensors", b"%d" % content * 40) for n in range(5))]


def save_and_die(parent: Path, keep: int, number: int, half: bool) -> None:
    """Write a checkpoint in a process that dies on the way; exit code 0 if the save has fewer operations."""
    die_at(number, half=half)
    checkpoint.save(parent, "step-3", files(3), keep=keep)
    os._exit(0)
