"""One row file: lines are added whole, and a mark says where it ended and what came before."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from covent.store import durable


class Mark(NamedTuple):
    """A place in a row file: its length, and the hash of all before it."""

    num_bytes: int
    sha256: str


@dataclass
class RowFile:
    """An open row file, and the length and hash of what it holds."""

    descriptor: int
    num_bytes: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def opened(cls, path: Path) -> Self:
        """For appending; what the file holds already is counted and hashed."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        held = path.read_bytes()
        return cls(descriptor, len(held), hashlib.sha256(held))

    def mark(self) -> Mark:
        """Where the file ends now."""
        return Mark(self.num_bytes, self.digest.hexdigest())

    def append(self, line: bytes) -> None:
        """Add a line. Raises: OSError when it does not fit; then the file is as it was."""
        try:
            durable.write_all(self.descriptor, line)
        except OSError:
            # Half a line may be there; without it the file is whole again.
            os.ftruncate(self.descriptor, self.num_bytes)
            raise
        self.num_bytes += len(line)
        self.digest.update(line)


def prefix_fault(folder: Path, kind: str, mark: Mark) -> str:
    """Why the rows of a kind do not reach a mark as they were when it was made; empty when they do."""
    path = folder / f"{kind}.jsonl"
    if not path.is_file():
        return f"{path.name} is missing" if mark.num_bytes else ""
    with path.open("rb") as file:
        before = file.read(mark.num_bytes)
    if len(before) < mark.num_bytes:
        return f"{path.name} has {len(before)} bytes, and rows up to byte {mark.num_bytes} belong to it"
    if hashlib.sha256(before).hexdigest() != mark.sha256:
        return f"{path.name} was changed in its first {mark.num_bytes} bytes"
    return ""
