"""Which rows of a run folder a tracker does not have yet."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from covent.errors import StoreError
from covent.store import durable
from covent.store.schema import ROW_FILES, Row
from covent.trackers.metrics import Point, point

SENT = ("steps", "updates", "evaluations", "forecasts")
"""Kinds of rows that are sent: those that are numbers over time."""

AT_ONCE = 500
"""The bound of the queue: rows in memory. The others wait in their files."""

FOLDER = "trackers"
"""In the run folder: how far each tracker is, and what it said."""


class Sent(BaseModel):
    """How far a tracker is; one small file, replaced in one piece."""

    model_config = ConfigDict(extra="forbid")

    num_bytes: dict[str, int] = {}
    """Of each row file, as much as was handed on."""
    error: str = ""
    """Why the last attempt ended; empty when it went well."""

    @classmethod
    def of(cls, folder: Path, tracker: str) -> Self:
        """As the tracker's last process left it; nothing was sent if there is none, or it cannot be read."""
        try:
            return cls.model_validate_json(_path(folder, tracker).read_bytes())
        except (OSError, ValidationError):
            return cls()

    def save(self, folder: Path, tracker: str) -> None:
        """Raises: OSError."""
        durable.replace(_path(folder, tracker), self.model_dump_json(), synced=False)

    def next_rows(self, folder: Path) -> tuple[list[Point], dict[str, int]]:
        """The oldest rows of each kind that were not sent, and where their files stand after them.

        A run that is resumed cuts its files back and writes the same rows again; until then nothing is new.
        """
        points: list[Point] = []
        ends = dict(self.num_bytes)
        for kind in SENT:
            lines, ends[kind] = _lines(folder / f"{kind}.jsonl", ends.get(kind, 0), AT_ONCE - len(points))
            points += [point(_row(kind, line)) for line in lines]
        return points, ends

    def num_missing(self, folder: Path) -> int:
        """Rows that were not sent."""
        files = [(folder / f"{kind}.jsonl", self.num_bytes.get(kind, 0)) for kind in SENT]
        return sum(path.read_bytes()[start:].count(b"\n") for path, start in files if path.is_file())


def _path(folder: Path, tracker: str) -> Path:
    return folder / FOLDER / f"{tracker}.json"


def _lines(path: Path, start: int, limit: int) -> tuple[list[bytes], int]:
    """Whole lines from a place on, at most so many; one without its end is left for the next time."""
    found: list[bytes] = []
    if limit > 0 and path.is_file():
        with path.open("rb") as file:
            file.seek(start)
            while len(found) < limit and (line := file.readline()).endswith(b"\n"):
                found.append(line)
                start += len(line)
    return found, start


def _row(kind: str, line: bytes) -> Row:
    try:
        return ROW_FILES[kind].model_validate_json(line)
    except ValidationError as error:
        raise StoreError(f"A row of {kind}.jsonl cannot be read: {error}") from error
