"""Methods over seeds: what each buys and what it costs, with seeds as bands and one law a method."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.law import accuracy as law_accuracy
from covent.law.series import counted
from covent.logs.results import FitResult, pooled_result
from covent.logs.run_folder import END_STEPS
from covent.report import numbers as n
from covent.report.chart import Chart, band, dots, figure, line, stacked, table
from covent.report.plots import course, running_mean
from covent.report.seeds import FEW, OverSeeds, curve_over_seeds, over_seeds
from covent.report.subject import Subject
from covent.report.summary import RunSummary
from covent.report.tables import ceiling_marks, short_ceiling
from covent.store.reader import Run
from covent.visible import visible

_GRID = 60


class MethodSummary(BaseModel):
    """One method over its runs. Accuracies are of the last test; None where it was not made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    seeds: list[int]
    end_entropy: OverSeeds | None
    """Mean of the last rollout steps, nats."""
    average: OverSeeds | None
    """avg@k."""
    gain: OverSeeds | None
    """avg@k at the end minus that of the start."""
    widest: OverSeeds | None
    """pass@k at the largest k."""
    law: FitResult | None
    """Of the points of all its runs together."""
    seconds: OverSeeds | None
    """Wall time of a run."""
    responses: OverSeeds | None
    """Training responses that a run sampled."""


@dataclass(frozen=True)
class Methods:
    """What the page shows of them."""

    headline: str
    intro: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    charts: list[Chart]


def methods(subjects: Sequence[Subject]) -> Methods | None:
    """Methods of which at least one has several runs; None where there is none."""
    groups = _groups(subjects)
    if not any(len(group) > 1 for group in groups.values()):
        return None
    found = [method_summary(name, group) for name, group in groups.items()]
    fewest = min(len(group) for group in groups.values())
    few = (
        f" With {fewest} runs of a method such an interval is too narrow: take it as a lower bound of the doubt."
        if fewest < FEW
        else ""
    )
    lead = f" Only {counted(fewest, 'run')} of a method: leads, not results." if fewest < FEW else ""
    told = [f"{each.name} over {counted(len(each.seeds), 'run')} {_ends(each)}" for each in found]
    charts = [
        _band_chart(groups, "entropy", "Policy entropy over seeds", "nats", _entropy_of),
        _band_chart(groups, "accuracy", "Accuracy over seeds", "validation accuracy", _accuracy_of),
        _law_chart(groups, found),
        _cost_chart(groups, found),
    ]
    return Methods(
        headline=f"{'; '.join(told[:MOST_TOLD])}.{lead}",
        intro="Interquartile mean over the runs of a method, the mean where there are fewer than four, with the 95 %"
        " interval of a bootstrap over seeds, stratified by task." + few,
        columns=COLUMNS,
        rows=[_row(summary) for summary in found],
        notes=[
            f"entropy: mean of the last {END_STEPS} steps, nats",
            "avg@k, gain, pass@k: test problems at the end, gain against the start",
            "ceiling: one law through the points of all runs of the method",
            "cost: wall time and training responses of a run",
            *ceiling_marks([summary.law for summary in found if summary.law is not None]),
        ],
        charts=[chart for chart in charts if chart is not None],
    )


MOST_TOLD = 4
"""Methods of which the head of the page speaks; more are better read in the table."""

COLUMNS = ["method", "runs", "entropy at the end", "avg@k", "gain", "pass@k", "ceiling", "wall time", "responses"]


def _ends(summary: MethodSummary) -> str:
    """Where a method ends, for the head of the page."""
    accuracy = summary.average or summary.widest
    name = "avg@k" if summary.average else "pass@k"
    tested = "" if accuracy is None else f" and {name} {_told(accuracy, lambda x: n.fixed(100 * x, 1), ' %')}"
    return f"ends with entropy {_told(summary.end_entropy, n.plain, ' nats')}{tested}"


