"""The law of one or several logs as a picture: an HTML page that needs no network, or a PNG with the `plots` extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from covent.errors import ConfigError
from covent.law import accuracy
from covent.law.series import FULL_MARKS
from covent.logs.extras import missing_extra
from covent.logs.results import FitResult
from covent.logs.series import LogSeries
from covent.visible import visible

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that stay apart for colour-blind eyes (Okabe and Ito 2008)."""

ENTROPY_AXIS = "policy entropy H, nats"
ACCURACY_AXIS = "accuracy R, percent"
_CURVE_POINTS = 200


@dataclass(frozen=True, eq=False)
class Curve:
    """One log in the picture; accuracies in percent."""

    name: str
    entropy: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    line_entropy: NDArray[np.float64]
    line_accuracy: NDArray[np.float64]
    """The fitted law from no entropy to the largest; empty where there is no fit."""
    ceiling: tuple[float, float] | None
    """95 % interval at H = 0."""


def write_figure(series: Sequence[LogSeries], results: Sequence[FitResult], path: Path) -> None:
    """Draw the points and laws of some logs into a file.

    Args:
        series: the points.
        results: the law of each.
        path: ends with .html or .png; an old file is replaced.

    Raises:
        ConfigError: another ending.
        MissingExtraError: PNG without matplotlib.
    """
    curves = [_curve(one, result) for one, result in zip(series, results, strict=True)]
    if path.suffix == ".html":
        path.write_text(figure(curves).to_html(include_plotlyjs=True, full_html=True), encoding="utf-8")
    elif path.suffix == ".png":
        _write_png(curves, path)
    else:
        raise ConfigError(f"--plot '{path}' must end with .html or .png.")


def figure(curves: Sequence[Curve]) -> go.Figure:
    """The picture in plotly: markers in the order of the log, the law as a line, the ceiling's interval as a bar."""
    drawn = go.Figure()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        drawn.add_scatter(
            x=curve.entropy, y=curve.accuracy, mode="markers", name=curve.name, marker={"color": color, "size": 7}
        )
        drawn.add_scatter(
            x=curve.line_entropy,
            y=curve.line_accuracy,
            mode="lines",
            name=f"law of {curve.name}",
            line={"color": color, "width": 2},
            hoverinfo="skip",
        )
        if curve.ceiling is not None:
            middle = sum(curve.ceiling) / 2
            drawn.add_scatter(
                x=[0.0],
                y=[middle],
                mode="markers",
                name=f"ceiling of {curve.name}, 95 %",
                marker={"color": color, "symbol": "line-ew-open", "size": 12},
                error_y={"type": "data", "array": [curve.ceiling[1] - middle], "color": color},
            )
    drawn.update_layout(
        template="plotly_white",
        xaxis_title=ENTROPY_AXIS,
        yaxis_title=ACCURACY_AXIS,
        title="R = −a·exp(H) + b",
        legend={"orientation": "h", "y": -0.2},
    )
    return drawn


def _curve(series: LogSeries, result: FitResult) -> Curve:
    percent = 100 / FULL_MARKS[result.unit]
    line = np.linspace(0.0, float(np.max(series.entropy)), _CURVE_POINTS)
    fitted = result.a is not None and result.b is not None
    law = percent * accuracy(line, result.a, result.b) if result.a is not None and result.b is not None else np.zeros(0)
    interval = result.ceiling_interval
    return Curve(
        name=visible(result.name),
        entropy=series.entropy,
        accuracy=percent * series.accuracy,
        line_entropy=line if fitted else np.zeros(0),
        line_accuracy=law,
        ceiling=None if interval is None else (percent * interval[0], percent * interval[1]),
    )


def _write_png(curves: Sequence[Curve], path: Path) -> None:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_extra("matplotlib", "plots", f"--plot {path}") from error
    drawn = Figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        axes.plot(curve.entropy, curve.accuracy, "o", color=color, markersize=4, label=curve.name)
        axes.plot(curve.line_entropy, curve.line_accuracy, "-", color=color)
        if curve.ceiling is not None:
            middle = sum(curve.ceiling) / 2
            axes.errorbar([0.0], [middle], yerr=[curve.ceiling[1] - middle], color=color, capsize=4)
    axes.set(xlabel=ENTROPY_AXIS, ylabel=ACCURACY_AXIS, title="R = −a·exp(H) + b")
    axes.legend()
    drawn.savefig(path)
