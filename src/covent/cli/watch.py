"""`covent watch`: runs while they go on, in the terminal and as a page that is rewritten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

if TYPE_CHECKING:
    from covent.cli.watched import WatchedRun

_LOOKS_S = 1.0
"""Between two looks at the folders."""

_PAGE_S = 15
"""The page loads itself again after so long, and is written anew no sooner unless there is another evaluation."""


@dataclass(frozen=True)
class Watch:
    """Watch running runs: entropy, accuracy, predicted ceiling, covariance tail, share selected, time left."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("RUN ...")] = ()
    """Run folders, of runs that go on or have ended."""
    html: Annotated[Path | None, option("FILE")] = None
    """Also write the report to FILE, and again while the runs go on; an open page follows by itself."""
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
        page = None if self.html is None else _Page(self.runs, self.html, output)
        try:
            with Live(console=output.console, auto_refresh=False) as live:
                while True:
                    for run in watched:
                        run.read()
                    live.update(watch_table(watched), refresh=True)
                    if self.once or all(run.has_ended for run in watched):
                        break
                    if page is not None:
                        page.follow(watched)
                    time.sleep(_LOOKS_S)
        except KeyboardInterrupt:
            output.say("", "no longer watching; the runs go on")
        # Where no terminal is watching, the live table ends without a newline.
        output.say("")
        if page is not None:
            page.write(reload_s=None)
            if page.path.exists():
                output.say(f"\nreport: {page.path}")
        return Outcome({"runs": [run.facts() for run in watched]})


class _Page:
    """The page that `--html` asks for: it loads itself again for as long as somebody watches."""

    def __init__(self, folders: tuple[Path, ...], path: Path, output: Output) -> None:
        self.path = path
        self._folders = folders
        self._output = output
        self._shown: tuple[int, int] = (-1, -1)
        self._written_at = 0.0

    def follow(self, watched: Sequence[WatchedRun]) -> None:
        """Write it anew where a run has another evaluation, or other steps for some time."""
        known = (sum(len(run.evaluations.rows) for run in watched), sum(len(run.steps.rows) for run in watched))
        is_due = time.monotonic() - self._written_at >= _PAGE_S
        if known[0] != self._shown[0] or (known != self._shown and is_due):
            self.write(reload_s=_PAGE_S)
            self._shown, self._written_at = known, time.monotonic()

    def write(self, *, reload_s: int | None) -> None:
        """The page as the folders are now; a row that is half written is waited for."""
        from covent.errors import StoreError
        from covent.report.page import write_report
        from covent.store.salvage import salvaged_run

        try:
            write_report([salvaged_run(folder) for folder in self._folders], self.path, reload_s=reload_s)
        except StoreError as error:
            self._output.warn(f"The page was not rewritten: {error}")
