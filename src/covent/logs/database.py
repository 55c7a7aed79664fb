"""Logs in sqlite stores: trackio's and MLflow's. The standard library reads both; no tracker need be installed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from covent.logs.json_rows import run_of_rows
from covent.logs.rows import LogError, LoggedRun, numbers, parsed

MAGIC = b"SQLite format 3\x00"
"""The first bytes of every sqlite file."""

# verl's MLflow adapter writes mean@8 as mean_at_8.
_AT = re.compile(r"_at_(?=\d)")

Rows = dict[str, list[tuple[int, dict[str, float | None]]]]


def read_database(path: Path, *, step: str | None = None) -> list[LoggedRun]:
    """Every run in the sqlite store of trackio or MLflow; the file is opened for reading only.

    Raises:
        LogError: the file is damaged, or holds the tables of neither.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
            if {"run_name", "step", "metrics"} <= columns:
                kind, rows = "trackio", _trackio(path, database)
            elif {"key", "value", "run_uuid", "step"} <= columns:
                kind, rows = "MLflow", _mlflow(path, database)
            else:
                raise LogError(
                    f"{path} is a sqlite file without a table of metrics as trackio or MLflow have it"
                    f" (columns found: {', '.join(sorted(columns)) or 'none'}). Export the run as CSV or JSON Lines."
                )
    except sqlite3.Error as error:
        raise LogError(
            f"{path} cannot be read as a sqlite file: {error}. Copy it again while no run writes to it."
        ) from error
    if not rows:
        raise LogError(f"{path} holds no metric of any run. Was the run stopped before it logged anything?")
    return [run_of_rows(path, name, f"{kind} database", found, step or "step", []) for name, found in rows.items()]


def _trackio(path: Path, database: sqlite3.Connection) -> Rows:
    rows: Rows = {}
    for number, run, step, text in database.execute("SELECT id, run_name, step, metrics FROM metrics ORDER BY id"):
        try:
            metrics = parsed(text)
        except (TypeError, ValueError) as error:
            raise LogError(f"{path}: row {number} of table metrics is not JSON: {error}.") from error
        if not isinstance(metrics, Mapping):
            raise LogError(f"{path}: row {number} of table metrics is a JSON {type(metrics).__name__}, not an object.")
        values = numbers(metrics) | {"step": _number(path, number, "step", step)}
        rows.setdefault(str(run), []).append((number, values))
    return rows


def _mlflow(path: Path, database: sqlite3.Connection) -> Rows:
    tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    names = dict(database.execute("SELECT run_uuid, name FROM runs")) if "runs" in tables else {}
    rows: Rows = {}
    query = "SELECT rowid, run_uuid, key, value, step, is_nan FROM metrics ORDER BY timestamp, rowid"
    for number, run, key, value, step, is_nan in database.execute(query):
        name = str(names.get(run) or run)
        if list(names.values()).count(name) > 1:
            name = f"{name} {str(run)[:6]}"
        # MLflow stores 0 for what was not a number, with a mark beside it.
        logged = None if is_nan else _number(path, number, "value", value)
        values = {_AT.sub("@", str(key)): logged, "step": _number(path, number, "step", step)}
        rows.setdefault(name, []).append((number, values))
    return rows


def _number(path: Path, row: int, column: str, value: object) -> float:
    # sqlite checks no types: a damaged store can hold anything anywhere.
    if not isinstance(value, int | float):
        raise LogError(f"{path}: row {row} of table metrics has {column} {value!r}, which is no number.")
    return float(value)
