"""Where results go when the user names no place, and where they are."""

from __future__ import annotations

from itertools import count
from pathlib import Path


def next_free(folder: Path) -> Path:
    """`folder` if nothing is there yet, otherwise the first of `folder-2`, `folder-3`, … that is free.

    Example:
        >>> next_free(Path("no-such-folder"))
        PosixPath('no-such-folder')
    """
    candidates = (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in count(1))
    return next(candidate for candidate in candidates if not candidate.exists())


def run_folders(folder: Path) -> list[Path]:
    """The run folders that lie in `folder`, or `folder` itself if it is one."""
    return sorted(header.parent for pattern in ("run.json", "*/run.json") for header in folder.glob(pattern))
