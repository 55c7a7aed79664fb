"""Logs in JSON: lines of rows (prime-rl, tinker, wandb's history, verl's file logger) and TRL's trainer state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from covent.logs.rows import (
    NO_STEPS,
    STEP_NAMES,
    LogError,
    LoggedRun,
    LogRow,
    in_order,
    numbers,
    parsed,
    step_name,
    stepped,
)
from covent.logs.several import several_runs

_NESTED = ("data", "metrics")
"""verl's file logger writes {"step": 3, "data": {…}}, others say "metrics"."""


def read_json_lines(path: Path, *, step: str | None = None, by: str | None = None) -> list[LoggedRun]:
    """Runs in a file with one JSON object a line.

    Args:
        path: the file. A last line without newline that is no whole JSON was being written when the run died: it is
            dropped and noted.
        step: the key that counts steps, if not one of `STEP_NAMES`.
        by: a key whose values tell several runs of one file apart.

    Raises:
        LogError: another line is no JSON object; with file and line.
    """
    objects, notes = _objects(path)
    return runs_of_objects(path, "JSON Lines", objects, step=step, by=by, notes=notes)


def read_json(path: Path, *, step: str | None = None, by: str | None = None) -> list[LoggedRun]:
    """Runs in one JSON document: the `log_history` of a transformers or TRL trainer state, or a list of rows.

    Raises:
        LogError: the document is not JSON, or neither of the two.
    """
    try:
        document = parsed(path.read_bytes())
    except ValueError as error:
        raise LogError(f"{path} is not JSON: {error}. Restore the file, or give another log of the run.") from error
    if isinstance(document, Mapping) and isinstance(document.get("log_history"), list):
        return runs_of_objects(path, "TRL trainer state", _numbered(path, document["log_history"]), step=step)
    if isinstance(document, list):
        return runs_of_objects(path, "JSON rows", _numbered(path, document), step=step, by=by)
    keys = ", ".join(sorted(map(str, document))[:6]) if isinstance(document, Mapping) else type(document).__name__
    raise LogError(
        f"{path} holds no log: a list of rows, or an object with `log_history` (trainer_state.json), is needed; it"
        f" holds {keys or 'nothing'}. A summary or a config is no history: export the history of the run."
    )


def runs_of_objects(
    path: Path,
    format: str,
    objects: list[tuple[int, Mapping[str, object]]],
    *,
    step: str | None = None,
    by: str | None = None,
    notes: list[str] | None = None,
) -> list[LoggedRun]:
    """Rows as JSON gives them, as one run, or one for each value of the key `by`.

    Raises:
        LogError: no row at all, or a row without the key `by`.
    """
    if not objects:
        raise LogError(f"{path} holds no row. Was the run stopped before it logged anything? Give another log.")
    notes = [*(notes or []), *([] if by else _several_runs([_flat(row) for _, row in objects], step))]
    groups: dict[str, list[tuple[int, dict[str, float | None]]]] = {}
    for line, row in objects:
        if by is not None and by not in row:
            raise LogError(f"{path}:{line} has no '{by}', which --by asks for. It has {', '.join(sorted(row)[:8])}.")
        groups.setdefault(path.stem if by is None else str(row[by]), []).append((line, numbers(_flat(row))))
    return [run_of_rows(path, name, format, rows, step, list(notes)) for name, rows in groups.items()]


def _several_runs(rows: list[dict[str, object]], step: str | None) -> list[str]:
    """Only keys that every row has can tell runs apart."""
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    steps = next((name for name in (step, *STEP_NAMES) if name in shared), None)
    places = [str(row[steps]) for row in rows] if steps else None
    return several_runs({name: [row[name] for row in rows] for name in shared if name != steps}, places)


def run_of_rows(
    path: Path,
    name: str,
    format: str,
    rows: list[tuple[int, dict[str, float | None]]],
    step: str | None,
    notes: list[str],
) -> LoggedRun:
    """One run from its rows, the column of steps found, or said to be missing.

    Raises:
        LogError: the column that the user names does not exist, or a step is no whole number.
    """
    column = step_name((row for _, row in rows), step)
    if step is not None and all(row.get(step) is None for _, row in rows):
        raise LogError(f"{path} has no column '{step}' of numbers, which --step asks for.")
    found = list(stepped(rows, column, path))
    if column is None:
        found, notes = in_order(found), [*notes, NO_STEPS]
    else:
        notes = notes + _without_step(found, column)
    return LoggedRun(path, name, format, [row for row in found if row.step is not None], notes)


def _without_step(rows: list[LogRow], column: str) -> list[str]:
    count = sum(row.step is None for row in rows)
    return [f"{count} rows without '{column}', which counts the steps, were left out."] if count else []


def _objects(path: Path) -> tuple[list[tuple[int, Mapping[str, object]]], list[str]]:
    *lines, last = path.read_bytes().split(b"\n")
    notes = []
    if last.strip():
        if _parses(last):
            lines.append(last)
        else:
            notes.append(f"{path.name}:{len(lines) + 1} was cut off while it was written; this last line was dropped.")
    objects: list[tuple[int, Mapping[str, object]]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parsed(line)
        except ValueError as error:
            raise LogError(
                f"{path}:{number} is not JSON: {error}. Each line must be one JSON object; repair or delete the line."
            ) from error
        if not isinstance(row, Mapping):
            raise LogError(f"{path}:{number} is a JSON {type(row).__name__}; each line must be one JSON object.")
        objects.append((number, row))
    return objects, notes


def _parses(line: bytes) -> bool:
    try:
        parsed(line)
    except ValueError:
        return False
    return True


def _numbered(path: Path, rows: list[object]) -> list[tuple[int, Mapping[str, object]]]:
    """Records count from 1, in the place of lines."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise LogError(f"{path}: record {number} is a JSON {type(row).__name__}; each must be an object.")
    return [(number, row) for number, row in enumerate(rows, start=1) if isinstance(row, Mapping)]


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    """The row with the metrics of verl's file logger and its like moved up."""
    flat = dict(row)
    for key in _NESTED:
        inner = row.get(key)
        if isinstance(inner, Mapping):
            del flat[key]
            flat |= {str(name): value for name, value in inner.items()}
    return flat
