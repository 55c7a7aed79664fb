"""`covent explain`: a log in words, with advice and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from covent.cli.log_options import LogOptions, outcome, say_warnings
from covent.cli.output import Outcome, Output


@dataclass(frozen=True)
class Explain(LogOptions):
    """Say in words where the runs behind some logs stand, what they have spent and won, and what to do next."""

    def run(self, output: Output) -> Outcome:
        """Read, explain, print; run folders of covent say more, from what only they record."""
        from covent.logs import explanation, pooled_result

        series = self.series("explain")
        results = [explanation(one) for one in series]
        for one, result in zip(series, results, strict=True):
            output.say(f"{result.label} ({result.format})")
            for finding in result.findings:
                output.say(f"  {finding.topic}: {finding.text}")
            for topic, text in _recorded(one.source) if one.format == "covent run folder" else []:
                output.say(f"  {topic}: {text}")
            output.say(f"  Advice: {result.advice} Reason: {result.reason}\n")
        say_warnings(results, output, [sentence for result in results for sentence in result.verdict])
        self.draw(series, results, output)
        return outcome(results, pooled_result(series) if len(series) > 1 else None)


def _recorded(folder: Path) -> list[tuple[str, str]]:
    """What the report says of control and probe states, which no other engine records."""
    from covent.report.summary import summarise
    from covent.report.words import findings
    from covent.store.reader import read_run

    told = findings(summarise(read_run(folder)))
    return [(finding.topic, finding.text) for finding in told if finding.topic in ("Control", "Explained", "Predicted")]
