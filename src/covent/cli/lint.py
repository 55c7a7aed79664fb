"""`covent lint`: what the config of a training engine will in fact do to entropy."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from covent.lint import Finding, Report

_STYLES = {"ERROR": "bold red", "WARNING": "bold yellow", "INFO": "bold cyan"}
_MOST = 1_000_000


@dataclass(frozen=True)
class Lint:
    """Say what a config of verl, SkyRL or TRL will in fact do to entropy: tokens chosen, controls that are off, traps.

    Exit code 3 after a warning, 4 after an error.
    """

    config: Annotated[tyro.conf.Positional[tuple[str, ...]], option("CONFIG [key=value ...]")] = ()
    """YAML, JSON, a shell script or a text of key=value lines; and settings on top, or settings alone."""
    engine: Annotated[Literal["verl", "verl-fork", "skyrl", "trl"] | None, option("verl|verl-fork|skyrl|trl")] = None
    """Whose config it is (verl-fork: the paper's own). If not given: told from its settings."""
    ranks: Annotated[int | None, option("INT")] = None
    """Data-parallel ranks. If not given: those of the config; TRL's says none, and 1 is taken."""
    mean_response: Annotated[int | None, option("INT")] = None
    """Tokens of a response in the mean. If not given: an eighth of the limit."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Read, check, print."""
        from covent.lint import exit_code, lint

        for name, number in (("--ranks", self.ranks), ("--mean-response", self.mean_response)):
            if number is not None and not 1 <= number <= _MOST:
                raise ConfigError(f"{name} is {number}; it must be a whole number from 1 to {_MOST:,}.")
        path, words = self._parts()
        report = lint(path, words, engine=self.engine, ranks=self.ranks, mean_response=self.mean_response)
        for part in _page(report):
            output.console.print(part)
        return Outcome(_facts(report), exit_code=exit_code(report.findings))

    def _parts(self) -> tuple[Path | None, list[str]]:
        """The file, if one is given, and the settings on top."""
        if not self.config:
            raise ConfigError("covent lint needs a config: covent lint run.sh, or covent lint a.b=value …")
        first, *rest = self.config
        if "=" in first and not Path(first).exists():
            return None, list(self.config)
        return Path(first), rest


def _page(report: Report) -> list[RenderableType]:
    """What is printed: what the config asks for, then each finding."""
    from rich.table import Table
    from rich.text import Text

    from covent.lint.summary import summary

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for topic, text in summary(report.setup, report.counts):
        table.add_row(f"  {topic}", text)
    page: list[RenderableType] = [report.source, table]
    for finding in report.findings:
        page += ["", _finding(finding)]
    page += ["", Text(_verdict(report))]
    return page


def _finding(finding: Finding) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    from covent.visible import visible

    level = finding.level.name
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, width=7)
    table.add_column()
    table.add_row(Text(level.lower(), style=_STYLES[level]), Text(visible(finding.text), style="bold"))
    table.add_row("", visible(finding.setting))
    for kind, text in (("why", finding.reason), ("set", finding.instead), ("from", finding.source)):
        if text:
            table.add_row(Text(kind.rjust(7), style="dim"), visible(text))
    return table


def _verdict(report: Report) -> str:
    numbers = [
        (sum(finding.level.name == level for finding in report.findings), word)
        for level, word in (("ERROR", "error"), ("WARNING", "warning"), ("INFO", "note"))
    ]
    told = [f"{number} {word}{'s' if number != 1 else ''}" for number, word in numbers if number]
    return ", ".join(told) + "." if told else "Nothing to say."


def _finite(counts: dict[str, object], realised: float) -> dict[str, object]:
    """The counts for JSON, which has no infinity: a share of 0 or less realises none."""
    numbers = {**counts, "realised": realised}
    return {
        name: None if isinstance(each, float) and not math.isfinite(each) else each for name, each in numbers.items()
    }


def _facts(report: Report) -> dict[str, object]:
    from covent.lint.summary import summary

    return {
        "config": report.source,
        "engine": report.setup.engine,
        "control": report.setup.control,
        "share_frac": report.setup.share_frac,
        "updates_per_rollout": report.setup.batch.updates_per_rollout,
        "counts": None if report.counts is None else _finite(asdict(report.counts), report.counts.realised),
        "summary": dict(summary(report.setup, report.counts)),
        "findings": [{**asdict(finding), "level": finding.level.name.lower()} for finding in report.findings],
    }
