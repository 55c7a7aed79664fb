"""Small logs written for one test each, and the golden files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from covent.logs import Choice, LoggedRun, LogSeries, log_series, read_logs

GOLDEN = Path(__file__).parent / "data"
"""Made by make_golden.py beside this file."""

Row = Mapping[str, object]


def json_lines(path: Path, rows: Iterable[Row]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_run(path: Path, **options: str) -> LoggedRun:
    """The only run of a log."""
    (run,) = read_logs(path, **options)
    return run


def series_of(path: Path, choice: Choice | None = None) -> LogSeries:
    """The points of the only run of a log."""
    return log_series(one_run(path), choice)


def law_rows(num_steps: int = 24, every: int = 4) -> list[dict[str, float]]:
    """A run on the law R = 1.1 - 0.3·exp(H) exactly: entropy at each step, accuracy at every n-th.

    The entropy that an accuracy follows is the mean of the last `every` steps.
    """
    import math

    entropies = [0.6 * math.exp(-step / 10) + 0.02 for step in range(1, num_steps + 1)]
    rows: list[dict[str, float]] = []
    for step, entropy in enumerate(entropies, start=1):
        row: dict[str, float] = {"step": step, "entropy": entropy}
        if step % every == 0:
            mean = math.fsum(entropies[step - every : step]) / every
            row["accuracy"] = 1.1 - 0.3 * math.exp(mean)
        rows.append(row)
    return rows
