"""What all plots of the report share: colours, the look of axes, and the table that lies under each plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from covent.report.compare import labels
from covent.report.experiments import experiments
from covent.report.names import all_short
from covent.store.reader import Run
from covent.visible import visible

OKABE_ITO = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colours that stay apart for colour-blind eyes (Okabe and Ito 2008); yellow and black are unreadable on one of the
two backgrounds and are left out."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

INK = "#010203"
"""Stands for the colour of text: the page's script puts in the one of the light or the dark theme."""

MUTED = "#020304"
"""Stands for the colour of secondary text."""

FAINT = "#030405"
"""Stands for the colour of grid lines."""


@dataclass(frozen=True)
class Key:
    """One entry of a plot's legend, which the page draws itself so that it wraps on a phone."""

    name: str
    color: str
    dash: str | None
    """None: no line is drawn."""
    symbol: str | None
    """None: no marker is drawn."""
    opacity: float


Cell = float | int | str | None


@dataclass(frozen=True)
class Table:
    """What lies under a plot: the same data for those who cannot, or would rather not, see it."""

    columns: list[str]
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Chart:
    """A plot with what belongs to it."""

    anchor: str
    title: str
    y_label: str
    caption: str
    """How to read it, in one or two sentences."""
    figure: go.Figure
    table: Table
    note: str = ""
    """What the numbers of this very plot say, where its caption is shared with its neighbours."""
    log_switch: bool = False
    """Whether the page offers a logarithmic vertical axis."""
    run: int | None = None
    """Which run of the page it is about; None where it shows several."""
    about: str = ""
    """What its table holds, where that is more or other than what the vertical axis says."""
    links: Literal["x", "data", ""] = ""
    """Where a point keeps the rollout step that it leads to: in x, in its own data, or nowhere."""

    @property
    def legend(self) -> list[Key]:
        """The legend, from the traces that ask for an entry; traces of one name share it."""
        keys: dict[str, Key] = {}
        for trace in self.figure.data:
            if trace.showlegend is not False and trace.name not in keys:
                keys[trace.name] = _key(trace)
        return list(keys.values())


@dataclass(frozen=True)
class Style:
    """How one run is drawn."""

    label: str
    color: str
    dash: str
    symbol: str
    run: int = 0
    """Place of the run on the page, which its points lead back to."""


def styles(runs: Sequence[Run], others: Sequence[str] = ()) -> list[Style]:
    """One style for each run: colour and symbol tell the experiment, dashes tell its runs apart.

    Args:
        runs: run folders.
        others: names of logs of other engines that come after them; each is a method of its own.
    """
    named = list(zip(labels(runs), experiments(runs), strict=True))
    return styles_of([*named, *((name, name) for name in all_short(others))])


def styles_of(named: Sequence[tuple[str, str]]) -> list[Style]:
    """One style for each (label, experiment)."""
    methods = list(dict.fromkeys(kind for _, kind in named))
    seen: dict[str, int] = {}
    found: list[Style] = []
    for label, kind in named:
        place, nth = methods.index(kind), seen.get(kind, 0)
        seen[kind] = nth + 1
        found.append(
            Style(
                label=visible(label),
                color=OKABE_ITO[place % len(OKABE_ITO)],
                dash=DASHES[(nth + place // len(OKABE_ITO)) % len(DASHES)],
                symbol=SYMBOLS[place % len(SYMBOLS)],
                run=len(found),
            )
        )
    return found


def figure(x_title: str) -> go.Figure:
    """An empty figure in the report's look; legend and title are the page's business."""
    axis: dict[str, Any] = {
        "gridcolor": FAINT,
        "linecolor": FAINT,
        "zerolinecolor": FAINT,
        "zerolinewidth": 1,
        "tickcolor": FAINT,
        "ticks": "outside",
        "ticklen": 4,
        "tickfont": {"color": MUTED, "size": 12},
        "automargin": True,
        "fixedrange": False,
    }
    return go.Figure(
        layout=go.Layout(
            template=go.layout.Template(),
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
            margin={"l": 44, "r": 12, "t": 8, "b": 44},
            showlegend=False,
            hovermode="closest",
            hoverlabel={"font": {"family": "system-ui, sans-serif", "size": 12}},
            xaxis=axis
            | {"title": {"text": x_title, "font": {"size": 12, "color": MUTED}}, "showgrid": False, "zeroline": False},
            yaxis=axis,
        )
    )


def share_axis(chart: go.Figure, values: Sequence[Cell]) -> None:
    """Label the vertical axis in percent where all values are shares; a reward function gives numbers of any size."""
    if all(0 <= value <= 1 for value in values if isinstance(value, float | int)):
        chart.update_yaxes(tickformat=".2~%")


def line(
    x: Sequence[float],
    y: Sequence[float | None],
    name: str,
    color: str,
    *,
    dash: str = "solid",
    width: float = 2.0,
    opacity: float = 1.0,
    in_legend: bool = True,
    run: int | None = None,
) -> go.Scatter:
    """A line without markers; `run` says whose points they are where a plot shows several runs."""
    return go.Scatter(
        meta=None if run is None else {"run": run},
        x=list(x),
        y=list(y),
        name=name,
        legendgroup=name,
        mode="lines",
        line={"color": color, "dash": dash, "width": width},
        opacity=opacity,
        showlegend=in_legend,
        hovertemplate="%{x}: %{y:.4g}",
    )


def dots(
    x: Sequence[float],
    y: Sequence[float],
    name: str,
    color: str,
    *,
    symbol: str = "circle",
    size: float = 7.0,
    opacity: float = 1.0,
    hover: str = "%{x:.4g}, %{y:.4g}",
    data: Sequence[Any] | None = None,
) -> go.Scatter:
    """Markers without a line."""
    return go.Scatter(
        x=list(x),
        y=list(y),
        name=name,
        legendgroup=name,
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": size},
        opacity=opacity,
        hovertemplate=hover,
        customdata=None if data is None else list(data),
    )


def table(columns: Sequence[str], *series: Sequence[Cell]) -> Table:
    """A table from columns of equal length."""
    return Table(list(columns), [list(row) for row in zip(*series, strict=True)])


def stacked(tables: Sequence[tuple[str, Table]], first: str = "run") -> Table:
    """Tables of equal columns on top of each other, with a first column that says whose rows they are."""
    return Table(
        [first, *(tables[0][1].columns if tables else [])],
        [[label, *row] for label, part in tables for row in part.rows],
    )


def band(x: Sequence[float], low: Sequence[float], high: Sequence[float], name: str, color: str) -> list[go.Scatter]:
    """The area between two lines, as the two traces that plotly needs for it; its legend entry is that of `name`."""
    edge = {"width": 0}
    shared: dict[str, Any] = {"x": list(x), "mode": "lines", "line": edge, "legendgroup": name, "showlegend": False}
    return [
        go.Scatter(y=list(low), name=name, hoverinfo="skip", **shared),
        go.Scatter(y=list(high), name=name, hoverinfo="skip", fill="tonexty", fillcolor=f"{color}26", **shared),
    ]


def _key(trace: go.Scatter) -> Key:
    mode = trace.mode or ""
    color = trace.line.color if "lines" in mode else trace.marker.color
    return Key(
        name=trace.name,
        color=color,
        dash=(trace.line.dash or "solid") if "lines" in mode else None,
        symbol=(trace.marker.symbol or "circle") if "markers" in mode else None,
        opacity=1.0 if trace.opacity is None else trace.opacity,
    )
