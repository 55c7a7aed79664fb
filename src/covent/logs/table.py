"""Logs in tables: plain CSV, wandb's panel downloads, and long tables with one metric a row."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from covent.logs.json_rows import run_of_rows
from covent.logs.rows import STEP_NAMES, LogError, LoggedRun, as_number
from covent.logs.several import several_runs

_DELIMITERS = (",", "\t", ";")
_METRIC_COLUMNS = ("key", "metric", "tag", "name")
_NOTHING = {"nan", "none", "null", "n/a", "na", "-"}
"""Words for a number that is missing. An empty cell is no fault; these are, and are counted."""
_PANEL = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<edge>__MIN|__MAX)?")

_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")

Cells = Mapping[str, str]


def read_csv(path: Path, *, step: str | None = None, by: str | None = None) -> list[LoggedRun]:
    """Runs in a table of text: comma, semicolon or tab, first line the names, lines that start with # left out.

    A last row without newline is dropped and noted, unless it ends with a quoted cell: it may have lost digits.

    Args:
        path: the file.
        step: the column that counts steps, if not one of `STEP_NAMES`.
        by: a column whose values tell several runs of one table apart.

    Raises:
        LogError: no text, no rows, a repeated name, a row that is too short or too long, or a cell that is no number
            in a column of numbers; with file and line.
    """
    header, rows, torn = _rows(path)
    if _is_panel(header):
        return _panel_runs(path, header, rows, torn)
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
        notes = [] if by else _several_runs(header, group, long, step)
        runs.append(run_of_rows(path, name, "CSV", table, step, [*torn, *notes]))
    return runs


def _several_runs(
    header: Sequence[str], rows: Sequence[tuple[int, Cells]], long: tuple[str, str] | None, step: str | None
) -> list[str]:
    names = header if long is None else [name for name in header if name not in (*long, "value")]
    steps = next((name for name in (step, *STEP_NAMES) if name in header), None)
    keys = [name for name in (steps, long and long[0]) if name]
    columns = {name: [cells[name] for _, cells in rows] for name in names}
    places = [tuple(cells[name] for name in keys) for _, cells in rows] if steps else None
    return several_runs(columns, places)


def _rows(path: Path) -> tuple[list[str], list[tuple[int, Cells]], list[str]]:
    """The names, the rows with their lines, and what was dropped."""
    try:
        # utf-8-sig: spreadsheets write a byte order mark, which would become part of the first name.
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is no UTF-8 text ({error}). Save the table as UTF-8 CSV.") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, torn = _whole_rows(path, text)
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    header: list[str] = []
    rows: list[tuple[int, Cells]] = []
    try:
        for cells in reader:
            if not cells or cells[0].startswith("#") or not any(cell.strip() for cell in cells):
                continue
            if header:
                rows.append((reader.line_num, _cells(path, reader.line_num, header, cells)))
            else:
                header = _header(path, reader.line_num, cells)
    except csv.Error as error:
        raise LogError(f"{path}:{reader.line_num} cannot be read: {error}. Repair the line.") from error
    if not rows:
        raise LogError(" ".join([f"{path} holds no row below its header. Give a table with one row a step.", *torn]))
    return header, rows, torn


def _whole_rows(path: Path, text: str) -> tuple[str, list[str]]:
    """The text without a last row that may have lost digits when its writer died."""
    whole, _, last = text.rpartition("\n")
    if not last.strip() or last.startswith("#") or last.rstrip().endswith('"') or not whole.strip():
        return text, []
    return whole + "\n", [
        f"{path.name}:{text.count(chr(10)) + 1} has no end of line, so it may have lost digits when its writer stopped:"
        " this last row was dropped. If it is whole, end it with a newline."
    ]


def _cells(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> Cells:
    if len(cells) != len(header):
        raise LogError(
            f"{path}:{line} has {len(cells)} cells; the header names {len(header)} columns."
            + (" Numbers with a decimal comma must be written with a point." if len(cells) > len(header) else "")
        )
    return dict(zip(header, (cell.strip() for cell in cells), strict=True))


def _header(path: Path, line: int, cells: Sequence[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LogError(f"{path}:{line} names column '{repeated[0]}' twice; rename one of them.")
    if all(as_number(name) is not None for name in names):
        raise LogError(f"{path}:{line} holds numbers where names are needed: the first line must name the columns.")
    return names


def _is_panel(header: Sequence[str]) -> bool:
    """wandb's panel download: a step, then `run - metric` with its smallest and largest value."""
    return len(header) > 1 and all(_PANEL.fullmatch(name) for name in header[1:])


def _panel_runs(path: Path, header: Sequence[str], rows: list[tuple[int, Cells]], torn: list[str]) -> list[LoggedRun]:
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
        runs.append(run_of_rows(path, run, "wandb panel CSV", picked, "step", [*torn, note]))
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
        filled = [cell for _, cell in cells if cell and cell.lower() not in _NOTHING]
        commas = next((line for line, cell in cells if _DECIMAL_COMMA.fullmatch(cell)), None)
        if 2 * sum(as_number(cell) is not None for cell in filled) < len(filled):
            if commas is not None:
                raise LogError(
                    f"{path}:{commas}: '{dict(cells)[commas]}' in column '{name}' has a comma. Numbers are written with"
                    " a decimal point and without separators of thousands."
                )
            if not any("%" in cell for cell in filled):
                continue
        for (line, cell), (_, values) in zip(cells, kept, strict=True):
            if cell:
                values[name] = _number(path, line, name, cell)
    return kept


def _number(path: Path, line: int, name: str, cell: str) -> float | None:
    value = as_number(cell)
    if value is None and cell.lower() not in _NOTHING:
        hint = " Write 35.1 and say --unit percent." if cell.endswith("%") else " Repair the cell, or leave it empty."
        raise LogError(f"{path}:{line}: '{cell}' in column '{name}' is no number.{hint}")
    return value if value is not None and math.isfinite(value) else None
