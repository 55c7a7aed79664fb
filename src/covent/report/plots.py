"""Entropy and accuracy of all runs together: over their steps, and before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from covent.logs.run_folder import END_STEPS, accuracy_name, entropies
from covent.report.accuracy import accuracy_changes
from covent.report.chart import (
    FAINT,
    MUTED,
    OKABE_ITO,
    Cell,
    Chart,
    Style,
    Table,
    dots,
    figure,
    line,
    share_axis,
    stacked,
    table,
)
from covent.report.subject import Subject
from covent.store.reader import Run
from covent.store.schema import Estimate


@dataclass(frozen=True)
class Course:
    """What one run, or one log, says of entropy and accuracy over its steps; accuracies are fractions."""

    style: Style
    entropy: tuple[list[int], list[float]]
    reward: tuple[list[int], list[float]]
    """Training reward; empty where it was not logged."""
    accuracy: tuple[list[int], list[float]]
    """What the law takes for R where that is no training reward."""
    name: str
    """Of the accuracy."""


def course(subject: Subject) -> Course:
    """The curves of a subject."""
    run, points = subject.run, subject.points
    if run is None:
        assert points is not None
        values = (points.accuracy / subject.scale).tolist()
        curves = points.entropy_steps.tolist(), points.entropies.tolist()
        return Course(subject.style, curves, ([], []), (points.step.tolist(), values), points.accuracy_metric)
    known = [(row.step, row.reward.value) for row in run.steps if row.reward.value is not None]
    rows = sorted((row for row in run.evaluations if row.split == "validation"), key=lambda row: row.step)
    return Course(
        subject.style,
        entropies(run),
        ([step for step, _ in known], [value for _, value in known]),
        ([row.step for row in rows], [row.avg.value for row in rows]),
        accuracy_name(run),
    )


def entropy_chart(subjects: Sequence[Subject]) -> Chart | None:
    """Policy entropy against rollout step: single steps faint, their running mean strong."""
    chart, parts = figure("rollout step"), []
    for each in map(course, subjects):
        style, (steps, values) = each.style, each.entropy
        if not values:
            continue
        smooth = running_mean(values)
        if len(subjects) <= len(OKABE_ITO):
            thin = line(steps, values, style.label, style.color, width=1, opacity=0.35, in_legend=False, run=style.run)
            chart.add_trace(thin)
        chart.add_trace(line(steps, smooth, style.label, style.color, dash=style.dash, width=2.4, run=style.run))
        parts.append(
            (
                style.label,
                table(["step", "entropy, nats", f"entropy, {END_STEPS}-step mean, nats"], steps, values, smooth),
            )
        )
    if not parts:
        return None
    chart.update_yaxes(rangemode="tozero")
    return Chart(
        anchor="entropy",
        title="Policy entropy",
        y_label="nats",
        caption=f"Thin: each rollout step. Strong: the mean of the {END_STEPS} steps up to it. A line near 0 is a"
        " policy that samples one answer again and again. The logarithmic axis shows whether it still falls.",
        figure=chart,
        table=stacked(parts),
        log_switch=True,
        links="x",
    )


def accuracy_chart(subjects: Sequence[Subject]) -> Chart | None:
    """Validation accuracy against step, with the training reward behind it."""
    chart, parts, ends = figure("rollout step"), [], []
    courses = [course(subject) for subject in subjects]
    tested = any(each.accuracy[0] for each in courses)
    measures = {each.name for each in courses if each.accuracy[0]}
    measure = measures.pop() if len(measures) == 1 else "accuracy"
    for each in courses:
        style, (at, values), (steps, rewards) = each.style, each.accuracy, each.reward
        smooth = dict(zip(steps, running_mean(rewards), strict=True))
        if steps:
            name = f"{style.label}, training"
            look = {"width": 1.2, "opacity": 0.45} if tested else {"dash": style.dash}
            chart.add_trace(line(steps, list(smooth.values()), name, style.color, run=style.run, **look))
        if at:
            trace = line(at, values, f"{style.label}, {each.name}", style.color, dash=style.dash, run=style.run)
            trace.update(mode="lines+markers", marker={"color": style.color, "symbol": style.symbol, "size": 5})
            chart.add_trace(trace)
        both = sorted({*steps, *at})
        known = dict(zip(at, values, strict=True))
        columns = ["step", f"training reward, {END_STEPS}-step mean", *([measure] if tested else [])]
        cells = [[smooth.get(s) for s in both], *([[known.get(s) for s in both]] if tested else [])]
        parts.append((style.label, table(columns, both, *cells)))
        ends += both[-1:]
    if not ends:
        return None
    share_axis(chart, [cell for _, part in parts for row in part.rows for cell in row[1:]])
    # Markers at step 0 would make the axis begin below it.
    chart.update_xaxes(range=[-0.01 * max(ends) - 0.5, max(ends) + 0.01 * max(ends) + 0.5])
    return Chart(
        anchor="accuracy",
        title="Accuracy" if tested else "Training reward",
        y_label="share right" if tested else "mean reward",
        caption="Strong, with markers: accuracy on problems that no training prompt repeats, or what the log calls so."
        f" Faint: the training reward, mean of the {END_STEPS} steps up to it."
        if tested
        else f"The mean of the {END_STEPS} steps up to each one. No accuracy on other problems was recorded.",
        figure=chart,
        table=stacked(parts),
        links="x",
    )


COLUMNS = [
    "measure",
    *(f"{end}{part}" for end in ("start", "end", "paired difference") for part in ("", " low", " high")),
]
"""Of the table under `pass_chart`."""


def pass_chart(runs: Sequence[Run], styles: Sequence[Style]) -> Chart | None:
    """Every accuracy on the test problems before and after, with intervals."""
    chart, parts = figure(""), []
    changes = [[change for change in accuracy_changes(run) if change.split == "test"] for run in runs]
    if not any(change.end for found in changes for change in found):
        return None
    names = list(dict.fromkeys(change.measure for found in changes for change in found))
    if not names:
        return None
    starting_points = {run.header.start_model for run in runs}
    shared = len(starting_points) == 1 and None not in starting_points
    width = 0.7 / (len(runs) + 1)
    for place, (found, style) in enumerate(zip(changes, styles, strict=True)):
        by_name = {change.measure: change for change in found}
        kept = [name for name in names if name in by_name]
        starts = [(names.index(name), start) for name in kept if (start := by_name[name].start) is not None]
        if starts and (place == 0 or not shared):
            label = "start" if shared else f"{style.label}, start"
            x = [at - 0.35 + width / 2 for at, _ in starts]
            chart.add_trace(_interval_dots(x, [value for _, value in starts], label, MUTED, f"{style.symbol}-open"))
        ends = [(names.index(name), end) for name in kept if (end := by_name[name].end) is not None]
        x = [at - 0.35 + width * (place + 1.5) for at, _ in ends]
        chart.add_trace(_interval_dots(x, [end for _, end in ends], style.label, style.color, style.symbol))
        rows: list[list[Cell]] = [
            [
                name,
                *_ends(by_name[name].start),
                *_ends(by_name[name].end),
                *(() if (paired := by_name[name].difference) is None else (paired.value, paired.low, paired.high)),
            ]
            for name in kept
        ]
        parts.append((style.label, Table(COLUMNS, [row + [None] * (len(COLUMNS) - len(row)) for row in rows])))
    chart.update_xaxes(tickvals=list(range(len(names))), ticktext=names, range=[-0.5, len(names) - 0.5])
    # On a phone the names do not fit side by side; slanted upwards, the last one stays inside the plot.
    chart.update_xaxes(autotickangles=[0, -45, -90])
    chart.update_yaxes(tickformat=".2~%")
    for edge in range(1, len(names)):
        chart.add_vline(x=edge - 0.5, line={"color": FAINT, "width": 1})
    return Chart(
        anchor="pass",
        title="Before and after",
        y_label="share right, with 95 % intervals over problems",
        caption="avg@k: how often a sample is right. pass@k: how often one of k samples is. Where avg@k rises and"
        " pass@k falls, the policy got surer but reaches less. Bars that overlap are compared better by the paired"
        " column.",
        figure=chart,
        table=stacked(parts),
    )


def _ends(value: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (None, None, None) if value is None else (value.value, value.low, value.high)


def running_mean(values: Sequence[float], window: int = END_STEPS) -> list[float]:
    """The mean of the last `window` values up to each one; of fewer at the start."""
    return [float(np.mean(values[max(0, i + 1 - window) : i + 1])) for i in range(len(values))]


def _interval_dots(x: Sequence[float], values: Sequence[Estimate], name: str, color: str, symbol: str) -> go.Scatter:
    trace = dots(x, [value.value for value in values], name, color, symbol=symbol, size=9, hover="%{y:.1%}")
    trace.update(
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [value.high - value.value for value in values],
            "arrayminus": [value.value - value.low for value in values],
            "color": color,
            "thickness": 1.5,
            "width": 3,
        }
    )
    return trace
