"""Writing that survives: every byte on the disk before the name exists, and errors that say what to do.

All system calls go through `os`, one by one, so that a test can stop the process after any of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from covent.errors import CoventError, DiskError

# On macOS fsync leaves the data in the drive's cache; this call of fcntl does not.
_FULL_SYNC = getattr(fcntl, "F_FULLFSYNC", None)

_ADVICE = {
    errno.ENOSPC: "The disk is full: make room",
    errno.EDQUOT: "Your disk quota is used up: make room",
    errno.EFBIG: "A file may not grow this large here: raise the limit (ulimit -f)",
    errno.EROFS: "The disk is read-only: choose another folder",
    errno.EACCES: "You may not write there: change the permissions, or choose another folder",
    errno.EPERM: "You may not write there: change the permissions, or choose another folder",
}


@contextlib.contextmanager
def disk_errors(doing: str, then: str) -> Iterator[None]:
    """Errors of the operating system as `DiskError`: what was being done, what went wrong, what to do.

    Args:
        doing: for example `Writing runs/a/steps.jsonl`.
        then: what to do once the cause is gone, for example `then: covent resume runs/a`.
    """
    try:
        yield
    except CoventError:
        raise
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Look at the disk")
        raise DiskError(f"{doing} failed: {error.strerror or error}. {advice}; {then}") from error


def write(path: Path, data: bytes) -> None:
    """A new file, whole and on the disk when this returns; its name is so only after `sync_folder`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(descriptor, data)
        sync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Every byte: one system call may take fewer than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(descriptor: int) -> None:
    """Bring an open file to the disk."""
    if _FULL_SYNC is not None:
        # Some file systems do not know it.
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, _FULL_SYNC)
            return
    os.fsync(descriptor)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder in the place of an older one once it is whole and on the disk.

    Args:
        fill: writes the content into the folder it is given, which exists.
    """
    temporary, old = path.with_name(f"{path.name}.tmp"), path.with_name(f"{path.name}.old")
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    os.mkdir(temporary)
    fill(temporary)
    for file in temporary.rglob("*"):
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(temporary)
    if path.exists():
        os.rename(path, old)
    os.rename(temporary, path)
    sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def replace(path: Path, text: str, *, synced: bool) -> None:
    """Put a text file in the place of an older one; readers see the old or the new one, never half a file.

    Args:
        synced: whether it must survive a power cut too.
    """
    data = (text + ("" if text.endswith("\n") else "\n")).encode("utf-8")
    if synced:
        replace_file(path, lambda temporary: write(temporary, data))
        sync_folder(path.parent)
    else:
        replace_file(path, lambda temporary: temporary.write_bytes(data))


def replace_file(path: Path, fill: Callable[[Path], object]) -> None:
    """Put a file in the place of an older one once it is whole.

    Args:
        fill: writes the content to the path it is given, where there is nothing.
    """
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    fill(temporary)
    os.replace(temporary, path)
