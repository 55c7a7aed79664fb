"""The law of one run, and what its first part said about the rest, for every first part that the slider offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from covent.law import Forecast, fit_line
from covent.law import accuracy as law_accuracy
from covent.law.bands import AccuracyBands
from covent.law.series import checked_points, counted
from covent.logs.ahead import forecast_of_rest
from covent.logs.results import MOST_DOUBTED, FitResult
from covent.report import numbers as n
from covent.report.chart import INK, MUTED, OKABE_ITO, Chart, band, dots, figure, line, table
from covent.report.subject import Subject
from covent.report.words import forecast_text

FRACTIONS = tuple(round(0.1 * place, 1) for place in range(1, 10))
"""First parts of a run that the slider offers; each takes a fit of its own."""

SHOWN_FIRST = 0.3
"""Where the slider stands when the page opens."""

PREFIX_COLOR = OKABE_ITO[4]

_GRID = 60


@dataclass(frozen=True)
class Prefix:
    """What one first part of a run says."""

    fraction: float
    forecast: Forecast
    text: str
    error: str
    """Of the forecast at the end, in points."""


def prefixes(subject: Subject) -> list[Prefix]:
    """What each first part of a run says; nothing for a run without a law, or with too many points to fit so often."""
    points = subject.points
    if points is None or subject.fit is None or subject.fit.a is None or len(points) > MOST_DOUBTED:
        return []
    found = []
    for fraction in FRACTIONS:
        ahead = forecast_of_rest(points, fraction)
        if ahead.num_prefix >= 3 and ahead.later_steps:
            error = ahead.unconditional.end_error
            told = n.MISSING if error is None else n.points(error / subject.scale)
            found.append(Prefix(fraction, ahead, forecast_text(ahead, subject.scale), told))
    return found


def law_chart(subject: Subject, parts: Sequence[Prefix]) -> Chart | None:
    """Accuracy against entropy with the fitted law, its band, its ceiling and its rival, for one run."""
    fitted, points = subject.fit, subject.points
    if points is None or fitted is None or fitted.a is None or fitted.b is None or fitted.ceiling is None:
        return None
    scale, style = subject.scale, subject.style
    entropy, accuracy = points.entropy, points.accuracy / scale
    rival = fit_line(entropy, accuracy, unit="fraction")
    grid = _grid(subject)
    x = grid.tolist()
    chart = figure("policy entropy H, nats")
    low, high = _band(subject, grid)
    if low:
        chart.add_traces(band(x, low, high, "law", "#777777"))
    if rival.intercept is not None and rival.slope is not None:
        y = (rival.intercept + rival.slope * grid).tolist()
        chart.add_trace(line(x, y, "line in H", MUTED, dash="dot", width=1.8))
    chart.add_trace(line(x, (law_accuracy(grid, fitted.a, fitted.b) / scale).tolist(), "law", INK, width=2.2))
    if fitted.identified:
        chart.add_trace(_ceiling(fitted, scale))
    if parts:
        chart.add_trace(slotted(line([], [], "law of the first part", PREFIX_COLOR, dash="dash"), "prefix-law"))
        ring = dots([], [], "used by it", PREFIX_COLOR, symbol="circle-open", size=11)
        chart.add_trace(slotted(ring, "prefix-points"))
    hover = "step %{customdata}<br>H %{x:.4f}<br>R %{y:.3f}<extra></extra>"
    at, h, r = points.step.tolist(), entropy.tolist(), accuracy.tolist()
    chart.add_trace(dots(h, r, "points", style.color, symbol=style.symbol, hover=hover, data=at))
    chart.update_yaxes(tickformat=".2~%")
    chart.update_xaxes(rangemode="tozero")
    over = f" of {points.window_steps:g} steps" if points.window_steps > 1 else ""
    return Chart(
        anchor="law",
        title=style.label,
        y_label=f"R: {points.accuracy_metric}",
        caption="Time runs to the left. Each point is one accuracy against the mean entropy of the steps around it;"
        " such averaging raises R² by itself. Grey: 95 % band of the curve. Bar at H = 0: 95 % interval of the"
        " ceiling.",
        note=f"{_ceiling_note(fitted)} R² {n.fixed(fitted.r2, 3)} for the law,"
        f" {n.fixed(rival.r2, 3)} for the straight line, over {counted(fitted.n, 'point')}{over}.",
        figure=chart,
        table=table(["known at step", "entropy H, nats", f"R, {points.accuracy_metric}"], at, h, r),
        about="points of the law",
        links="data",
    )


def forecast_chart(subject: Subject, parts: Sequence[Prefix]) -> Chart | None:
    """What the chosen first part of a run said about the rest, against what happened."""
    if subject.points is None or not parts:
        return None
    points, style = subject.points, subject.style
    steps, observed = points.step.tolist(), (points.accuracy / subject.scale).tolist()
    chart = figure("rollout step")
    low, high = band([], [], [], "forecast", PREFIX_COLOR)
    chart.add_traces([slotted(low, "forecast-low"), slotted(high, "forecast-high")])
    chart.add_trace(slotted(line([], [], "cut", MUTED, dash="dot", width=1.4), "cut"))
    chart.add_trace(slotted(line([], [], "forecast", PREFIX_COLOR, width=2.4), "forecast"))
    chart.add_trace(slotted(line([], [], "told the later H", OKABE_ITO[5], dash="dot"), "told"))
    chart.add_trace(dots(steps, observed, "observed", style.color, symbol=style.symbol, size=6))
    chart.update_yaxes(tickformat=".2~%")
    told = [[n.percent(p.fraction, 0), p.forecast.unconditional.end_error, p.forecast.ceiling] for p in parts]
    scaled = [[None if value is None else value / subject.scale for value in column] for column in _columns(parts)]
    return Chart(
        anchor="forecast",
        title=style.label,
        y_label=points.accuracy_metric,
        caption="Solid: the forecast proper with its 95 % band; entropy is extrapolated and put into the law, nothing"
        " after the vertical line is used. Dotted: the law told the entropy that was observed later, which tests the"
        " law but forecasts nothing. The table holds every position of the slider.",
        figure=chart,
        table=table(
            ["first part", "forecast − observed", "told the later H − observed", "no change − observed", "ceiling"],
            [row[0] for row in told],
            *scaled,
        ),
        about="what each first part foretold of the end, and how far off it was; fractions",
        links="x",
    )


def slider_data(subject: Subject, parts: Sequence[Prefix]) -> dict[str, object]:
    """What the page needs to move the slider of one run: for each position the data of every slot, and the words."""
    assert subject.points is not None
    grid, scale = _grid(subject), subject.scale
    first = int(min(subject.points.step[0], subject.points.entropy_steps[0]))
    positions = []
    for part in parts:
        ahead, used = part.forecast, part.forecast.num_prefix
        curve = None
        if ahead.law.a is not None and ahead.law.b is not None:
            curve = (law_accuracy(grid, ahead.law.a, ahead.law.b) / scale).tolist()
        later = [step + first for step in ahead.later_steps]
        ahead_of, told = ahead.unconditional, ahead.conditional
        positions.append(
            {
                "percent": round(100 * part.fraction),
                "text": part.text,
                "error": part.error,
                "slots": {
                    "prefix-law": _xy(grid.tolist(), curve, 1.0),
                    "prefix-points": _xy(subject.points.entropy[:used].tolist(), subject.points.accuracy[:used], scale),
                    "forecast": _xy(later, ahead_of.accuracy, scale),
                    "forecast-low": _xy(later, ahead_of.low, scale),
                    "forecast-high": _xy(later, ahead_of.high, scale),
                    "told": _xy(later, told.accuracy, scale),
                    "cut": _xy([ahead.cut + first] * 2, [subject.points.accuracy.min(), max(ahead.observed)], scale),
                },
            }
        )
    start = min(range(len(parts)), key=lambda place: abs(parts[place].fraction - SHOWN_FIRST))
    return {"start": start, "positions": positions}


def slotted(trace: go.Scatter, slot: str) -> go.Scatter:
    """A trace whose data the slider puts in."""
    return trace.update(meta={"slot": slot})


def _xy(x: Sequence[float], y: Sequence[float] | NDArray[np.float64] | None, scale: float) -> dict[str, list[float]]:
    if y is None:
        return {"x": [], "y": []}
    return {"x": list(x), "y": [float(value) / scale for value in y]}


def _columns(parts: Sequence[Prefix]) -> list[list[float | None]]:
    return [
        [part.forecast.unconditional.end_error for part in parts],
        [part.forecast.conditional.end_error for part in parts],
        [part.forecast.unchanged.end_error for part in parts],
        [part.forecast.ceiling for part in parts],
    ]


def _grid(subject: Subject) -> NDArray[np.float64]:
    assert subject.points is not None
    return np.linspace(0.0, float(subject.points.entropy.max()) * 1.03, _GRID)


def _band(subject: Subject, grid: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    """95 % band of the law itself; empty where it cannot be drawn."""
    assert subject.points is not None
    found = checked_points(
        subject.points.entropy, subject.points.accuracy, subject.points.unit, subject.points.step.astype(np.float64)
    )
    if len(subject.points) > MOST_DOUBTED or not AccuracyBands.can_be_drawn(found):
        return [], []
    low, high = AccuracyBands(found).curve(grid)
    return (low / subject.scale).tolist(), (high / subject.scale).tolist()


def _ceiling(fitted: FitResult, scale: float) -> go.Scatter:
    """The ceiling with its interval, at zero entropy."""
    assert fitted.ceiling is not None
    value = fitted.ceiling / scale
    trace = dots([0.0], [value], "ceiling", INK, symbol="diamond", size=9, hover="ceiling %{y:.3f}<extra></extra>")
    if fitted.ceiling_interval is not None:
        low, high = (end / scale for end in fitted.ceiling_interval)
        trace.update(
            error_y={"type": "data", "symmetric": False, "array": [high - value], "arrayminus": [value - low]}
            | {"color": INK, "thickness": 1.5, "width": 5}
        )
    return trace


def _ceiling_note(law: FitResult) -> str:
    """The ceiling in a caption, with what its reader must know."""
    if not law.identified or law.ceiling is None:
        return "No ceiling: the law is not identified."
    text = f"Ceiling {n.ceiling(law)}"
    text += "" if law.is_possible else ": above 100 %, impossible; the points do not fix it"
    return f"{text}{'; another curve fits clearly better, so do not rely on it' if law.is_beaten else ''}."
