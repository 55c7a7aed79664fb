"""Logs in Parquet tables, which need the `data` extra."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from covent.logs.extras import missing_extra
from covent.logs.json_rows import runs_of_objects
from covent.logs.rows import LogError, LoggedRun

MAGIC = b"PAR1"
"""The first bytes of every Parquet file."""


def read_parquet(path: Path, *, step: str | None = None, by: str | None = None) -> list[LoggedRun]:
    """Runs in a Parquet table with one row a step; arguments as for `read_csv`.

    Raises:
        MissingExtraError: pyarrow is not installed.
        LogError: the file is damaged, or has no row.
    """
    try:
        import pyarrow
        from pyarrow.parquet import read_table
    except ModuleNotFoundError as error:
        raise missing_extra("pyarrow", "data", path) from error
    try:
        rows = read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise LogError(f"{path} is no readable Parquet table: {str(error).splitlines()[0]}. Write it again.") from error
    # A null of a table is an empty cell, and no fault.
    told = [
        {
            name: float(value) if isinstance(value, Decimal) else value
            for name, value in row.items()
            if value is not None
        }
        for row in rows
    ]
    return runs_of_objects(path, "Parquet", list(enumerate(told, start=1)), step=step, by=by)
