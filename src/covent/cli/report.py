"""`covent report`: run folders to one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError, CoventError

if TYPE_CHECKING:
    from covent.logs import Choice
    from covent.report.subject import Subject
    from covent.store.reader import Run


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
        from covent.cli.summary import summary_tables
        from covent.logs import Choice
        from covent.logs.phrases import law_text
        from covent.report.compare import labels
        from covent.report.names import short
        from covent.report.page import write_page

        choice = Choice(metric=self.metric, entropy=self.entropy, unit=self.unit)
        shown, unread = readable_subjects(self.runs, choice)
        runs = [subject.run for subject in shown if subject.run is not None]
        summaries = [subject.summary for subject in shown if subject.summary is not None]
        write_page(shown, self.out, left_out=unread)
        for run, label in zip(runs, labels(runs), strict=True):
            for sentence in run.remarks:
                output.warn(f"{label}: {sentence}")
        for sentence in unread:
            output.warn(sentence)
        if runs:
            output.console.print(summary_tables(labels(runs), summaries, output.console.width))
        results = [subject.fit for subject in shown if subject.run is None and subject.fit is not None]
        for result in results:
            output.say(f"{short(result.label)}: {law_text(result)}")
        output.say(f"\nreport: {self.out}")
        facts = {"report": str(self.out), "runs": [summary.model_dump(mode="json") for summary in summaries]}
        return Outcome(facts | ({"logs": [result.model_dump(mode="json") for result in results]} if results else {}))


def subjects_of(paths: Sequence[Path]) -> list[Subject]:
    """Run folders, then logs of other engines.

    Raises:
        CoventError: one of them cannot be read.
    """
    from covent.logs import Choice, all_series
    from covent.report.subject import subjects
    from covent.store.reader import read_run

    logs = [path for path in paths if _is_log(path)]
    runs = [read_run(path) for path in paths if path not in logs]
    return subjects(runs, all_series(logs, Choice()) if logs else [])


def readable_subjects(paths: Sequence[Path], choice: Choice) -> tuple[list[Subject], list[str]]:
    """Run folders, then logs of other engines, as far as they can be read; and why some are left out.

    Raises:
        CoventError: a path does not exist, or nothing at all can be read.
    """
    from covent.logs import all_series
    from covent.report.subject import subjects
    from covent.store.salvage import salvaged_run

    runs: list[Run] = []
    logs: list[Path] = []
    errors: list[CoventError] = []
    for path in paths:
        try:
            if _is_log(path):
                # Alone: what is wrong with one log is not the others' fault.
                all_series([path], choice)
                logs.append(path)
            else:
                runs.append(salvaged_run(path))
        except CoventError as error:
            if not path.exists():
                raise
            errors.append(error)
    if errors and not runs and not logs:
        raise errors[0]
    return subjects(runs, all_series(logs, choice) if logs else []), [f"Left out: {error}" for error in errors]


def _is_log(path: Path) -> bool:
    """Whether another engine wrote it. A folder of run folders is no log: its name was given for theirs."""
    from covent.logs.run_folder import is_run_folder
    from covent.store.salvage import is_headless

    if not path.exists() or is_run_folder(path) or is_headless(path):
        return False
    return not (path.is_dir() and (not any(path.iterdir()) or any(path.glob("*/run.json"))))
