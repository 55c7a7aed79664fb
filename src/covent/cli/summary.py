"""Runs in a few lines for the terminal: what is left of entropy, what was won, the law and its forecast."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from covent.law.fit import FEWEST_POINTS
from covent.logs.results import FitResult
from covent.report import numbers as n
from covent.report.attribution import AttributionSummary
from covent.report.names import short
from covent.report.summary import LawSummary, RunSummary
from covent.report.tables import ceiling_marks, short_ceiling


def summary_table(names: Sequence[str], summaries: Sequence[RunSummary]) -> Table:
    """One column a run, one row a number, three runs to a terminal of 80 columns; the README says what each means.

    Args:
        names: heads of the columns; `covent.report.compare.labels` gives those of the report.
        summaries: of the same runs.
    """
    table = Table("", *map(short, names), box=None, pad_edge=False)
    columns = [summary_rows(summary) for summary in summaries]
    for name in _merged([list(column) for column in columns]):
        # Only a run that is not finished has the row.
        missing = "finished" if name == "status" else n.MISSING
        table.add_row(name, *(column.get(name, missing) for column in columns))
    marks = ceiling_marks([law.fit for summary in summaries if (law := summary.main_law).fit is not None])
    if marks:
        table.caption, table.caption_justify = "\n".join(marks), "left"
    return table


def summary_tables(names: Sequence[str], summaries: Sequence[RunSummary], width: int) -> Group:
    """As `summary_table`, below each other with as many runs in each as fit into so many columns of the terminal."""
    wide = Console(width=10**6)

    def fits(first: int, after: int) -> bool:
        found = summary_table(names[first:after], summaries[first:after])
        return Measurement.get(wide, wide.options, found).maximum <= width

    tables: list[RenderableType] = []
    first = 0
    while first < len(names):
        after = first + 1
        while after < len(names) and fits(first, after + 1):
            after += 1
        tables += [""] if tables else []
        tables.append(summary_table(names[first:after], summaries[first:after]))
        first = after
    return Group(*tables)


def _merged(columns: Sequence[Sequence[str]]) -> list[str]:
    """Every name once, each directly after the name that it follows in its own column.

    Example:
        >>> _merged([["a", "d"], ["a", "b", "d"], ["c", "d"]])
        ['c', 'a', 'b', 'd']
    """
    merged: list[str] = []
    for column in columns:
        place = 0
        for name in column:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def summary_rows(summary: RunSummary) -> dict[str, str]:
    """The numbers of one run by name, ready to print. Accuracies are those on test problems, with 95 % intervals."""
    rows = {"seed": n.MISSING if summary.seed is None else str(summary.seed)}
    if summary.status.state != "finished":
        rows["status"] = f"{summary.status.state} at {summary.num_steps}/{summary.status.num_steps}"
    if summary.entropy is not None:
        rows["entropy, start"] = n.nats(summary.entropy.first)
        rows["entropy, end"] = n.nats(summary.entropy.last)
        rows["  of its start"] = n.share(summary.entropy.ratio)
    test = [change for change in summary.accuracy if change.split == "test"]
    # pass@k matters for the largest k alone: what the policy can still find.
    widest = [change for change in test if change.measure.startswith("pass")][-1:]
    for change in [change for change in test if not change.measure.startswith("pass")] + widest:
        if change.start is not None:
            rows[f"{change.measure}, start"] = n.estimate(change.start)
        rows[f"{change.measure}, end"] = n.estimate(change.end)
    return rows | _law_rows(summary.main_law)


def attribution_table(found: AttributionSummary) -> Table:
    """The entropy change of the attributed optimizer steps by cause; the lines add up to the last."""
    table = Table(f"ΔH of {found.num_updates} optimizer steps, by cause", "nats", box=None, pad_edge=False)
    for name, value in (found.parts | found.left_over | {"observed": found.observed}).items():
        table.add_row(name, n.plain(value))
    return table


def _law_rows(law: LawSummary) -> dict[str, str]:
    if law.fit is None:
        return {"law": f"no fit: {law.reason}", "ceiling b − a": n.MISSING, "  identified": "no points"}
    rows = {} if law.source == "validation" else {"R of the law": "training reward"}
    rows |= {
        "law a": n.fixed(law.fit.a),
        "law b": n.fixed(law.fit.b),
        "ceiling b − a": short_ceiling(law.fit),
        "  identified": _identified(law.fit),
        "R² of the law": n.fixed(law.fit.r2),
        "R² of a line": n.fixed(law.fit.line_r2),
    }
    for forecast in law.forecasts:
        first = n.percent(forecast.fraction, 0)
        rows[f"forecast, {first}"] = n.points(forecast.unconditional.end_error)
        rows[f"  later H, {first}"] = n.points(forecast.conditional.end_error)
    return rows


def _identified(law: FitResult) -> str:
    if law.identified:
        return "yes" if law.is_possible else "yes, but impossible"
    return "too few points" if law.n < FEWEST_POINTS else "no"
