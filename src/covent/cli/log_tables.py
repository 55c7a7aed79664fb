"""Results on logs as tables: one column a log, accuracies in percent and their differences in points."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from covent.cli.log_options import NOT_KNOWN, number
from covent.law import Forecast, Prediction, Unit
from covent.law.series import FULL_MARKS, in_percent, in_points
from covent.logs import FitResult, ForecastResult
from covent.logs.ahead import Outlook


def fit_table(results: Sequence[FitResult]) -> Table:
    """One column a log, one row a number."""
    table = Table("", *(result.label for result in results), box=None, pad_edge=False)
    rows: list[tuple[str, Callable[[FitResult], str]]] = [
        ("accuracy R", lambda r: r.metric),
        ("entropy H", lambda r: r.entropy_metric),
        ("points", lambda r: str(r.n)),
        ("a", lambda r: number(r.a)),
        ("b", lambda r: number(r.b)),
        ("ceiling b − a", ceiling),
        ("  95 % interval", lambda r: percent_interval(r.ceiling_interval, r.unit)),
        ("R² (straight line)", lambda r: f"{number(r.r2)} ({number(r.line_r2)})"),
        ("RMSE", lambda r: NOT_KNOWN if r.rmse is None else in_points(r.rmse, r.unit)),
        ("R was logged as", lambda r: r.unit),
    ]
    for label, cell in rows:
        table.add_row(label, *(cell(result) for result in results))
    return table


def outlook_table(results: Sequence[ForecastResult]) -> Table:
    """The steps to come, one column a log."""
    table = Table("", *(result.label for result in results), box=None, pad_edge=False)
    outlooks = [result.outlook for result in results]
    table.add_row("ceiling b − a", *(ceiling(result) for result in results))
    table.add_row("  95 % interval", *(percent_interval(result.ceiling_interval, result.unit) for result in results))
    table.add_row("last point, at step", *(str(outlook.from_step) if outlook else "" for outlook in outlooks))
    table.add_row("  entropy, nats", *(number(result.last_entropy) for result in results))
    table.add_row("  accuracy", *(percent(result.last_accuracy, result.unit) for result in results))
    table.add_row("forecast, at step", *(str(outlook.step) if outlook else "" for outlook in outlooks))
    table.add_row("  entropy, nats", *(number(outlook.entropy if outlook else None) for outlook in outlooks))
    told = list(zip(outlooks, (result.unit for result in results), strict=True))
    table.add_row("  accuracy", *(percent(outlook.accuracy if outlook else None, unit) for outlook, unit in told))
    table.add_row("  95 % band", *(_band(outlook, unit) for outlook, unit in told))
    table.add_row(
        "  gain by the law from there", *(points(outlook.gain if outlook else None, unit) for outlook, unit in told)
    )
    return table


def backtest_table(results: Sequence[ForecastResult]) -> Table:
    """What the first part of each log foretold, and how far off it was."""
    table = Table("", *(result.label for result in results), box=None, pad_edge=False)
    tests = [result.backtest for result in results]
    table.add_row(
        "points used / of", *(f"{t.num_prefix} / {t.num_prefix + len(t.observed)}" if t else "" for t in tests)
    )
    table.add_row("ceiling b − a", *(ceiling(result) for result in results))
    table.add_row("  95 % interval", *(percent_interval(result.ceiling_interval, result.unit) for result in results))
    for label, key in (
        ("forecast", "unconditional"),
        ("given later entropy", "conditional"),
        ("unchanged", "unchanged"),
    ):
        # One marker alone is mostly noise, so the end is the mean of the last ones.
        predictions = [getattr(test, key) if test else None for test in tests]
        told = list(zip(predictions, (result.unit for result in results), strict=True))
        errors = (points(p.end_error if p else None, unit) for p, unit in told)
        table.add_row(f"{label}: error at the end{_of_last(tests)}", *errors)
        table.add_row("  RMSE over the rest", *(_rmse(p, unit) for p, unit in told))
        if key != "unchanged":
            table.add_row("  inside its 95 % band", *(_covered(p) for p in predictions))
    return table


def _of_last(tests: Sequence[Forecast | None]) -> str:
    """Over how many points the end is a mean, where all logs agree."""
    sizes = sorted({len(test.end_steps) for test in tests if test})
    return f" (mean of last {' or '.join(map(str, sizes))})" if sizes else ""


def _band(outlook: Outlook | None, unit: Unit) -> str:
    if outlook is None or outlook.low is None or outlook.high is None:
        return NOT_KNOWN
    return percent_interval((outlook.low, outlook.high), unit)


def _rmse(prediction: Prediction | None, unit: Unit) -> str:
    return NOT_KNOWN if prediction is None or prediction.rmse is None else in_points(prediction.rmse, unit)


def _covered(prediction: Prediction | None) -> str:
    if prediction is None or prediction.covered is None:
        return NOT_KNOWN
    return f"{100 * prediction.covered:.0f} %"


def ceiling(result: FitResult) -> str:
    """The ceiling in percent where the points determine one."""
    if result.ceiling is None or not result.identified:
        return "not identified"
    return percent(result.ceiling, result.unit)


def percent(value: float | None, unit: Unit) -> str:
    """An accuracy in percent, said where it is none that can be, or a dash."""
    if value is None:
        return NOT_KNOWN
    return in_percent(value, unit) + ("" if 0 <= value <= FULL_MARKS[unit] else " (impossible)")


def points(value: float | None, unit: Unit) -> str:
    """A difference of accuracies in points with its sign, or a dash."""
    return NOT_KNOWN if value is None else ("+" if value >= 0 else "") + in_points(value, unit)


def percent_interval(value: tuple[float, float] | None, unit: Unit) -> str:
    """`[low, high]` in percent, or a dash."""
    if value is None:
        return NOT_KNOWN
    low, high = (100 * end / FULL_MARKS[unit] for end in value)
    return f"[{low:.1f}, {high:.1f}]"
