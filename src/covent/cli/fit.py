"""`covent fit`: the law R = -a·exp(H) + b of a log, with honest intervals."""

from __future__ import annotations

from dataclasses import dataclass

from covent.cli.log_options import LogOptions, outcome, say_warnings
from covent.cli.output import Outcome, Output


@dataclass(frozen=True)
class Fit(LogOptions):
    """Fit R = -a·exp(H) + b to logs of any engine: a, b, and the ceiling with its interval."""

    def run(self, output: Output) -> Outcome:
        """Read, fit, print; several logs are pooled too, where their entropies are one quantity."""
        from covent.cli.log_tables import fit_table
        from covent.logs import fit_result, pooled_result
        from covent.logs.phrases import law_text

        series = self.series("fit")
        results = [fit_result(one) for one in series]
        pooled = pooled_result(series) if len(series) > 1 else None
        shown = results if pooled is None else [*results, pooled]
        output.console.print(fit_table(shown))
        for result in results:
            output.say("", f"{result.label}: {law_text(result)}" if pooled else law_text(result))
            if result.outlier_steps:
                points = "points at steps" if len(result.outlier_steps) > 1 else "point at step"
                output.say(f"A robust fit sets the {points} {', '.join(map(str, result.outlier_steps))} aside.")
        output.say(f"\nentropy: {results[0].entropy_definition}\n{results[0].join}")
        say_warnings(shown, output, [sentence for result in results for sentence in result.verdict])
        self.draw(series, results, output)
        return outcome(results, pooled)
