"""Methods over seeds: what each buys and what it costs, with seeds as bands and one law a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.law import accuracy as law_accuracy
from covent.law.series import counted
from covent.logs.results import FitResult, pooled_result
from covent.logs.run_folder import END_STEPS, TRAINING_REWARD
from covent.report import numbers as n
from covent.report.accuracy import AccuracyChange
from covent.report.chart import Chart, Style, band, dots, figure, line, share_axis, stacked, table
from covent.report.experiments import SAME, made_otherwise, repetitions, unlike
from covent.report.plots import course, running_mean
from covent.report.seeds import FEW, FEWEST, OverSeeds, curve_over_seeds, interquartile_mean, over_seeds
from covent.report.subject import Subject
from covent.report.summary import RunSummary
from covent.report.tables import ceiling_marks, short_ceiling
from covent.report.words import MOST_SETTINGS
from covent.store.reader import Run

_GRID = 60


class MethodSummary(BaseModel):
    """One method over its runs. Accuracies are of the last test; None where it was not made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    num_runs: int
    end_entropy: OverSeeds | None
    """Mean of the last rollout steps, nats."""
    average: OverSeeds | None
    """avg@k."""
    gain: OverSeeds | None
    """avg@k at the end minus that of the start."""
    widest: OverSeeds | None
    """pass@k at the largest k."""
    law: FitResult | None
    """Of the points of its runs together; of a single run its own."""
    num_pooled: int
    """Runs whose points they are."""
    seconds: OverSeeds | None
    """Wall time of a run."""
    responses: OverSeeds | None
    """Training responses that a run sampled."""

    @property
    def sizes(self) -> set[int]:
        """Runs that its statistics with an interval are of."""
        return {value.num_runs for value in (self.end_entropy, self.average, self.gain, self.widest) if value}


@dataclass(frozen=True)
class Methods:
    """What the page shows of them."""

    headline: str
    intro: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    charts: list[Chart]


@dataclass(frozen=True)
class Repeated:
    """The runs of one experiment that count: other seeds, all else equal."""

    name: str
    members: list[Subject]
    left_out: list[str]
    """Runs that do not count, and why."""
    copies: list[Subject]
    """Those of them that another run is over again."""

    @property
    def style(self) -> Style:
        return self.members[0].style


def methods(subjects: Sequence[Subject]) -> Methods | None:
    """Methods of which at least one has several runs; None where there is none."""
    every = repeated(subjects)
    groups = [group for group in every if group.members]
    if not any(len(group.members) > 1 for group in groups):
        return None
    found = [method_summary(group.name, group.members) for group in groups]
    counts = sorted({len(group.members) for group in groups})
    sizes = sorted({*counts, *(size for each in found for size in each.sizes)})
    lead = f" Only {counted(counts[0], 'run')} of a method: leads, not results." if counts[0] < FEW else ""
    told = [f"{each.name} over {counted(each.num_runs, 'run')} {_ends(each)}" for each in found]
    charts = [
        _band_chart(groups, "entropy", "Policy entropy over seeds", "nats", _entropy_of),
        _accuracy_chart(groups),
        _law_chart(groups, found),
        _cost_chart(groups, found),
    ]
    return Methods(
        headline=f"{'; '.join(told[:MOST_TOLD])}.{lead}",
        intro="Runs that differ in nothing but the seed, together. Interquartile mean over them, the mean where there"
        f" are fewer than four{_interval(sizes)}.{_doubt(sizes)}",
        columns=_columns(groups),
        rows=[_row(summary) for summary in found],
        notes=[
            f"entropy: at the end, mean of the last {END_STEPS} steps, nats",
            "avg@k, gain, pass@k: test problems at the end, gain against the start",
            "ceiling: one law through the points of all runs of the method; of a single run, its own",
            "time, responses: wall time and training responses of a run",
            *ceiling_marks([summary.law for summary in found if summary.law is not None]),
            *_differences(groups),
            *(sentence for group in groups for sentence in _not_pooled(group)),
            *(
                note
                for group in groups
                for note in made_otherwise(group.name, [_folder(each)[0] for each in group.members])
            ),
            *(f"left out: {sentence}" for group in every for sentence in group.left_out),
        ],
        charts=[chart for chart in charts if chart is not None],
    )


