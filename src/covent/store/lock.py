"""One writer a run folder: a lock of the operating system, which vanishes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from covent.errors import RunLockedError

LOCK_FILE = "run.lock"

_PATIENCE_S = 0.2
"""How long to wait for the lock: a reader that asks whether anybody has it has it itself for some microseconds."""


def locked(folder: Path) -> FileLock:
    """Take the lock of a run folder. The file stays behind; a lock that nobody holds any more is free.

    Raises: RunLockedError, naming host and PID, when another process holds it.
    """
    path = folder / LOCK_FILE
    lock = FileLock(path, timeout=_PATIENCE_S)
    try:
        lock.acquire(poll_interval=_PATIENCE_S / 10)
    except Timeout as error:
        raise RunLockedError(
            f"The run folder {folder} is in use by {_holder(path)}; two runs never share one. Wait until it has ended,"
            f" or choose another folder."
        ) from error
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    return lock


def abandoned(folder: Path) -> bool:
    """Whether the process that wrote to a run folder is gone: its lock is there, and nobody holds it.

    A folder without a lock, or on a file system that has none, tells nothing: False.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        # Which also lets go of the lock.
        os.close(descriptor)
    return True


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
