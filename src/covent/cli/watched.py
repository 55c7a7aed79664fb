"""One run as `covent watch` sees it: what its rows say so far, in cells and as facts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from covent.cli.live import LiveRun, Tail, sparkline
from covent.report import numbers as n
from covent.store.reader import read_header, read_status
from covent.store.schema import ForecastRow, Status, UpdateRow

TAIL = "0.02"
"""The top share of tokens whose part of the positive covariance is shown."""

_RECENT = 20
_SPARKS = 16


class WatchedRun(LiveRun):
    """A run folder that grows."""

    def __init__(self, name: str, folder: Path, num_steps: int) -> None:
        super().__init__(name, folder, num_steps)
        self.folder = folder
        self.updates = Tail(folder / "updates.jsonl", UpdateRow)
        self.forecasts = Tail(folder / "forecasts.jsonl", ForecastRow)
        self.status: Status = read_status(folder)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Raises: MissingPathError, StoreError when it is no run folder."""
        return cls(read_header(folder).name, folder, read_status(folder).num_steps)

    def read(self) -> None:
        """Take in what was written since the last call."""
        super().read()
        self.updates.read()
        self.forecasts.read()
        self.status = read_status(self.folder)
        self.num_steps = max(self.status.num_steps, len(self.steps.rows))

    @property
    def has_ended(self) -> bool:
        """Whether its status says so, or its process is gone."""
        return self.status.state != "running"

    def facts(self) -> dict[str, Any]:
        """What is known now; None where nothing is."""
        entropies = [row.entropy.value for row in self.steps.rows if row.entropy.value is not None]
        rewards = [row.reward.value for row in self.steps.rows if row.reward.value is not None]
        validation = [row.avg.value for row in self.evaluations.rows if row.split == "validation"]
        ahead = self.forecasts.rows[-1] if self.forecasts.rows else None
        recent = self.updates.rows[-_RECENT:]
        tails = [value for row in recent if (value := row.covariance.positive_shares.get(TAIL)) is not None]
        tokens = sum(row.control.num_tokens for row in recent if row.control.asked_frac is not None)
        selected = sum(row.control.num_selected for row in recent)
        return {
            "name": self.name,
            "state": self.status.state,
            "step": len(self.steps.rows),
            "num_steps": self.num_steps,
            "entropy": entropies[-1] if entropies else None,
            "reward": rewards[-1] if rewards else None,
            "accuracy": validation[-1] if validation else None,
            "ceiling": ahead.ceiling if ahead is not None and ahead.identified else None,
            "ceiling_low": ahead.ceiling_low if ahead is not None and ahead.identified else None,
            "ceiling_high": ahead.ceiling_high if ahead is not None and ahead.identified else None,
            "ceiling_step": None if ahead is None else ahead.step,
            "covariance_tail": sum(tails) / len(tails) if tails else None,
            "selected_frac": selected / tokens if tokens else None,
            "seconds_left": self._seconds_left(),
            "num_damaged": sum(
                tail.num_damaged for tail in (self.steps, self.evaluations, self.updates, self.forecasts)
            ),
        }

    def _seconds_left(self) -> float | None:
        """Steps that are left, at the mean of the last ones' wall time."""
        recent = [sum(row.seconds.values()) for row in self.steps.rows[-_RECENT:]]
        left = self.num_steps - len(self.steps.rows)
        return left * sum(recent) / len(recent) if recent and not self.has_ended else None

    def courses(self) -> tuple[str, str]:
        """Sparklines of entropy and validation accuracy."""
        entropies = [row.entropy.value for row in self.steps.rows if row.entropy.value is not None]
        validation = [row.avg.value for row in self.evaluations.rows if row.split == "validation"]
        return sparkline(entropies, _SPARKS), sparkline(validation, _SPARKS)


def watch_table(runs: Sequence[WatchedRun]) -> Table:
    """The state of all runs, one column a run, so that it fits a narrow terminal."""
    table = Table(box=None, pad_edge=False, show_header=True)
    table.add_column("")
    for run in runs:
        table.add_column(run.name, overflow="fold")
    known = [run.facts() for run in runs]
    courses = [run.courses() for run in runs]
    rows: dict[str, list[str]] = {
        "state": [fact["state"] for fact in known],
        "step": [f"{fact['step']}/{fact['num_steps']}" for fact in known],
        "entropy": [n.nats(fact["entropy"]) for fact in known],
        "  its course": [course[0] for course in courses],
        "validation": [n.percent(fact["accuracy"]) for fact in known],
        "  its course ": [course[1] for course in courses],
        "reward": [n.percent(fact["reward"]) for fact in known],
        "ceiling, live": [_ceiling(fact) for fact in known],
        "covariance in top 2 %": [n.percent(fact["covariance_tail"], 0) for fact in known],
        "tokens selected": [n.share(fact["selected_frac"]) for fact in known],
        "time left": [n.MISSING if fact["seconds_left"] is None else n.minutes(fact["seconds_left"]) for fact in known],
    }
    if any(fact["num_damaged"] for fact in known):
        rows["lines not readable"] = [str(fact["num_damaged"]) for fact in known]
    for name, cells in rows.items():
        table.add_row(name, *cells)
    table.caption = (
        "ceiling, live: as forecast at the step in brackets, from the points known by then. The report fits all"
        " points of the run, so its ceiling may differ."
    )
    table.caption_justify = "left"
    return table


def _ceiling(fact: dict[str, Any]) -> str:
    """As the last forecast has it; above 100 % is impossible and said so."""
    if fact["ceiling_step"] is None:
        return n.MISSING
    at = f" (step {fact['ceiling_step']})"
    if fact["ceiling"] is None:
        return f"not identified{at}"
    text = n.percent(fact["ceiling"])
    if fact["ceiling_low"] is not None:
        text += f" [{n.fixed(100 * fact['ceiling_low'], 1)}, {n.fixed(100 * fact['ceiling_high'], 1)}]"
    return f"{text}, impossible{at}" if fact["ceiling"] > 1 else f"{text}{at}"