def repeated(subjects: Sequence[Subject]) -> list[Repeated]:
    """The run folders of a page by experiment."""
    by_name: dict[str, list[Subject]] = {}
    for each in subjects:
        if each.run is not None:
            by_name.setdefault(each.experiment, []).append(each)
    found = []
    for name, members in by_name.items():
        kept, others = repetitions([_folder(each)[0] for each in members])
        told = [f"{members[place].label} {why}" for place, why in others.items()]
        copies = [members[place] for place, why in others.items() if why == SAME]
        # A run by itself has one name, in the table as in the legends.
        called = members[kept[0]].label if len(kept) == 1 else name
        found.append(Repeated(called, [members[place] for place in kept], told, copies))
    return found


def _interval(counts: Sequence[int]) -> str:
    return ", with the 95 % interval of a bootstrap over seeds" if counts[-1] >= FEWEST else ""


def _doubt(counts: Sequence[int]) -> str:
    """What the numbers of runs forbid to conclude.

    Args:
        counts: of runs in a method or in one of its numbers, increasing.
    """
    text = ""
    if counts[0] < FEWEST:
        text += f" Fewer than {FEWEST} runs are too few seeds for an interval: their own values stand in brackets."
    if any(FEWEST <= count < FEW for count in counts):
        few = next(count for count in counts if count >= FEWEST)
        text += f" With {few} runs such an interval is too narrow: take it as a lower bound of the doubt."
    return text


def _differences(groups: Sequence[Repeated]) -> list[str]:
    """Settings besides the control in which the methods of the page differ, so that their rows are not comparable."""
    runs = [_folder(group.members[0])[0] for group in groups]
    paths = list(dict.fromkeys(path for run in runs[1:] for path in unlike(runs[0], run)))
    if not paths:
        return []
    more = f" and {len(paths) - MOST_SETTINGS} more" if len(paths) > MOST_SETTINGS else ""
    return [f"not the control alone: the methods also differ in {', '.join(paths[:MOST_SETTINGS])}{more}"]


def _columns(groups: Sequence[Repeated]) -> list[str]:
    """With the number of samples in place of k where all runs have the same."""
    summaries = [_folder(each)[1] for group in groups for each in group.members]

    def measure(kind: str) -> str:
        found = {change.measure for summary in summaries if (change := _test(summary, kind)) is not None}
        return found.pop() if len(found) == 1 else f"{kind}@k"

    return [measure(name.removesuffix("@k")) if name.endswith("@k") else name for name in COLUMNS]


MOST_TOLD = 4
"""Methods of which the head of the page speaks; more are better read in the table."""

COLUMNS = ["method", "runs", "entropy", "avg@k", "gain", "pass@k", "ceiling", "time", "responses"]


def _ends(summary: MethodSummary) -> str:
    """Where a method ends, for the head of the page."""
    accuracy, runs = summary.average or summary.widest, summary.num_runs
    name = "avg@k" if summary.average else "pass@k"
    tested = "" if accuracy is None else f" and {name} {_told(accuracy, runs, lambda x: n.fixed(100 * x, 1), ' %')}"
    return f"ends with entropy {_told(summary.end_entropy, runs, n.plain, ' nats')}{tested}"


