"""Logs in tables: plain CSV, wandb's panel downloads, and long tables with one metric a row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from covent.logs.json_rows import run_of_rows
from covent.logs.rows import LogError, LoggedRun

_DELIMITERS = (",", "\t", ";")
_METRIC_COLUMNS = ("key", "metric", "tag", "name")
_NOTHING = {"nan", "none", "null", "n/a", "na", "-"}
"""Words for a number that is missing. An empty cell is no fault; these are, and are counted."""
_PANEL = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<edge>__MIN|__MAX)?")

_MOST_RUNS, _FEWEST_ROWS, _LISTED = 50, 3, 5
"""A column of words with 2 to 50 of them, each in at least 3 rows, may tell runs apart."""

Cells = Mapping[str, str]


def read_csv(path: Path, *, step: str | None = None, by: str | None = None) -> list[LoggedRun]:
    """Runs in a table of text: comma, semicolon or tab, first line the names, lines that start with # left out.

    Args:
        path: the file.
        step: the column that counts steps, if not one of `STEP_NAMES`.
        by: a column whose values tell several runs of one table apart.

    Raises:
        LogError: no text, no rows, a repeated name, a row that is too short or too long, or a cell that is no number
            in a column of numbers; with file and line.
    """
    header, rows = _rows(path)
    if _is_panel(header):
        return _panel_runs(path, header, rows)
    if {"Wall time", "Step", "Value"} <= set(header):
        raise LogError(
            f"{path} is a TensorBoard download: one metric, and not even its name. Give the event file itself"
            " (events.out.tfevents…), or a table with a column for each metric."
        )
    groups: dict[str, list[tuple[int, Cells]]] = {}
    if by is not None and by not in header:
        raise LogError(f"{path} has no column '{by}', which --by asks for. It has {', '.join(header)}.")
    for line, cells in rows:
        groups.setdefault(path.stem if by is None else cells[by], []).append((line, cells))
    runs = []
    for name, group in groups.items():
        long = _long_form(header)
        table = _pivoted(path, group, long) if long else _numeric(path, group, [name for name in header if name != by])
        notes = [] if long or by else _several_runs(header, group)
        runs.append(run_of_rows(path, name, "CSV", table, step, notes))
    return runs


def _several_runs(header: Sequence[str], rows: Sequence[tuple[int, Cells]]) -> list[str]:
    """A column of few different words may tell runs apart; whether it does is the user's to say."""
    for name in header:
        counts = Counter(cells[name] for _, cells in rows)
        if (
            2 <= len(counts) <= _MOST_RUNS
            and min(counts.values()) >= _FEWEST_ROWS
            and not any(_is_number(word) or word.lower() in _EMPTY for word in counts)
        ):
            words = ", ".join(list(counts)[:_LISTED]) + (", …" if len(counts) > _LISTED else "")
            return [
                f"All rows were taken as one run, but column '{name}' holds {len(counts)} words ({words}): if they are"
                f" several runs, tell them apart with --by {name}."
            ]
    return []


def _rows(path: Path) -> tuple[list[str], list[tuple[int, Cells]]]:
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first name.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is no UTF-8 text ({error}). Save the table as UTF-8 CSV.") from error
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header: list[str] = []
    rows: list[tuple[int, Cells]] = []
    for cells in reader:
        if not cells or cells[0].startswith("#") or not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = _header(path, reader.line_num, cells)
            continue
        if len(cells) != len(header):
            raise LogError(
                f"{path}:{reader.line_num} has {len(cells)} cells; the header names {len(header)} columns."
                + (" Numbers with a decimal comma must be written with a point." if len(cells) > len(header) else "")
            )
        rows.append((reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=True))))
    if not rows:
        raise LogError(f"{path} holds no row below its header. Give a table with one row a step.")
    return header, rows


def _header(path: Path, line: int, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LogError(f"{path}:{line} names column '{repeated[0]}' twice; rename one of them.")
    if all(_is_number(name) for name in names):
        raise LogError(f"{path}:{line} holds numbers where names are needed: the first line must name the columns.")
    return names


def _is_panel(header: Sequence[str]) -> bool:
    """wandb's panel download: a step, then `run - metric` with its smallest and largest value."""
    return len(header) > 1 and all(_PANEL.fullmatch(name) for name in header[1:])


def _panel_runs(path: Path, header: Sequence[str], rows: list[tuple[int, Cells]]) -> list[LoggedRun]:
    columns: dict[str, dict[str, str]] = {}
    for name in header[1:]:
        match = _PANEL.fullmatch(name)
        assert match is not None
        if match["edge"] is None:
            columns.setdefault(match["run"], {})[name] = match["metric"]
    table = _numeric(path, rows, [header[0], *(name for names in columns.values() for name in names)])
    note = f"Steps are those of the panel's first column, '{header[0]}'."
    runs = []
    for run, names in columns.items():
        picked = [
            (line, {"step": values.get(header[0])} | {new: values[old] for old, new in names.items() if old in values})
            for line, values in table
        ]
        runs.append(run_of_rows(path, run, "wandb panel CSV", picked, "step", [note]))
    return runs


def _long_form(header: Sequence[str]) -> tuple[str, str] | None:
    """The columns (metric, step) of a table with one metric a row, such as MLflow's; None for a wide table."""
    metric = next((name for name in _METRIC_COLUMNS if name in header), None)
    return (metric, "step") if metric and {"value", "step"} <= set(header) else None


def _pivoted(
    path: Path, rows: list[tuple[int, Cells]], columns: tuple[str, str]
) -> list[tuple[int, dict[str, float | None]]]:
    metric, step = columns
    numeric = _numeric(path, rows, ["value", step])
    return [
        (line, {cells[metric]: values.get("value"), "step": values.get(step)})
        for (line, cells), (_, values) in zip(rows, numeric, strict=True)
    ]


def _numeric(
    path: Path, rows: list[tuple[int, Cells]], names: Sequence[str]
) -> list[tuple[int, dict[str, float | None]]]:
    """The columns of numbers; a column in which most cells are text is no metric and left out."""
    kept: list[tuple[int, dict[str, float | None]]] = [(line, {}) for line, _ in rows]
    for name in names:
        cells = [(line, row[name]) for line, row in rows]
        filled = [cell for _, cell in cells if cell.lower() not in _EMPTY]
        if 2 * sum(_is_number(cell) for cell in filled) < len(filled) and not any("%" in cell for cell in filled):
            continue
        for (line, cell), (_, values) in zip(cells, kept, strict=True):
            values[name] = _number(path, line, name, cell)
    return kept


def _number(path: Path, line: int, name: str, cell: str) -> float | None:
    if cell.lower() in _EMPTY:
        return None
    if not _is_number(cell):
        hint = " Write 35.1 and say --unit percent." if cell.endswith("%") else " Repair the cell, or leave it empty."
        raise LogError(f"{path}:{line}: '{cell}' in column '{name}' is no number.{hint}")
    value = float(cell)
    return value if math.isfinite(value) else None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
