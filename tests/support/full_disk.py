"""Disks that are full: a limit of the operating system on the size of files, for one process."""

from __future__ import annotations

import resource


def no_file_above(num_bytes: int) -> None:
    """From now on, this process cannot make a file larger than this; Python ignores the signal that comes with it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, num_bytes))
