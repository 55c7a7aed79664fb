"""Runs in a few lines for the terminal: what is left of entropy, what was won, the law and its forecast."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from covent.report import numbers as n
from covent.report.attribution import AttributionSummary
from covent.report.summary import LawSummary, RunSummary


def summary_table(summaries: Sequence[RunSummary]) -> Table:
    """One column a run, one row a number, three runs to a terminal of 80 columns; the README says what each means."""
    table = Table("", *(_label(summary, summaries) for summary in summaries), box=None, pad_edge=False)
    columns = [summary_rows(summary) for summary in summaries]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, n.MISSING) for column in columns))
    return table


def summary_rows(summary: RunSummary) -> dict[str, str]:
    """The numbers of one run by name, ready to print. Accuracies are those on test problems, with 95 % intervals."""
    rows = {"seed": str(summary.seed)}
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
    return rows | _law_rows(summary.law("validation"))


def attribution_table(found: AttributionSummary) -> Table:
    """The entropy change of the attributed optimizer steps by cause; the lines add up to the last."""
    table = Table(f"ΔH of {found.num_updates} optimizer steps, by cause", "nats", box=None, pad_edge=False)
    for name, value in (found.parts | found.left_over | {"observed": found.observed}).items():
        table.add_row(name, n.plain(value))
    return table


def _law_rows(law: LawSummary) -> dict[str, str]:
    if law.forms is None:
        return {"law": f"no fit: {law.reason}"}
    fitted, line = law.forms.law, law.forms.line
    rows = {
        "law a": n.fixed(fitted.a),
        "law b": n.fixed(fitted.b),
        "ceiling b − a": n.percent(fitted.ceiling),
        "R² of the law": n.fixed(fitted.r2),
        "R² of a line": n.fixed(line.r2),
    }
    if not fitted.identified:
        rows["  a and b"] = "not identified"
    for forecast in law.forecasts:
        first = n.percent(forecast.fraction, 0)
        rows[f"forecast, {first}"] = n.points(forecast.unconditional.end_error)
        rows[f"  later H, {first}"] = n.points(forecast.conditional.end_error)
    return rows


def _label(summary: RunSummary, summaries: Sequence[RunSummary]) -> str:
    names = [other.name for other in summaries]
    return summary.name if names.count(summary.name) == 1 else f"{summary.name} · seed {summary.seed}"
