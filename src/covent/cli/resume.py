"""`covent resume`: go on with a run that was stopped, killed, or ran out of disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from covent.cli.extras import require_extra
from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.cli.train import tell_the_end


@dataclass
class Resume:
    """Go on with a run from its newest whole checkpoint, bit for bit; a run that has finished is left alone."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run folder, as `covent train` made it."""
    settings: Annotated[tyro.conf.Positional[tuple[str, ...]], option("key=value ...")] = ()
    """Settings that replace those of the run; each must be allowed by name."""
    allow: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], option("NAME")] = ()
    """What may differ from the run so far: a setting, a section, data, weights, hardware, versions. May be repeated."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Go on, then print the run in a few lines."""
        require_extra("train", "covent resume")
        from covent.stopping import on_signals

        with on_signals():
            from covent.train.resume import resume

            with output.progress() as progress:
                went_on = resume(self.folder, self.settings, self.allow, progress=progress, warn=output.warn)
        if not went_on:
            output.say(f"{self.folder} had finished; nothing was done")
        return tell_the_end(self.folder, output)
