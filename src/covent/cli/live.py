"""Runs of other processes, watched through their folders while they grow."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Generic, TypeVar

from rich.table import Table

from covent.store.schema import EvaluationRow, Row, StepRow

AnyRow = TypeVar("AnyRow", bound=Row)

_BARS = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 24


class Tail(Generic[AnyRow]):
    """The rows of a growing JSON Lines file, each read once: cheap enough to ask several times a second."""

    def __init__(self, path: Path, row: type[AnyRow]) -> None:
        self.rows: list[AnyRow] = []
        self.num_damaged = 0
        """Lines that do not fit the schema; they are left out."""
        self._path = path
        self._row = row
        self._offset = 0

    def read(self) -> None:
        """Add the whole lines that were written since the last call; a line without its end is left for the next."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._offset:
                # A run that was taken up again is cut back to its checkpoint first.
                self.rows, self.num_damaged, self._offset = [], 0, 0
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.split(b"\n")[:-1]:
            try:
                self.rows.append(self._row.model_validate_json(line))
            except ValueError:
                self.num_damaged += 1


class LiveRun:
    """One run as it stands now."""

    def __init__(self, name: str, folder: Path, num_steps: int) -> None:
        self.name = name
        self.num_steps = num_steps
        self.steps = Tail(folder / "steps.jsonl", StepRow)
        self.evaluations = Tail(folder / "evaluations.jsonl", EvaluationRow)

    def read(self) -> None:
        """Take in what was written since the last call."""
        self.steps.read()
        self.evaluations.read()

    def cells(self) -> list[str]:
        """Name, step, entropy with its course, training reward, validation accuracy."""
        entropies = [row.entropy.value for row in self.steps.rows if row.entropy.value is not None]
        rewards = [row.reward.value for row in self.steps.rows if row.reward.value is not None]
        validation = [row.avg.value for row in self.evaluations.rows if row.split == "validation"]
        return [
            self.name,
            f"{len(self.steps.rows)}/{self.num_steps}",
            f"{entropies[-1]:.3f}" if entropies else "",
            sparkline(entropies, _SPARK_WIDTH),
            f"{rewards[-1]:.2f}" if rewards else "",
            f"{validation[-1]:.2f}" if validation else "",
        ]


def live_table(runs: list[LiveRun], warm_start: tuple[int, int]) -> Table:
    """The state of all runs.

    Args:
        runs: in the order of the rows.
        warm_start: supervised steps done, and in all; shown until they are done.
    """
    done, total = warm_start
    table = Table(
        *("run", "step", "entropy (nats)", "its course", "reward", "validation"),
        title=f"warm start {done}/{total}" if done < total else None,
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for run in runs:
        table.add_row(*run.cells())
    return table


def sparkline(values: list[float], width: int) -> str:
    """A curve from 0 to its largest value in at most `width` characters, each the mean of its stretch.

    Example:
        >>> sparkline([0.8, 0.6, 0.4, 0.2, 0.0, 0.0], width=3)
        '█▄▁'
    """
    if not values:
        return ""
    width = min(width, len(values))
    edges = [len(values) * i // width for i in range(width + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    top = max(means)
    return "".join(_BARS[round((len(_BARS) - 1) * mean / top) if top > 0 else 0] for mean in means)
