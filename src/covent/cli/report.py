"""`covent report`: run folders to one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about one or more run folders; it opens with no network."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("RUN ...")] = ()
    """Run folders to show side by side."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("report.html")
    """The page to write; an old one is replaced."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Read the folders, write the page, and print the runs in a few lines."""
        if not self.runs:
            raise ConfigError("covent report needs at least one run folder: covent report runs/demo/grpo")
        if self.out.is_dir():
            raise ConfigError(
                f"--out '{self.out}' is a folder. Name the file to write: --out {self.out / 'report.html'}"
            )
        from covent.cli.summary import summary_table
        from covent.report.compare import labels
        from covent.report.page import write_report
        from covent.report.summary import summarise
        from covent.store.reader import read_run

        runs = [read_run(folder) for folder in self.runs]
        summaries = [summarise(run) for run in runs]
        write_report(runs, self.out)
        output.console.print(summary_table(labels(runs), summaries))
        output.say(f"\nreport: {self.out}")
        return Outcome({"report": str(self.out), "runs": [summary.model_dump(mode="json") for summary in summaries]})
