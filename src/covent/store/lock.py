"""One writer a run folder: a lock of the operating system, which vanishes with the process that holds it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout

from covent.errors import RunLockedError

LOCK_FILE = "run.lock"


def locked(folder: Path) -> FileLock:
    """Take the lock of a run folder. The file stays behind; a lock that nobody holds any more is free.

    Raises: RunLockedError at once, naming host and PID, when another process holds it.
    """
    path = folder / LOCK_FILE
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunLockedError(
            f"The run folder {folder} is in use by {_holder(path)}; two runs never share one. Wait until it has ended,"
            f" or choose another folder."
        ) from error
    path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    return lock


def _holder(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
