"""Stopping on a signal without tearing anything: a handler sets a flag, long work polls it, its owner saves and leaves.

Signals belong to the whole process, and so does the flag: `poll` needs no argument and does nothing while nobody has
asked to stop. Work that can take longer than a moment calls it wherever it can be abandoned.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import threading
from collections.abc import Iterator
from types import FrameType

HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""A run that hears one of them is saved. SIGHUP, of a terminal that closes, is not heard under `nohup`."""

PARENT_VARIABLE = "COVENT_PARENT_FD"
"""Names the read end of a pipe that a parent process holds open as long as it lives."""

_ORPHAN_GRACE_S = 1.0

_asked: signal.Signals | None = None
_listening = False


class Stopped(KeyboardInterrupt):
    """A signal asked the process to stop, and the work was at a place where it could be abandoned."""

    def __init__(self, asked: signal.Signals) -> None:
        super().__init__(asked.name)
        self.asked = asked

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP."""
        return 128 + int(self.asked)


def ask(asked: int) -> None:
    """Ask to stop, as a signal does."""
    global _asked
    _asked = signal.Signals(asked)


def poll() -> None:
    """Raise `Stopped` if someone has asked to stop."""
    if _asked is not None:
        raise Stopped(_asked)


@contextlib.contextmanager
def on_signals() -> Iterator[None]:
    """While the block runs, the first signal that is heard asks to stop, and a second one ends the process at once.

    The second is left to the operating system, so that it works inside a long call of a library too. A block inside a
    block changes nothing; in a thread that is not the main one, where Python allows no handlers, nor does this.
    """
    global _asked, _listening
    if _listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, _first_signal) for each in _heard()}
    _listening = True
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _listening, _asked = False, None


def _heard() -> list[signal.Signals]:
    """Whoever starts a command by `nohup` wants no closing terminal to end it."""
    return [each for each in HEARD if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


def _first_signal(asked: int, frame: object) -> None:
    for each in _heard():
        signal.signal(each, signal.SIG_DFL)
    if asked == signal.SIGHUP:
        _silence_lost_terminal()
    ask(asked)


def _silence_lost_terminal() -> None:
    """What is said to a terminal that is gone goes nowhere; writing there would fail, and hide why the process ends."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


def leave_on_interrupt() -> None:
    """From now on Ctrl-C ends the process at once and without a word: there is nothing to save yet."""
    signal.signal(signal.SIGINT, lambda asked, frame: os._exit(128 + asked))


def _raise_interrupt(asked: int, frame: FrameType | None) -> None:
    while frame is not None:
        # Extension modules that are being loaded swallow it, or are left half made.
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os._exit(128 + asked)
        frame = frame.f_back
    raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_raised() -> Iterator[None]:
    """While the block runs, Ctrl-C raises KeyboardInterrupt, even in a shell's background job, which ignores it; while
    a library is loaded it ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _raise_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Stop this process when the parent that started it, if it wants that, is gone: as on SIGTERM, then at once.

    A process beside this one watches, since a library that is being loaded lets no thread of this one run.
    """
    descriptor = os.environ.pop(PARENT_VARIABLE, "")
    if not descriptor:
        return
    ours, _theirs = os.pipe()
    if os.fork() == 0:
        _watch(os.getppid(), int(descriptor), ours)
    # `_theirs` stays open as long as this process lives.
    os.close(ours)
    os.close(int(descriptor))


def _watch(process: int, parent_alive: int, process_alive: int) -> None:
    """End a process when its parent is gone. Nobody ever writes to the pipes: they end with who holds them."""
    for each in HEARD:
        signal.signal(each, signal.SIG_IGN)
    first, second = sorted((parent_alive, process_alive))
    for low, high in ((0, first), (first + 1, second), (second + 1, 1024)):
        os.closerange(low, high)
    ended, _, _ = select.select([parent_alive, process_alive], [], [])
    if process_alive not in ended:
        os.kill(process, signal.SIGTERM)
        if not select.select([process_alive], [], [], _ORPHAN_GRACE_S)[0]:
            os.kill(process, signal.SIGKILL)
    os._exit(0)
