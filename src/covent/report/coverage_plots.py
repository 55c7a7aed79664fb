"""pass@k at every k, before and after, and the k from which the start policy reaches more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.report import numbers as n
from covent.report.accuracy import Difference, paired_difference, problem_scores
from covent.report.chart import MUTED, Chart, Style, band, figure, line, stacked, table
from covent.store.estimates import wilson
from covent.store.reader import Run
from covent.store.schema import EvaluationRow


class Crossover(BaseModel):
    """Where the start policy overtakes the trained one in pass@k."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    k: int | None
    """The smallest k at which the start policy is ahead and not behind at any larger k; None if there is none."""
    least: float
    """Trained minus start at the k where that is smallest."""
    most: float
    """The same at the k where it is largest."""
    largest_k: int
    at_largest: Difference | None
    """Trained minus start at the largest k, paired by problem."""


def first_and_last_test(run: Run) -> tuple[EvaluationRow | None, EvaluationRow | None]:
    """The test of the start policy and that of the last one, each if there is one."""
    rows = sorted((row for row in run.evaluations if row.split == "test"), key=lambda row: row.step)
    start = next((row for row in rows if row.step == 0), None)
    return start, next((row for row in reversed(rows) if row.step > 0), None)


def pass_at_every_k(row: EvaluationRow) -> list[float]:
    """Unbiased pass@1 … pass@n of an evaluation with n samples a problem."""
    found = [problem_scores(row, f"pass@{k}") for k in range(1, row.num_samples + 1)]
    return [float(np.mean(scores)) for scores in found if scores is not None]


def crossover(run: Run) -> Crossover | None:
    """Where the start policy overtakes; None unless both were tested on the same problems."""
    start, end = first_and_last_test(run)
    if start is None or end is None or start.num_problems != end.num_problems:
        return None
    largest = min(start.num_samples, end.num_samples)
    before, after = pass_at_every_k(start)[:largest], pass_at_every_k(end)[:largest]
    # Sums in another order differ in their last bits.
    ahead = [round(b - a, 12) for b, a in zip(before, after, strict=True)]
    first = next((place for place in range(largest) if ahead[place] > 0 and min(ahead[place:]) >= 0), None)
    return Crossover(
        k=None if first is None else first + 1,
        least=-max(ahead),
        most=-min(ahead),
        largest_k=largest,
        at_largest=paired_difference(end, start, f"pass@{largest}"),
    )


def pass_curves_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """pass@k against k on the test problems, start and end, with 95 % intervals over problems."""
    chart, parts, notes = figure("k, samples a problem"), [], []
    starts: set[str | None] = set()
    for run, style in zip(runs, styles, strict=True):
        for row, name, color, dash in (
            (first_and_last_test(run)[0], "start", MUTED, "dot"),
            (first_and_last_test(run)[1], style.label, style.color, style.dash),
        ):
            if row is None or (name == "start" and run.header.start_model in starts - {None}):
                continue
            if name == "start":
                starts.add(run.header.start_model)
                known = len({each.header.start_model for each in runs}) == 1 and run.header.start_model is not None
                name = "start" if known or len(runs) == 1 else f"{style.label}, start"
            ks, values, low, high = _curve(row)
            chart.add_traces(band(ks, low, high, name, "#777777" if color == MUTED else color))
            chart.add_trace(line(ks, values, name, color, dash=dash))
            parts.append((name, table(["k", "pass@k", "low", "high"], ks, values, low, high)))
        notes += _told(run, style)
    if not parts:
        return None
    chart.update_xaxes(type="log", dtick=0.30103)
    chart.update_yaxes(tickformat=".2~%")
    return Chart(
        anchor="pass-curves",
        title="pass@k at every k",
        y_label="pass@k on the test problems, with 95 % bands over problems",
        caption="The unbiased estimate from the samples of each problem. Where the curve of the start crosses that of"
        " the trained policy, training has made sure of what was likely and lost what was rare.",
        note=" ".join(notes),
        figure=chart,
        table=stacked(parts, "policy"),
    )


def _curve(row: EvaluationRow) -> tuple[list[int], list[float], list[float], list[float]]:
    ks = list(range(1, row.num_samples + 1))
    scores = [problem_scores(row, f"pass@{k}") for k in ks]
    # Rounding may carry a product of quotients past 1.
    found = [wilson(np.clip(each, 0.0, 1.0).tolist()) for each in scores if each is not None]
    return ks, [e.value for e in found], [e.low for e in found], [e.high for e in found]


def _told(run: Run, style: Style) -> list[str]:
    found = crossover(run)
    if found is None:
        return []
    paired = "" if found.at_largest is None else f" (paired at k = {found.largest_k}: {n.difference(found.at_largest)})"
    if found.k is None:
        return [f"{style.label}: {_without_crossover(found)}{paired}."]
    shown = found.at_largest is not None and found.at_largest.shown
    doubt = "" if shown else ", though the interval at the largest k holds 0"
    return [f"{style.label}: its start is ahead from k = {found.k} on{paired}{doubt}."]


def _without_crossover(found: Crossover) -> str:
    if found.least > 0:
        return "ahead of its start at every k"
    if found.least < 0:
        return "behind its start at some k, and ahead of it at the largest"
    return "never behind its start" if found.most > 0 else "no difference from its start at any k"
