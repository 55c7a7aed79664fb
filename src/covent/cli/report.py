"""`covent report`: run folders to one HTML page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError


@dataclass(frozen=True)
class Report:
    """Write one self-contained HTML page about run folders, and logs of other engines; it opens with no network."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("RUN ...")] = ()
    """Run folders to show side by side, and logs of any engine (CSV, TRL, verl, …), which come after them."""
    metric: Annotated[str | None, option("NAME")] = None
    """Of logs: metric that is the accuracy R. If not given: the validation accuracy."""
    entropy: Annotated[str | None, option("NAME")] = None
    """Of logs: metric that is the entropy H. If not given: the one the engine is known to log."""
    unit: Annotated[Literal["fraction", "percent"] | None, option("fraction|percent")] = None
    """Of logs: unit of R. If not given: told from the values, and said."""
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
        from covent.logs import Choice, all_series
        from covent.logs.phrases import law_text
        from covent.logs.run_folder import is_run_folder
        from covent.report.compare import labels
        from covent.report.page import write_page
        from covent.report.subject import subjects
        from covent.store.reader import read_run

        # What is a folder without run.json may be a log, and what is neither is told as a run folder that is missing.
        logs = [path for path in self.runs if path.exists() and not is_run_folder(path) and not _holds_runs(path)]
        runs = [read_run(path) for path in self.runs if path not in logs]
        choice = Choice(metric=self.metric, entropy=self.entropy, unit=self.unit)
        series = all_series(logs, choice) if logs else []
        shown = subjects(runs, series)
        summaries = [subject.summary for subject in shown if subject.summary is not None]
        write_page(shown, self.out)
        if runs:
            output.console.print(summary_table(labels(runs), summaries))
        results = [subject.fit for subject in shown if subject.run is None and subject.fit is not None]
        for result in results:
            output.say(f"{result.label}: {law_text(result)}")
        output.say(f"\nreport: {self.out}")
        facts = {"report": str(self.out), "runs": [summary.model_dump(mode="json") for summary in summaries]}
        return Outcome(facts | ({"logs": [result.model_dump(mode="json") for result in results]} if logs else {}))


def _holds_runs(folder: Path) -> bool:
    """Whether run folders lie in it: then its name was given for theirs, and the error about it names them."""
    return folder.is_dir() and any(folder.glob("*/run.json"))
