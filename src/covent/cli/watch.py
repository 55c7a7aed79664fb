"""`covent watch`: runs while they go on, in the terminal and as a page that is rewritten."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

_LOOKS_S = 1.0
"""Between two looks at the folders."""


@dataclass(frozen=True)
class Watch:
    """Watch running runs: entropy, accuracy, predicted ceiling, covariance tail, share selected, time left."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("RUN ...")] = ()
    """Run folders, of runs that go on or have ended."""
    html: Annotated[Path | None, option("FILE")] = None
    """Also write the report to FILE, and again each time a run has another evaluation; reload it to see more."""
    once: bool = False
    """Look once and leave, instead of until all runs have ended."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Show the runs until they have ended; Ctrl-C leaves them alone and ends the watching."""
        if not self.runs:
            raise ConfigError("covent watch needs at least one run folder: covent watch runs/clock")
        if self.html is not None and self.html.is_dir():
            raise ConfigError(f"--html '{self.html}' is a folder. Name the file: --html {self.html / 'report.html'}")
        from rich.live import Live

        from covent.cli.watched import WatchedRun, watch_table

        watched = [WatchedRun.of(folder) for folder in self.runs]
        written = -1
        try:
            with Live(console=output.console, auto_refresh=False) as live:
                while True:
                    for run in watched:
                        run.read()
                    live.update(watch_table(watched), refresh=True)
                    known = sum(len(run.evaluations.rows) for run in watched)
                    ended = all(run.has_ended for run in watched)
                    if self.html is not None and (known != written or ended):
                        written = known
                        self._write(output)
                    if ended or self.once:
                        break
                    time.sleep(_LOOKS_S)
        except KeyboardInterrupt:
            output.say("no longer watching; the runs go on")
        if self.html is not None and self.html.exists():
            output.say(f"report: {self.html}")
        return Outcome({"runs": [run.facts() for run in watched]})

    def _write(self, output: Output) -> None:
        """The page as the folders are now; a row that is half written is waited for."""
        from covent.errors import StoreError
        from covent.report.page import write_report
        from covent.store.reader import read_run

        assert self.html is not None
        try:
            write_report([read_run(folder) for folder in self.runs], self.html)
        except StoreError as error:
            output.warn(f"The page was not rewritten: {error}")
