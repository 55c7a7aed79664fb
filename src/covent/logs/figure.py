"""The law of one or several logs as a picture: an HTML page that needs no network, or a PNG with the `plots` extra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from covent.errors import ConfigError
from covent.law import accuracy
from covent.law.series import FULL_MARKS
from covent.logs.extras import missing_extra
from covent.logs.results import FitResult
from covent.logs.series import FULL_PERCENT, LogSeries
from covent.store.durable import disk_errors, replace, replace_file
from covent.visible import visible

COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that stay apart for colour-blind eyes (Okabe and Ito 2008)."""

GREY = "#777777"

ENTROPY_AXIS = "policy entropy H, nats"
ACCURACY_AXIS = "accuracy R, percent"
TITLE = "The law R = −a·exp(H) + b"
LEGEND = "line: the law over the data; dotted: carried on to zero entropy; bar: 95 % interval of the ceiling"
_CURVE_POINTS = 100


@dataclass(frozen=True, eq=False)
class Curve:
    """One log in the picture; accuracies in percent."""

    name: str
    entropy: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    law_entropy: NDArray[np.float64]
    law_accuracy: NDArray[np.float64]
    """The fitted law over the entropies of the data; empty where there is no fit."""
    beyond_entropy: NDArray[np.float64]
    beyond_accuracy: NDArray[np.float64]
    """The law from there to no entropy; empty where it is not identified."""
    ceiling: tuple[float, float] | None
    """95 % interval at H = 0; None where the law is not identified."""

    @property
    def is_beyond_reach(self) -> bool:
        """Whether something drawn lies above 100 %."""
        drawn = [*self.law_accuracy, *self.beyond_accuracy, *(self.ceiling or ())]
        return max(drawn, default=0.0) > FULL_PERCENT


def check_target(path: Path) -> None:
    """Raise, before any work is done, unless a picture can be written to `path`.

    Raises:
        ConfigError: it does not end with .html or .png.
        MissingExtraError: PNG without matplotlib.
    """
    if path.suffix not in (".html", ".png"):
        raise ConfigError(f"--plot '{path}' must end with .html or .png.")
    if path.suffix == ".png" and find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plots", f"--plot {path}")


def write_figure(series: Sequence[LogSeries], results: Sequence[FitResult], path: Path) -> None:
    """Draw the points and laws of some logs into a file.

    Args:
        series: the points.
        results: the law of each.
        path: ends with .html or .png; an old file is replaced.

    Raises:
        ConfigError, MissingExtraError: as `check_target`.
        DiskError: it could not be written; an older file of that name is as it was.
    """
    check_target(path)
    curves = [_curve(one, result) for one, result in zip(series, results, strict=True)]
    with disk_errors(f"Writing {path}", "then: call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".html":
            replace(path.resolve(), figure(curves).to_html(include_plotlyjs=True, full_html=True), synced=False)
        else:
            replace_file(path.resolve(), lambda temporary: _write_png(curves, temporary))


def figure(curves: Sequence[Curve]) -> go.Figure:
    """The picture as a plotly figure: for each log its points, the law, its continuation, and the ceiling."""
    drawn = go.Figure()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        group = {"legendgroup": str(number), "showlegend": False, "hoverinfo": "skip"}
        drawn.add_scatter(
            x=curve.entropy,
            y=curve.accuracy,
            mode="markers",
            name=curve.name,
            legendgroup=str(number),
            marker={"color": color, "size": 7},
        )
        line = {"color": color, "width": 2}
        drawn.add_scatter(x=curve.law_entropy, y=curve.law_accuracy, mode="lines", line=line, **group)
        drawn.add_scatter(
            x=curve.beyond_entropy, y=curve.beyond_accuracy, mode="lines", line={**line, "dash": "dot"}, **group
        )
        if curve.ceiling is not None:
            middle = sum(curve.ceiling) / 2
            bar = {"type": "data", "array": [curve.ceiling[1] - middle], "color": color}
            drawn.add_scatter(x=[0.0], y=[middle], mode="markers", marker={"opacity": 0}, error_y=bar, **group)
    if any(curve.is_beyond_reach for curve in curves):
        drawn.add_hline(FULL_PERCENT, line={"color": GREY, "width": 1}, annotation_text="100 %, above is impossible")
    drawn.update_layout(
        template="plotly_white",
        xaxis_title=ENTROPY_AXIS,
        yaxis_title=ACCURACY_AXIS,
        title={"text": TITLE, "subtitle": {"text": LEGEND}},
        legend={"orientation": "h", "y": -0.15},
        showlegend=True,
    )
    return drawn


def _curve(series: LogSeries, result: FitResult) -> Curve:
    percent = FULL_PERCENT / FULL_MARKS[result.unit]
    lowest, highest = float(np.min(series.entropy)), float(np.max(series.entropy))
    seen, beyond = np.linspace(lowest, highest, _CURVE_POINTS), np.linspace(0.0, lowest, _CURVE_POINTS)
    none = np.zeros(0)
    if result.a is None or result.b is None:
        seen = none
    if not result.identified:
        beyond = none
    a, b = result.a or 0.0, result.b or 0.0
    interval = result.ceiling_interval if result.identified else None
    return Curve(
        name=visible(result.label) + ("" if result.identified else ", law not identified"),
        entropy=series.entropy,
        accuracy=percent * series.accuracy,
        law_entropy=seen,
        law_accuracy=percent * accuracy(seen, a, b),
        beyond_entropy=beyond,
        beyond_accuracy=percent * accuracy(beyond, a, b),
        ceiling=None if interval is None else (percent * interval[0], percent * interval[1]),
    )


def _write_png(curves: Sequence[Curve], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    for number, curve in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        axes.plot(curve.entropy, curve.accuracy, "o", color=color, markersize=4, label=curve.name)
        axes.plot(curve.law_entropy, curve.law_accuracy, "-", color=color)
        axes.plot(curve.beyond_entropy, curve.beyond_accuracy, ":", color=color)
        if curve.ceiling is not None:
            middle = sum(curve.ceiling) / 2
            axes.errorbar([0.0], [middle], yerr=[curve.ceiling[1] - middle], color=color, capsize=4)
    if any(curve.is_beyond_reach for curve in curves):
        axes.axhline(FULL_PERCENT, color=GREY, linewidth=1)
        axes.annotate(
            "100 %, above is impossible",
            (1, FULL_PERCENT),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
        )
    axes.set(xlabel=ENTROPY_AXIS, ylabel=ACCURACY_AXIS)
    drawn.suptitle(TITLE)
    axes.set_title(LEGEND, fontsize=8)
    drawn.legend(loc="outside lower center", ncols=3, fontsize=8)
    drawn.savefig(path, format="png")
