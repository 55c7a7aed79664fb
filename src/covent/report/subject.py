"""What a page is about: run folders with everything in them, and logs of other engines with what they logged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from covent.law.series import FULL_MARKS
from covent.logs.explain import Explanation, explanation
from covent.logs.results import FitResult, fit_result
from covent.logs.run_folder import run_series
from covent.logs.series import LogSeries
from covent.report.chart import Style, styles
from covent.report.experiments import experiments
from covent.report.names import all_short
from covent.report.summary import RunSummary, summarise
from covent.store.reader import Run


@dataclass(frozen=True)
class Subject:
    """One run of a page."""

    style: Style
    run: Run | None
    """None for a log of another engine."""
    summary: RunSummary | None
    points: LogSeries | None
    """The points of the law; None where there are none."""
    fit: FitResult | None
    told: Explanation | None
    """The run in words, as `covent explain` says it."""
    experiment: str
    """What it has in common with runs that differ in their seed alone; of a log, its label."""

    @property
    def label(self) -> str:
        return self.style.label

    @property
    def name(self) -> str:
        """Its whole name, which the label may shorten."""
        if self.run is not None:
            return self.run.name
        return "" if self.points is None else self.points.label or self.points.name

    @property
    def scale(self) -> float:
        """What accuracies of `points` are divided by to be fractions."""
        return 1.0 if self.points is None else FULL_MARKS[self.points.unit]


def subjects(runs: Sequence[Run], logs: Sequence[LogSeries] = ()) -> list[Subject]:
    """Run folders, then logs, in the order given.

    Raises:
        FitError: the points of a log are no accuracies and entropies.
    """
    looks = styles(runs, [log.label or log.name for log in logs])
    named = all_short(experiments(runs))
    found = [_of_run(look, run, name) for look, run, name in zip(looks, runs, named, strict=False)]
    for look, log in zip(looks[len(runs) :], logs, strict=True):
        fit = fit_result(log)
        found.append(Subject(look, None, None, log, fit, explanation(log, fit), look.label))
    return found


def _of_run(look: Style, run: Run, name: str) -> Subject:
    """The law is that of the validation accuracy, or where there is none of the training reward."""
    summary = summarise(run)
    law = summary.main_law if summary.main_law.fit is not None else None
    if law is None or law.fit is None:
        return Subject(look, run, summary, None, None, None, name)
    points = run_series(run, law.source)
    return Subject(look, run, summary, points, law.fit, explanation(points, law.fit), name)
