"""`covent train`: one run with the embedded trainer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import tyro

from covent.cli.extras import require_extra
from covent.cli.folders import next_free
from covent.cli.options import option
from covent.cli.output import Outcome, Output


@dataclass
class Train:
    """Train one run from a YAML file, for example `covent train recipes/clock.yaml steps=200`."""

    config: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CONFIG")]
    """Settings, a YAML file."""
    settings: Annotated[tyro.conf.Positional[tuple[str, ...]], option("key=value ...")] = ()
    """Settings that replace those of the file; a dot goes into a section."""
    out: Annotated[Path | None, option("DIR")] = None
    """Run folder to make. If not given: runs/NAME-OF-CONFIG, or the next free runs/NAME-OF-CONFIG-2, …"""
    skip_bad: bool = False
    """Leave out rows of the task's data that cannot be used, as task.skip_bad=true: they are counted and kept."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    @cached_property
    def folder(self) -> Path:
        """The run folder: as asked, or the next free one."""
        return self.out or next_free(Path("runs") / self.config.stem)

    def run(self, output: Output) -> Outcome:
        """Train, then print the run in a few lines."""
        require_extra("train", "covent train")
        from covent.stopping import on_signals

        with on_signals():
            from covent.train.config import config_warnings
            from covent.train.config_file import load_config
            from covent.train.run import train

            settings = [*self.settings, *(["task.skip_bad=true"] if self.skip_bad else [])]
            config = load_config(self.config, settings)
            for warning in config_warnings(config):
                output.warn(warning)
            with output.progress() as progress:
                train(config, self.folder, progress=progress, warn=output.warn)
        return tell_the_end(self.folder, output)


def tell_the_end(folder: Path, output: Output) -> Outcome:
    """A finished run in a few lines."""
    from covent.cli.summary import attribution_table, summary_table
    from covent.report.summary import summarise
    from covent.store.reader import read_run

    summary = summarise(read_run(folder))
    output.console.print(summary_table([summary.name], [summary]))
    if summary.attribution is not None:
        output.console.print("", attribution_table(summary.attribution))
    output.say(f"\nrun folder: {folder}\nits report: covent report {folder}")
    return Outcome({"run": str(folder), "summary": summary.model_dump(mode="json")})
