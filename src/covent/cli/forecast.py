"""`covent forecast`: where a run is going, and how well its first part would have said so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from covent.cli.log_options import NOT_KNOWN, LogOptions, interval, number, outcome, say_warnings
from covent.cli.output import Outcome, Output

if TYPE_CHECKING:
    from rich.table import Table

    from covent.law import Prediction
    from covent.logs import ForecastResult
    from covent.logs.ahead import Outlook


@dataclass(frozen=True)
class Forecast(LogOptions):
    """Forecast the steps to come, or with --until the rest of the log from its first part, with the errors made."""

    until: float | None = None
    """Use only this share of the log and test the forecast on the rest; the paper uses 0.15."""
    to: int | None = None
    """Step to foretell; twice the logged steps if not given. Not with --until."""

    def run(self, output: Output) -> Outcome:
        """Read, forecast, print."""
        from covent.logs import forecast_result, pooled_result

        series = self.series("forecast")
        results = [forecast_result(one, until=self.until, to=self.to) for one in series]
        output.console.print(_outlook_table(results) if self.until is None else _backtest_table(results))
        for result in results:
            if result.second_opinion is not None:
                name = f"{result.name}: " if len(results) > 1 else ""
                output.say(
                    f"\n{name}second opinion, by a curve that saturates in steps: {result.second_opinion.sentence}"
                )
        if self.until is not None:
            output.say(
                "\nOnly “forecast” is one: it extrapolates entropy too. “given later entropy” knows what entropy did,"
                " and tests the law. “unchanged” says that accuracy stays where it was."
            )
        say_warnings(results, output)
        self.draw(series, results, output)
        return outcome(results, pooled_result(series) if len(series) > 1 else None)


def _outlook_table(results: Sequence[ForecastResult]) -> Table:
    from rich.table import Table

    table = Table("", *(result.name for result in results), box=None, pad_edge=False)
    outlooks = [result.outlook for result in results]
    table.add_row("ceiling b − a", *(_ceiling(result) for result in results))
    table.add_row("  95 % interval", *(interval(result.ceiling_interval) for result in results))
    table.add_row("accuracy now", *(number(result.last_accuracy) for result in results))
    table.add_row("entropy now, nats", *(number(result.last_entropy) for result in results))
    table.add_row("at step", *(str(outlook.step) if outlook else "" for outlook in outlooks))
    table.add_row("  entropy, nats", *(number(outlook.entropy if outlook else None) for outlook in outlooks))
    table.add_row("  accuracy", *(number(outlook.accuracy if outlook else None) for outlook in outlooks))
    table.add_row("  95 % band", *(_band(outlook) for outlook in outlooks))
    table.add_row("  gain from here", *(number(outlook.gain if outlook else None) for outlook in outlooks))
    return table


def _backtest_table(results: Sequence[ForecastResult]) -> Table:
    from rich.table import Table

    table = Table("", *(result.name for result in results), box=None, pad_edge=False)
    tests = [result.backtest for result in results]
    table.add_row(
        "points used / of", *(f"{t.num_prefix} / {t.num_prefix + len(t.observed)}" if t else "" for t in tests)
    )
    table.add_row("ceiling b − a", *(_ceiling(result) for result in results))
    table.add_row("  95 % interval", *(interval(result.ceiling_interval) for result in results))
    for label, key in (
        ("forecast", "unconditional"),
        ("given later entropy", "conditional"),
        ("unchanged", "unchanged"),
    ):
        predictions = [getattr(test, key) if test else None for test in tests]
        table.add_row(f"{label}: error at the end", *(number(p.end_error if p else None) for p in predictions))
        table.add_row("  RMSE over the rest", *(number(p.rmse if p else None) for p in predictions))
        if key != "unchanged":
            table.add_row("  inside its 95 % band", *(_covered(p) for p in predictions))
    table.add_row("unit of R", *(result.unit for result in results))
    return table


def _band(outlook: Outlook | None) -> str:
    if outlook is None or outlook.low is None or outlook.high is None:
        return NOT_KNOWN
    return interval((outlook.low, outlook.high))


def _covered(prediction: Prediction | None) -> str:
    if prediction is None or prediction.covered is None:
        return NOT_KNOWN
    return f"{100 * prediction.covered:.0f} %"


def _ceiling(result: ForecastResult) -> str:
    return number(result.ceiling) + ("" if result.identified else " (not identified)")
