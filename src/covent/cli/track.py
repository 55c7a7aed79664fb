"""`covent track`: send the rows of a run to a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import CoventError, TrackerError


@dataclass
class Track:
    """Send a run to trackio, wandb or TensorBoard: every row that the tracker does not have yet."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Run folder, finished or not."""
    tracker: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRACKER")]
    """trackio, wandb or tensorboard."""
    project: Annotated[str, option("NAME")] = "covent"
    """Under which the tracker files the run."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Send, then say how many rows."""
        from covent.store.reader import read_header
        from covent.trackers.child import deliver
        from covent.trackers.kinds import require

        require(self.tracker)
        read_header(self.folder)
        try:
            count = deliver(self.folder, self.tracker, self.project, follow=False)
        except Exception as error:  # whatever a tracker's library raises is about that tracker
            if isinstance(error, CoventError):
                raise
            reason = f"{self.tracker}: {type(error).__name__}: {error}"
            raise TrackerError(f"{reason}. Call again later: a batch of rows that failed is sent again.") from error
        output.say(f"{count} rows of {self.folder} sent to {self.tracker}" if count else f"{self.tracker} has them all")
        return Outcome({"run": str(self.folder), "tracker": self.tracker, "num_rows": count})
