"""The process that hands the rows of one run to one tracker: `python -m covent.trackers.child FOLDER TRACKER …`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from covent.errors import StoreError
from covent.stopping import end_with_parent
from covent.store.reader import read_header, read_status
from covent.trackers.kinds import Tracker, opened
from covent.trackers.unsent import FOLDER, Sent

CALL_S = 120.0
"""The longest that a tracker may take over opening, a batch of rows, or closing."""

_LOOK_EVERY_S = 1.0


def deliver(folder: Path, name: str, project: str, *, call_s: float = CALL_S, follow: bool) -> int:
    """Hand on all rows that the tracker does not have.

    Args:
        folder: run folder.
        name: of the tracker.
        project: under which the tracker files the run.
        call_s: deadline of a call; the process is killed at it, since a call that hangs cannot be ended otherwise.
        follow: go on until the run is no longer `running`; otherwise, until there is nothing left.
    Returns: rows handed on.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    sent, tracker, count = Sent.of(folder, name), None, 0
    while True:
        # Looked at first: what is written before the run ends is then still read.
        is_last = not (follow and _is_running(folder))
        points, ends = sent.next_rows(folder)
        if points:
            with _deadline(call_s):
                tracker = tracker or opened(name, folder, read_header(folder), project)
                for point in points:
                    tracker.log(point)
                tracker.flush()
            sent = Sent(num_bytes=ends)
            sent.save(folder, name)
            count += len(points)
        elif is_last:
            break
        else:
            time.sleep(_LOOK_EVERY_S)
    _close(tracker, call_s)
    return count


def _close(tracker: Tracker | None, call_s: float) -> None:
    if tracker is not None:
        with _deadline(call_s):
            tracker.close()


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """The kernel ends the process if the block takes longer: no call of a library can hold that up."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _is_running(folder: Path) -> bool:
    try:
        return read_status(folder).state == "running"
    except StoreError:
        return True


def main(words: list[str]) -> int:
    """The process of one tracker.

    Args:
        words: run folder, tracker, project, deadline of a call in seconds.
    """
    # Training has the processor first, and Ctrl-C in the terminal is the trainer's.
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    folder, name, project, call_s = Path(words[0]), words[1], words[2], float(words[3])
    try:
        deliver(folder, name, project, call_s=call_s, follow=True)
    except BaseException as error:
        sent = Sent.of(folder, name)
        with contextlib.suppress(OSError):
            sent.model_copy(update={"error": f"{type(error).__name__}: {error}"[:500]}).save(folder, name)
        raise
    return 0


if __name__ == "__main__":
    # A tracker's own threads and exit handlers may hang; everything that counts is on the disk.
    code = 1
    try:
        code = main(sys.argv[1:])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if code == 0:
            os._exit(0)