def method_summary(name: str, group: Sequence[Subject]) -> MethodSummary:
    """One method over its runs."""

    def statistic(of: Callable[[Run, RunSummary], float | None]) -> OverSeeds | None:
        values = [of(*_folder(each)) for each in group]
        return over_seeds([[value for value in values if value is not None]])

    fitted = pooled(group)
    points = [each.points for each in fitted if each.points is not None]
    return MethodSummary(
        name=name,
        num_runs=len(group),
        end_entropy=statistic(lambda _, summary: summary.entropy.last if summary.entropy else None),
        average=statistic(lambda _, summary: _tested(summary, "avg", end=True)),
        gain=statistic(_gain),
        widest=statistic(lambda _, summary: _tested(summary, "pass", end=True)),
        law=fitted[0].fit if len(fitted) == 1 else pooled_result(points, compared=True) if fitted else None,
        num_pooled=len(fitted),
        seconds=statistic(lambda run, _: None if run.status.is_lost else run.status.seconds),
        responses=statistic(lambda run, _: float(sum(row.reward.count for row in run.steps))),
    )


def pooled(group: Sequence[Subject]) -> list[Subject]:
    """The runs whose points make one law: those of one accuracy, the validation's where any has it."""
    known = [(each, each.points.accuracy_metric) for each in group if each.points is not None]
    measures = [measure for _, measure in known]
    chosen = max(measures, key=lambda each: (each != TRAINING_REWARD, measures.count(each)), default=None)
    return [each for each, measure in known if measure == chosen]


def _not_pooled(group: Repeated) -> list[str]:
    """Runs that count and have no part in the law of their method, and why."""
    kept = pooled(group.members)
    if not kept or kept[0].points is None:
        return []
    wanted = kept[0].points.accuracy_metric
    told = []
    for each in group.members:
        if each not in kept:
            has = "no point of the law" if each.points is None else f"{each.points.accuracy_metric} alone"
            told.append(f"not in the law of {group.name}, which is of {wanted}: {each.label} has {has}")
    return told


def _folder(subject: Subject) -> tuple[Run, RunSummary]:
    assert subject.run is not None and subject.summary is not None
    return subject.run, subject.summary


def _test(summary: RunSummary, kind: str) -> AccuracyChange | None:
    """avg@k, or pass@k at the largest k, on the test problems."""
    found = [c for c in summary.accuracy if c.split == "test" and c.measure.startswith(kind)]
    return found[-1] if found else None


def _tested(summary: RunSummary, kind: str, *, end: bool) -> float | None:
    change = _test(summary, kind)
    estimate = None if change is None else change.end if end else change.start
    return None if estimate is None else estimate.value


def _gain(_: Run, summary: RunSummary) -> float | None:
    before, after = _tested(summary, "avg", end=False), _tested(summary, "avg", end=True)
    return None if before is None or after is None else after - before


def _row(summary: MethodSummary) -> list[str]:
    """The cells of a method; each line of a cell is a line on the page."""

    def cell(value: OverSeeds | None, text: Callable[[float], str], unit: str = "") -> str:
        return _told(value, summary.num_runs, text, unit, between="\n")

    def shares(value: OverSeeds | None) -> str:
        return cell(value, lambda x: n.fixed(100 * x, 1), " %")

    def mean(value: OverSeeds | None, text: Callable[[float], str]) -> str:
        return n.MISSING if value is None else "\n".join([text(value.value), *_part(value.num_runs, summary.num_runs)])

    ceiling = "" if summary.law is None else short_ceiling(summary.law)
    return [
        summary.name,
        str(summary.num_runs),
        cell(summary.end_entropy, n.plain),
        shares(summary.average),
        cell(summary.gain, lambda x: n.signed(100 * x, 1), " points"),
        shares(summary.widest),
        "\n".join([ceiling, *_part(summary.num_pooled, summary.num_runs)]) if ceiling else n.MISSING,
        mean(summary.seconds, n.minutes),
        mean(summary.responses, lambda x: f"{x:,.0f}".replace(",", " ")),
    ]


def _told(
    value: OverSeeds | None, num_runs: int, text: Callable[[float], str], unit: str = "", between: str = " "
) -> str:
    """The statistic with its interval; of two runs their own values in its place.

    Args:
        value: of those runs of the method that have it.
        num_runs: of the method.
        text: writes a number.
        unit: after the statistic.
        between: its parts.
    """
    if value is None:
        return n.MISSING
    told = [f"{text(value.value)}{unit}"]
    if value.low is not None and value.high is not None:
        told.append(f"[{text(value.low)}, {text(value.high)}]")
    elif value.num_runs > 1:
        told.append(f"({', '.join(map(text, sorted(value.values)))})")
    return between.join([*told, *_part(value.num_runs, num_runs)])


