"""Logs in TensorBoard event files, which need the `tensorboard` extra."""

from __future__ import annotations

import math
import struct
from pathlib import Path

from covent.logs.extras import missing_extra
from covent.logs.json_rows import run_of_rows
from covent.logs.rows import LogError, LoggedRun

EVENT_FILE = "*tfevents*"
"""The name that every event file has in it."""


_LENGTH = struct.Struct("<Q")
_CHECKSUMS_BYTES = 8
"""Of a record: its length, its checksum, the event, its checksum; both checksums have 4 bytes."""


def read_events(files: list[Path], source: Path, *, step: str | None = None) -> LoggedRun:
    """One run from its event files; a restarted run has several, which are read in the order of their names.

    Args:
        files: event files of one run.
        source: the file or folder that the user named.
        step: not used by most logs: every value carries its step.

    Raises:
        MissingExtraError: tensorboard is not installed.
        LogError: no scalar at all, or a damaged file.
    """
    try:
        from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
        from tensorboard.util.tensor_util import make_ndarray
    except ModuleNotFoundError as error:
        raise missing_extra("tensorboard", "tensorboard", source) from error
    rows: list[tuple[int, dict[str, float | None]]] = []
    notes: list[str] = []
    places: dict[int, str] = {}
    for path in sorted(files):
        number, size = 0, path.stat().st_size
        try:
            # The loader brings old and new events into one form: a tensor for each value.
            for number, event in enumerate(EventFileLoader(str(path)).Load(), start=1):
                for value in event.summary.value:
                    array = make_ndarray(value.tensor)
                    if array.size == 1 and array.dtype.kind in "fiu":
                        places[len(rows) + 1] = f"{path}: event {number}"
                        rows.append(
                            (len(rows) + 1, _finite(value.tag, float(array.item())) | {"step": float(event.step)})
                        )
            notes += _unread(path, size, number)
        except (ValueError, RuntimeError, TypeError) as error:
            raise LogError(f"{path} is damaged: {error}. Copy it again while no run writes to it.") from error
    if not rows:
        raise LogError(f"{source} holds no scalar. Give the event file of the run itself, not that of a profiler.")
    name = source.name if source.is_dir() else source.absolute().parent.name
    run = run_of_rows(source, name, "TensorBoard events", rows, step or "step", notes)
    return LoggedRun(run.source, run.name, run.format, run.rows, run.notes, places)


def _unread(path: Path, size: int, read: int) -> list[str]:
    """What the loader leaves out in silence: it stops at the first record that is cut off or damaged.

    Args:
        path: the event file.
        size: its bytes before it was read; a run may still write to it.
        read: events that the loader gave.
    """
    at = whole = 0
    with path.open("rb") as file:
        while at + _LENGTH.size <= size:
            file.seek(at)
            at += _LENGTH.size + _CHECKSUMS_BYTES + _LENGTH.unpack(file.read(_LENGTH.size))[0]
            whole += at <= size
    if read >= whole and at == size:
        return []
    return [
        f"{path.name} is cut off or damaged after event {read}: that event, and whatever was logged after it, was not"
        " read."
    ]


def _finite(tag: str, value: float) -> dict[str, float | None]:
    return {tag: value if math.isfinite(value) else None}
