"""`covent forecast`: where a run is going, and how well its first part would have said so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from covent.cli.log_options import LogOptions, outcome, say_warnings
from covent.cli.options import option
from covent.cli.output import Outcome, Output


@dataclass(frozen=True)
class Forecast(LogOptions):
    """Forecast the steps to come, or with --until the rest of the log from its first part, with the errors made."""

    until: Annotated[float | None, option("FLOAT")] = None
    """Use only this share of the log and test the forecast on the rest; the paper uses 0.15."""
    to: Annotated[int | None, option("INT")] = None
    """Step to foretell; twice the logged steps if not given. Not with --until."""

    def run(self, output: Output) -> Outcome:
        """Read, forecast, print."""
        from covent.cli.log_tables import backtest_table, outlook_table
        from covent.logs import forecast_result, pooled_result

        series = self.series("forecast")
        results = [forecast_result(one, until=self.until, to=self.to) for one in series]
        output.console.print(outlook_table(results) if self.until is None else backtest_table(results))
        for result in results:
            if result.second_opinion is not None:
                name = f"{result.label}: " if len(results) > 1 else ""
                told = "" if result.second_opinion.agree is None else "A curve that saturates in steps: "
                output.say(f"\n{name}{told}{result.second_opinion.sentence}")
        if self.until is not None:
            output.say(
                "\nOnly “forecast” is one: it extrapolates entropy too. “given later entropy” knows what entropy did,"
                " and tests the law. “unchanged” says that accuracy stays where it was."
            )
        say_warnings(results, output)
        self.draw(series, results, output)
        return outcome(results, pooled_result(series) if len(series) > 1 else None)