def _part(num: int, num_runs: int) -> list[str]:
    """Of how many of a method's runs a number is, where not of all."""
    return [] if num == num_runs else [f"({num} of {num_runs} runs)"]


def _entropy_of(subject: Subject) -> dict[int, float]:
    steps, values = course(subject).entropy
    return dict(zip(steps, running_mean(values), strict=True))


def _accuracy_chart(groups: Sequence[Repeated]) -> Chart | None:
    """Validation accuracy; the training reward where no method has all of that."""
    rewarded = [any(not course(each).accuracy[0] for each in group.members) for group in groups]
    if all(rewarded):
        return _band_chart(groups, "accuracy", "Training reward over seeds", "training reward", _reward_of)
    kept = [group for group, by_reward in zip(groups, rewarded, strict=True) if not by_reward]
    missing = [group.name for group, by_reward in zip(groups, rewarded, strict=True) if by_reward]
    names = {course(each).name for group in kept for each in group.members}
    label = names.pop() if len(names) == 1 else "validation avg@k"
    chart = _band_chart(kept, "accuracy", "Accuracy over seeds", label, _accuracy_of)
    if chart is None or not missing:
        return chart
    return replace(chart, note=f"Not here, for want of validation: {', '.join(missing)}.")


def _accuracy_of(subject: Subject) -> dict[int, float]:
    return dict(zip(*course(subject).accuracy, strict=True))


def _reward_of(subject: Subject) -> dict[int, float]:
    steps, values = course(subject).reward
    return dict(zip(steps, running_mean(values), strict=True))


def _band_chart(
    groups: Sequence[Repeated], anchor: str, title: str, y_label: str, of: Callable[[Subject], dict[int, float]]
) -> Chart | None:
    """Curves of each method: their interquartile mean over the steps that all its runs have, in its band."""
    chart, parts, shown = figure("rollout step"), [], []
    for group in groups:
        style, curves = group.style, [of(each) for each in group.members]
        steps = sorted(set.intersection(*(set(curve) for curve in curves)))
        if not steps:
            continue
        values = np.array([[curve[step] for step in steps] for curve in curves])
        label = style.label if len(curves) == 1 else f"{group.name}, {len(curves)} runs"
        ends: list[list[float]] | list[list[None]]
        if len(curves) >= FEWEST:
            middle, low, high = curve_over_seeds(values)
            chart.add_traces(band(steps, low, high, label, style.color))
            ends = [low, high]
        else:
            middle, ends = interquartile_mean(values, axis=0).tolist(), [[None] * len(steps)] * 2
            for curve in values.tolist() if len(curves) > 1 else ():
                chart.add_trace(line(steps, curve, label, style.color, width=1, opacity=0.5, in_legend=False))
        chart.add_trace(line(steps, middle, label, style.color, width=2.4))
        parts.append((label, table(["step", "interquartile mean", "95 % low", "95 % high"], steps, middle, *ends)))
        shown += values.ravel().tolist()
    if not parts:
        return None
    if anchor == "entropy":
        chart.update_yaxes(rangemode="tozero")
    else:
        share_axis(chart, shown)
    return Chart(
        anchor=f"methods-{anchor}",
        title=title,
        y_label=y_label,
        caption=_band_caption(groups),
        figure=chart,
        table=stacked(parts, "method"),
    )


def _band_caption(groups: Sequence[Repeated]) -> str:
    sizes = {len(group.members) for group in groups}
    text = "Strong line: interquartile mean over the runs of a method, the mean where there are fewer than four."
    if max(sizes) >= FEWEST:
        text += " Band: 95 % bootstrap interval over seeds."
    if 2 in sizes:
        text += " Thin: the two runs of a method that has no more; they are too few seeds for an interval."
    return text


