"""Every plot of the page as a file: PDF or PNG for papers, and its table as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from covent.logs.extras import missing_extra
from covent.report.chart import FAINT, INK, MUTED, Chart, Table
from covent.report.law_plots import SHOWN_FIRST, prefixes, slider_data
from covent.report.methods import methods
from covent.report.sections import sections
from covent.report.subject import Subject
from covent.store.durable import disk_errors, replace, replace_file
from covent.visible import visible

DASHES = {
    "solid": "-",
    "dash": (0, (6, 4)),
    "dot": (0, (2, 3)),
    "dashdot": (0, (7, 3, 2, 3)),
    "longdash": (0, (10, 4)),
    "longdashdot": (0, (10, 3, 2, 3)),
}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "x": "x", "cross": "+"}
PAINT = {INK: "#000000", MUTED: "#666666", FAINT: "#dddddd"}
"""Colours that the page takes from its theme, on paper."""


def named_charts(shown: Sequence[Subject]) -> dict[str, Chart]:
    """Every plot of the page by a name for a file: its section, and its number where there are several."""
    parts = [prefixes(subject) for subject in shown]
    found: dict[str, Chart] = {}
    over = methods(shown)
    groups = [(section.anchor, section.charts) for section in sections(shown, parts)]
    groups += [] if over is None else [("methods", over.charts)]
    for anchor, charts in groups:
        for number, chart in enumerate(charts, start=1):
            found[anchor if len(charts) == 1 else f"{anchor}-{number}"] = chart
    sliders = {each.style.run: slider_data(each, part) for each, part in zip(shown, parts, strict=True) if part}
    for chart in found.values():
        if chart.run in sliders:
            _put_in(chart, sliders[chart.run])
    return found


def require_matplotlib(path: Path) -> None:
    """Raises: MissingExtraError when figures cannot be drawn here."""
    if find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plots", path)


def write_figure(chart: Chart, path: Path) -> Path:
    """Draw a plot with matplotlib.

    Args:
        chart: any plot of the page.
        path: ends with .pdf, .png or .svg; an old file is replaced.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DiskError: it could not be written; an older file of that name is as it was.
    """
    require_matplotlib(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(5.2, 3.4), dpi=200, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.add_subplot()
    named: dict[str, Any] = {}
    traces = list(chart.figure.data)
    for place, trace in enumerate(traces):
        handle = _draw(axes, trace, traces[place - 1] if place else None)
        if handle is not None and trace.showlegend is not False and trace.name:
            named.setdefault(_plain(trace.name), handle)
    _axes(axes, chart)
    axes.set_title(_plain(chart.title), fontsize=9)
    if named:
        drawn.legend(
            list(named.values()), list(named), loc="outside lower center", ncols=3, fontsize=6.5, frameon=False
        )
    kind = path.suffix.removeprefix(".")
    # Without its date, the same plot is the same file.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with disk_errors(f"Writing {path}", "then: call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path.resolve(), lambda temporary: drawn.savefig(temporary, format=kind, metadata=metadata))
    return path


def csv_text(table: Table) -> str:
    """A table as comma-separated values with all digits; text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([[_cell(value) for value in row] for row in table.rows])
    return out.getvalue()


def write_csv(chart: Chart, path: Path) -> Path:
    """The table of a plot; an old file is replaced in one piece."""
    with disk_errors(f"Writing {path}", "then: call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path.resolve(), csv_text(chart.table), synced=False)
    return path


def _cell(value: float | int | str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    shown = visible(value)
    return f"'{shown}" if shown[:1] in "=+-@\t\r" and shown else shown


def _put_in(chart: Chart, slider: dict[str, Any]) -> None:
    """What the slider of the page would, where it stands first."""
    positions = slider["positions"]
    slots = min(positions, key=lambda one: abs(one["percent"] - 100 * SHOWN_FIRST))["slots"]
    for trace in chart.figure.data:
        if trace.meta and trace.meta.get("slot") in slots:
            trace.update(slots[trace.meta["slot"]])


def _plain(text: str) -> str:
    """Text that matplotlib takes as it is: a dollar sign would begin a formula."""
    return visible(text).replace("$", r"\$")


def _draw(axes: Any, trace: Any, before: Any) -> Any:
    """One trace; what a legend shows for it, or None."""
    x = np.array(trace.x if trace.x is not None else [], dtype=np.float64)
    y = np.array([np.nan if value is None else value for value in trace.y or ()], dtype=np.float64)
    alpha = 1.0 if trace.opacity is None else trace.opacity
    if trace.fill == "tonexty" and before is not None:
        low = np.array(before.y or (), dtype=np.float64)
        axes.fill_between(x, low, y, color=trace.fillcolor[:7], alpha=0.15, linewidth=0)
        return None
    if trace.line.width == 0 or not x.size:
        return None
    handle = None
    if "lines" in trace.mode:
        color = PAINT.get(trace.line.color, trace.line.color)
        style, width = DASHES[trace.line.dash or "solid"], 0.6 * (trace.line.width or 2)
        draw = axes.step if trace.line.shape == "hvh" else axes.plot
        where = {"where": "mid"} if trace.line.shape == "hvh" else {}
        handle = draw(x, y, linestyle=style, color=color, linewidth=width, alpha=alpha, **where)[0]
    if "markers" in trace.mode:
        symbol = trace.marker.symbol or "circle"
        color = PAINT.get(trace.marker.color, trace.marker.color)
        shape = MARKERS.get(symbol.removesuffix("-open"), "o")
        inside = {"markerfacecolor": "none"} if symbol.endswith("-open") else {}
        size = 0.5 * (trace.marker.size or 7)
        dots = axes.plot(x, y, shape, color=color, markersize=size, alpha=alpha, linestyle="none", **inside)[0]
        handle = handle or dots
        if trace.error_y.array is not None:
            ends = [np.array(trace.error_y.arrayminus), np.array(trace.error_y.array)]
            axes.errorbar(x, y, yerr=ends, fmt="none", ecolor=color, elinewidth=0.8, capsize=2)
    return handle


def _axes(axes: Any, chart: Chart) -> None:
    layout = chart.figure.layout
    axes.set_xlabel(_plain(layout.xaxis.title.text or ""), fontsize=8)
    axes.set_ylabel(_plain(chart.y_label), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(axis="y", color=PAINT[FAINT], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for axis, settings in ((axes.xaxis, layout.xaxis), (axes.yaxis, layout.yaxis)):
        if settings.type == "log":
            (axes.set_xscale if axis is axes.xaxis else axes.set_yscale)("log")
        if settings.tickvals is not None:
            axis.set_ticks(list(settings.tickvals), list(settings.ticktext))
        if settings.tickformat and settings.tickformat[-1] in "%p":
            axis.set_major_formatter(lambda value, _: f"{100 * value:.4g} %")
