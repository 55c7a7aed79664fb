"""The trainer's side of its trackers: start their processes, look after them now and then, never wait for them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from covent.stopping import PARENT_VARIABLE
from covent.trackers.child import CALL_S
from covent.trackers.kinds import require
from covent.trackers.unsent import FOLDER, Sent

CLOSE_S = 10.0
"""How long the end of a run waits for its trackers."""

FIRST_WAIT_S = 10.0
LONGEST_WAIT_S = 600.0
"""A tracker that failed is tried again after this long: the first time, and at most."""


@contextlib.contextmanager
def watched(
    folder: Path, trackers: Sequence[str], project: str, warn: Callable[[str], None]
) -> Iterator[Callable[[], None]]:
    """While the block runs, rows of a run folder go to trackers; afterwards what they lack is said.

    Args:
        folder: run folder, whose status says `running` until the last row is there.
        trackers: names.
        project: under which they file the run.
        warn: called with what a tracker failed on, once for each reason.
    Yields: what to call now and then: it takes microseconds, and starts trackers again that have failed.
    """
    found = [_Watched(folder, name, project, warn) for name in trackers]

    def look() -> None:
        for each in found:
            each.look()

    try:
        look()
        yield look
    finally:
        deadline = time.monotonic() + CLOSE_S
        for each in found:
            each.close(deadline)


def check(trackers: Sequence[str]) -> None:
    """Raises: ConfigError, MissingExtraError: a tracker that cannot be used, before a run begins."""
    for name in trackers:
        require(name)


@dataclass
class _Watched:
    """One tracker of one run."""

    folder: Path
    name: str
    project: str
    warn: Callable[[str], None]
    _process: subprocess.Popen[bytes] | None = None
    _alive: int = -1
    """The end of a pipe that the process sees closed when this one is gone, however it went."""
    _not_before: float = 0.0
    _wait_s: float = FIRST_WAIT_S
    _said: set[str] = field(default_factory=set)

    def look(self) -> None:
        """Start the process if it is time to."""
        if self._process is not None and self._process.poll() is None:
            return
        now = time.monotonic()
        if self._process is not None:
            self._failed(self._process.returncode)
            self._not_before = now + self._wait_s
            self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        if now >= self._not_before:
            self._start()

    def close(self, deadline: float) -> None:
        """Wait for the last rows until the deadline, end the process, and say what is missing."""
        process = self._process
        if process is not None:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    # The tracker's own helpers too.
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            self._failed(process.returncode)
        missing = Sent.of(self.folder, self.name).num_missing(self.folder)
        if missing:
            self.warn(
                f"{self.name} lacks {missing} rows of this run; they are all in {self.folder}. To send them:"
                f" covent track {self.folder} {self.name}"
            )

    def _start(self) -> None:
        parent_end, child_end = os.pipe()
        try:
            (self.folder / FOLDER).mkdir(exist_ok=True)
            with (self.folder / FOLDER / f"{self.name}.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "covent.trackers.child"),
                        *(str(self.folder), self.name, self.project, str(CALL_S)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[parent_end],
                    env={**os.environ, PARENT_VARIABLE: str(parent_end)},
                    start_new_session=True,
                )
        except OSError as error:
            self._say(f"could not be started: {error}")
            self._not_before = time.monotonic() + self._wait_s
            os.close(child_end)
        else:
            self._alive = child_end
        finally:
            os.close(parent_end)

    def _failed(self, code: int) -> None:
        """Note how a process ended, and say so if it is news."""
        self._process = None
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1
        if code == -signal.SIGALRM:
            self._say(f"took longer than {CALL_S:g} s over one call")
        elif code == -signal.SIGKILL:
            self._say("was killed, or did not end")
        elif code:
            self._say(Sent.of(self.folder, self.name).error or f"ended with {code}")

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            self.warn(f"{self.name}: {reason}. The run goes on, and the tracker is tried again.")