def _law_chart(groups: Sequence[Repeated], found: Sequence[MethodSummary]) -> Chart | None:
    """The points of all runs, and one law a method."""
    chart, parts, notes = figure("policy entropy H, nats"), [], []
    measures: set[str] = set()
    for summary, group in zip(found, groups, strict=True):
        law, color = summary.law, group.style.color
        if law is None:
            continue
        known = [(each, each.points) for each in pooled(group.members) if each.points is not None]
        h = [value for _, points in known for value in points.entropy.tolist()]
        r = [value for each, points in known for value in (points.accuracy / each.scale).tolist()]
        chart.add_trace(dots(h, r, summary.name, color, symbol=group.style.symbol, size=5, opacity=0.55))
        if law.a is not None and law.b is not None:
            grid = np.linspace(0.0, 1.03 * max(h), _GRID)
            curve = law_accuracy(grid, law.a, law.b).tolist()
            chart.add_trace(line(grid.tolist(), curve, f"{summary.name}, law", color, width=2.2))
        measures |= {points.accuracy_metric for _, points in known}
        marks = "; another curve fits clearly better, so do not rely on it" if law.identified and law.is_beaten else ""
        notes.append(f"{summary.name}: ceiling {n.ceiling(law) if law.identified else 'not identified'}{marks}.")
        parts.append((summary.name, table(["entropy H, nats", "R"], h, r)))
    if not parts:
        return None
    chart.update_xaxes(rangemode="tozero")
    share_axis(chart, [row[1] for _, part in parts for row in part.rows])
    return Chart(
        anchor="methods-law",
        title="The law of each method",
        y_label=f"R: {', '.join(sorted(measures))}",
        caption="Points of all runs of a method together, and one law through them; whether another curve fits better"
        " is asked of the same points.",
        note=" ".join(notes),
        figure=chart,
        table=stacked(parts, "method"),
    )


def _cost_chart(groups: Sequence[Repeated], found: Sequence[MethodSummary]) -> Chart | None:
    """Gain in accuracy beside its cost in responses."""
    known = [summary for summary in found if summary.gain is not None and summary.responses is not None]
    if not known:
        return None
    chart, rows = figure("training responses of a run"), []
    notes: list[str] = []
    for summary, group in zip(found, groups, strict=True):
        gain, cost, style = summary.gain, summary.responses, group.style
        if gain is None or cost is None:
            continue
        if _part(gain.num_runs, summary.num_runs):
            notes.append(f"{summary.name}: the gain of {gain.num_runs} of {summary.num_runs} runs.")
        trace = dots([cost.value], [gain.value], summary.name, style.color, symbol=style.symbol, size=11)
        if gain.low is not None and gain.high is not None:
            ends = {"array": [gain.high - gain.value], "arrayminus": [gain.value - gain.low]}
            trace.update(error_y={"type": "data", "symmetric": False, "thickness": 1.5, "width": 5} | ends)
        elif gain.num_runs > 1:
            few = dots([cost.value] * 2, gain.values, summary.name, style.color, symbol=style.symbol, size=6)
            chart.add_trace(few.update(showlegend=False, opacity=0.5))
        chart.add_trace(trace)
        seconds = None if summary.seconds is None else summary.seconds.value
        rows.append([summary.name, gain.value, gain.low, gain.high, cost.value, seconds])
    chart.update_yaxes(tickformat="+.1%")
    chart.update_xaxes(rangemode="tozero")
    return Chart(
        anchor="methods-cost",
        title="Gain beside cost",
        y_label="gain in avg@k on the test problems",
        caption="Higher is better, further left is cheaper. Bars: 95 % bootstrap intervals over seeds; small: the two"
        " runs of a method that has no more. Wall time, in the table, depends on the machine.",
        note=" ".join(notes),
        figure=chart,
        table=table(["method", "gain", "95 % low", "95 % high", "responses", "wall time, s"], *zip(*rows, strict=True)),
    )
