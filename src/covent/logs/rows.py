"""What every reader of logs produces: the rows of one run, each with its step and its place in the file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from covent.errors import CoventError

STEP_NAMES = (
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "step",
    "Step",
    "steps",
    "_step",
    "iteration",
)
"""Columns that count steps, the first of equals wins: wandb's `_step` counts log calls and comes late on purpose."""


class LogError(CoventError, ValueError):
    """A log cannot be read, or does not hold what the law needs; the message names file and line."""


_LARGEST = sys.float_info.max
_LARGEST_STEP = 2**53


@dataclass(frozen=True)
class LogRow:
    """What was logged at once."""

    line: int
    """Place in the file, from 1: a line of text, a record, or a row of a table."""
    step: int | None
    """None: the row does not say."""
    values: Mapping[str, float | None]
    """Metric → value; None where the log holds NaN, an infinity, null or a word. An empty cell is not there."""


@dataclass(frozen=True)
class LoggedRun:
    """One run as some engine logged it, before anything is chosen or joined."""

    source: Path
    """The file or folder it came from."""
    name: str
    """For legends: the run's name where the log has one, otherwise the file's."""
    format: str
    """What the file is, for example `TRL trainer state`."""
    rows: list[LogRow]
    notes: list[str] = field(default_factory=list)
    """What the reader had to decide, in sentences."""
    places: Mapping[int, str] = field(default_factory=dict)
    """Line → file, where a run was put together from several files."""

    @cached_property
    def metrics(self) -> list[str]:
        """Every metric with at least one number, in order of appearance."""
        found: dict[str, None] = {}
        for row in self.rows:
            for name, value in row.values.items():
                if value is not None and name not in found:
                    found[name] = None
        return list(found)

    def place(self, line: int) -> str:
        """`file:line`, as messages name it."""
        return self.places.get(line, f"{self.source}:{line}")


def parsed(text: bytes | str) -> object:
    """What a JSON text holds.

    Raises:
        ValueError: it is not JSON, names a key twice, or is nested so deeply that it can be no log.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key '{twice}' is there twice, and only one of its values can be meant")
    return found


def as_number(text: str) -> float | None:
    """The number that a word is, NaN and infinities among them; None where it is none.

    Example:
        >>> as_number(" 1e-3 "), as_number("high"), as_number("1_000"), as_number("35 %")
        (0.001, None, None, None)
    """
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def numbers(values: Mapping[str, object]) -> dict[str, float | None]:
    """The entries of a logged row as numbers, also where a number is written as a word; None for what is none.

    None keeps its place, so that a row that lacks a metric and one that has nonsense for it can be told apart.

    Example:
        >>> numbers({"entropy": 0.5, "loss": float("nan"), "note": "warm-up", "acc": "0.35", "kl": None})
        {'entropy': 0.5, 'loss': None, 'note': None, 'acc': 0.35, 'kl': None}
    """
    found: dict[str, float | None] = {}
    for name, value in values.items():
        # By exact type, which is fast and takes no boolean for a number.
        number = as_number(value) if type(value) is str else value
        if (type(number) is float or type(number) is int) and -_LARGEST <= number <= _LARGEST:
            found[name] = float(number)
        else:
            found[name] = None
    return found


def step_name(rows: Iterable[Mapping[str, float | None]], wanted: str | None = None) -> str | None:
    """The column that counts steps: the asked one, or the known one that most rows have; None if there is none.

    Args:
        rows: the numbers of each row.
        wanted: a column the user names.
    """
    if wanted is not None:
        return wanted
    counts = dict.fromkeys(STEP_NAMES, 0)
    for row in rows:
        for name in STEP_NAMES:
            if row.get(name) is not None:
                counts[name] += 1
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else None


def stepped(
    rows: Iterable[tuple[int, Mapping[str, float | None]]], name: str | None, source: Path | str
) -> Iterator[LogRow]:
    """Rows with their step taken out of the column `name`.

    Args:
        rows: (line, numbers) of each row.
        name: the column that counts steps; None gives every row the step None.
        source: the file, for messages.

    Raises:
        LogError: a step is negative or no whole number.
    """
    for line, values in rows:
        value = values.get(name) if name is not None else None
        if value is not None and (value != int(value) or not 0 <= value <= _LARGEST_STEP):
            raise LogError(
                f"{source}:{line}: {name} is {value:g}; a step is a whole number from 0 on. Name the column that counts"
                " steps with --step."
            )
        step = None if value is None else int(value)
        yield LogRow(line, step, {key: number for key, number in values.items() if key != name})


def in_order(rows: list[LogRow]) -> list[LogRow]:
    """Rows of a log without steps, numbered 1, 2, 3, … in the order of the file."""
    return [LogRow(row.line, number, row.values) for number, row in enumerate(rows, start=1)]


NO_STEPS = "There is no column of steps: rows are taken in the order of the file, as steps 1, 2, 3, …"
