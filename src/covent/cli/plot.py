"""`covent plot`: every plot of the report as a figure for a paper, and its table as CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError, suggestion


@dataclass(frozen=True)
class Plot:
    """Write the plots of run folders and logs as PDF, PNG or SVG figures (the plots extra), and their tables as CSV."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("RUN ...")] = ()
    """Run folders, and logs of other engines."""
    only: Annotated[str | None, option("NAME,…")] = None
    """Names of the plots that are wanted, for example law,covariance. If not given: all."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("figures")
    """Folder for the files; those of the same name are replaced."""
    pdf: bool = False
    """Figures as PDF."""
    png: bool = False
    """Figures as PNG."""
    svg: bool = False
    """Figures as SVG."""
    csv: bool = False
    """The table of each plot as CSV, with all digits."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Read the folders, draw, and name the files."""
        kinds: list[Literal["pdf", "png", "svg"]] = [kind for kind in ("pdf", "png", "svg") if getattr(self, kind)]
        if not self.runs:
            raise ConfigError("covent plot needs at least one run folder: covent plot runs/demo/grpo --pdf")
        if not kinds and not self.csv:
            raise ConfigError("covent plot needs to know what to write: --pdf, --png, --svg, --csv, or several.")
        from covent.cli.report import subjects_of
        from covent.report.figures import named_charts, require_matplotlib, write_csv, write_figure

        charts = named_charts(subjects_of(self.runs))
        wanted = self._wanted(list(charts))
        written = [write_csv(charts[name], self.out / f"{name}.csv") for name in wanted] if self.csv else []
        output.say(*map(str, written))
        if kinds:
            # Tables need no matplotlib, so they are there already.
            require_matplotlib(self.out)
        drawn = [write_figure(charts[name], self.out / f"{name}.{kind}") for name in wanted for kind in kinds]
        output.say(*map(str, drawn))
        return Outcome({"files": [str(path) for path in [*written, *drawn]]})

    def _wanted(self, names: list[str]) -> list[str]:
        """Raises: ConfigError when there is no plot at all, or one that is asked for is not among them."""
        from covent.report.sections import TEXTS

        if not names:
            raise ConfigError(
                f"There is nothing to draw: {' '.join(map(str, self.runs))} holds no rollout step and no point of the"
                " law. Wait until the run has made some, or name another."
            )
        if self.only is None:
            return names
        found: list[str] = []
        for asked in self.only.split(","):
            mine = [name for name in names if name == asked or name.rpartition("-")[0] == asked]
            if not mine and asked in TEXTS:
                raise ConfigError(f"--only: these runs have no plot '{asked}'. {TEXTS[asked][2]}")
            if not mine:
                raise ConfigError(f"--only: there is no plot '{asked}' of these runs. {suggestion(asked, names)}")
            found += mine
        return found