def method_summary(name: str, group: Sequence[Subject]) -> MethodSummary:
    """One method over its runs."""
    tasks: dict[str, list[Subject]] = {}
    for each in group:
        tasks.setdefault(_task(each), []).append(each)

    def statistic(of: Callable[[Run, RunSummary], float | None]) -> OverSeeds | None:
        values = [[of(*_folder(each)) for each in members] for members in tasks.values()]
        return over_seeds([[value for value in row if value is not None] for row in values])

    points = [each.points for each in group if each.points is not None]
    return MethodSummary(
        name=name,
        seeds=[_folder(each)[1].seed for each in group],
        end_entropy=statistic(lambda _, summary: summary.entropy.last if summary.entropy else None),
        average=statistic(lambda _, summary: _tested(summary, "avg", end=True)),
        gain=statistic(_gain),
        widest=statistic(lambda _, summary: _tested(summary, "pass", end=True)),
        law=pooled_result(points) if points else None,
        seconds=statistic(lambda run, _: run.status.seconds),
        responses=statistic(lambda run, _: float(sum(row.reward.count for row in run.steps))),
    )


def _groups(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    groups: dict[str, list[Subject]] = {}
    for each in subjects:
        if each.summary is not None:
            groups.setdefault(visible(each.summary.method), []).append(each)
    return groups


def _folder(subject: Subject) -> tuple[Run, RunSummary]:
    assert subject.run is not None and subject.summary is not None
    return subject.run, subject.summary


def _task(subject: Subject) -> str:
    return json.dumps(_folder(subject)[0].header.config.get("task"), sort_keys=True)


def _tested(summary: RunSummary, kind: str, *, end: bool) -> float | None:
    """avg@k, or pass@k at the largest k, on the test problems."""
    found = [c for c in summary.accuracy if c.split == "test" and c.measure.startswith(kind)]
    estimate = (found[-1].end if end else found[-1].start) if found else None
    return None if estimate is None else estimate.value


def _gain(_: Run, summary: RunSummary) -> float | None:
    before, after = _tested(summary, "avg", end=False), _tested(summary, "avg", end=True)
    return None if before is None or after is None else after - before


def _row(summary: MethodSummary) -> list[str]:
    def shares(value: OverSeeds | None) -> str:
        return _told(value, lambda x: n.fixed(100 * x, 1), " %")

    return [
        summary.name,
        str(len(summary.seeds)),
        _told(summary.end_entropy, n.plain),
        shares(summary.average),
        _told(summary.gain, lambda x: n.signed(100 * x, 1), " points"),
        shares(summary.widest),
        n.MISSING if summary.law is None else short_ceiling(summary.law),
        n.MISSING if summary.seconds is None else n.minutes(summary.seconds.value),
        n.MISSING if summary.responses is None else f"{summary.responses.value:,.0f}".replace(",", " "),
    ]


def _told(value: OverSeeds | None, text: Callable[[float], str], unit: str = "") -> str:
    if value is None:
        return n.MISSING
    if value.low is None or value.high is None:
        return f"{text(value.value)}{unit}"
    return f"{text(value.value)}{unit} [{text(value.low)}, {text(value.high)}]"


def _entropy_of(subject: Subject) -> dict[int, float]:
    steps, values = course(subject).entropy
    return dict(zip(steps, running_mean(values), strict=True))


def _accuracy_of(subject: Subject) -> dict[int, float]:
    each = course(subject)
    return dict(zip(*(each.accuracy if each.accuracy[0] else each.reward), strict=True))


def _band_chart(
    groups: dict[str, list[Subject]], anchor: str, title: str, y_label: str, of: Callable[[Subject], dict[int, float]]
) -> Chart | None:
    """Curves of each method: their interquartile mean over the steps that all its runs have, in its band."""
    chart, parts = figure("rollout step"), []
    for name, group in groups.items():
        style, curves = group[0].style, [of(each) for each in group]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        if not steps:
            continue
        values = np.array([[curve[step] for step in steps] for curve in curves])
        middle, low, high = curve_over_seeds(values)
        label = group[0].label if len(group) == 1 else f"{name}, {len(group)} runs"
        if len(group) > 1:
            chart.add_traces(band(steps, low, high, label, style.color))
        chart.add_trace(line(steps, middle, label, style.color, width=2.4))
        parts.append((label, table(["step", "interquartile mean", "low", "high"], steps, middle, low, high)))
    if not parts:
        return None
    chart.update_yaxes(rangemode="tozero") if anchor == "entropy" else chart.update_yaxes(tickformat=".2~%")
    return Chart(
        anchor=f"methods-{anchor}",
        title=title,
        y_label=y_label,
        caption="Line: interquartile mean over the runs of a method. Band: 95 % bootstrap interval over seeds.",
        figure=chart,
        table=stacked(parts, "method"),
    )


def _law_chart(groups: dict[str, list[Subject]], found: Sequence[MethodSummary]) -> Chart | None:
    """The points of all runs, and one law a method."""
    chart, parts, notes = figure("policy entropy H, nats"), [], []
    for summary, group in zip(found, groups.values(), strict=True):
        law, color = summary.law, group[0].style.color
        if law is None:
            continue
        known = [(each, each.points) for each in group if each.points is not None]
        h = [value for _, points in known for value in points.entropy.tolist()]
        r = [value for each, points in known for value in (points.accuracy / each.scale).tolist()]
        chart.add_trace(dots(h, r, summary.name, color, symbol=group[0].style.symbol, size=5, opacity=0.55))
        if law.a is not None and law.b is not None:
            grid = np.linspace(0.0, 1.03 * max(h), _GRID)
            curve = law_accuracy(grid, law.a, law.b).tolist()
            chart.add_trace(line(grid.tolist(), curve, f"{summary.name}, law", color, width=2.2))
        notes.append(f"{summary.name}: ceiling {n.ceiling(law) if law.identified else 'not identified'}.")
        parts.append((summary.name, table(["entropy H", "accuracy R"], h, r)))
    if not parts:
        return None
    chart.update_xaxes(rangemode="tozero")
    chart.update_yaxes(tickformat=".2~%")
    return Chart(
        anchor="methods-law",
        title="The law of each method",
        y_label="accuracy R",
        caption="Points of all runs of a method together, and one law through them.",
        note=" ".join(notes),
        figure=chart,
        table=stacked(parts, "method"),
    )


def _cost_chart(groups: dict[str, list[Subject]], found: Sequence[MethodSummary]) -> Chart | None:
    """Gain in accuracy beside its cost in responses."""
    known = [summary for summary in found if summary.gain is not None and summary.responses is not None]
    if not known:
        return None
    chart, rows = figure("training responses of a run"), []
    for summary, group in zip(found, groups.values(), strict=True):
        gain, cost, style = summary.gain, summary.responses, group[0].style
        if gain is None or cost is None:
            continue
        trace = dots([cost.value], [gain.value], summary.name, style.color, symbol=style.symbol, size=11)
        if gain.low is not None and gain.high is not None:
            ends = {"array": [gain.high - gain.value], "arrayminus": [gain.value - gain.low]}
            trace.update(error_y={"type": "data", "symmetric": False, "thickness": 1.5, "width": 5} | ends)
        chart.add_trace(trace)
        seconds = None if summary.seconds is None else summary.seconds.value
        rows.append([summary.name, gain.value, gain.low, gain.high, cost.value, seconds])
    chart.update_yaxes(tickformat="+.1%")
    chart.update_xaxes(rangemode="tozero")
    return Chart(
        anchor="methods-cost",
        title="Gain beside cost",
        y_label="gain in avg@k on the test problems",
        caption="Higher is better, further left is cheaper. Wall time, in the table, depends on the machine.",
        figure=chart,
        table=table(["method", "gain", "low", "high", "responses", "wall time, s"], *zip(*rows, strict=True)),
    )
