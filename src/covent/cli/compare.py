"""`covent compare`: several logs against each other."""

from __future__ import annotations

from dataclasses import dataclass

from covent.cli.log_options import LogOptions, say_warnings
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError


@dataclass(frozen=True)
class Compare(LogOptions):
    """Compare logs: one curve or several, and who is higher at the same entropy."""

    def run(self, output: Output) -> Outcome:
        """Read, compare, print."""
        from covent.cli.log_tables import fit_table
        from covent.logs import comparison

        if not self.logs:
            raise ConfigError(
                "covent compare needs at least one log, and two runs in all: covent compare grpo.csv clip_cov.csv"
            )
        series = self.series("compare")
        if len(series) < 2:
            raise ConfigError(
                f"covent compare needs at least two runs; {self.logs[0]} holds one. Name another log, or tell"
                " the runs of one table apart with --by COLUMN."
            )
        result = comparison(series)
        output.console.print(fit_table([*result.runs, result.pooled]))
        output.say("", *result.sentences)
        say_warnings([*result.runs, result.pooled], output)
        self.draw(series, result.runs, output)
        return Outcome(result.model_dump(mode="json"))
