"""Where a command speaks: to people in text, to programs in one JSON line."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import TaskID


PIPE_CLOSED = 141
"""Exit code where the reader of standard output has gone: 128 + SIGPIPE, as shells have it."""


@dataclass(frozen=True)
class Outcome:
    """What a command leaves behind for programs: facts that JSON can hold, and the exit code."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0


class Output:
    """Text for people goes to standard output; with `as_json` it moves to standard error and one JSON line follows."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._stdout = sys.stdout

    @cached_property
    def console(self) -> Console:
        """For text, tables and live progress."""
        from covent.cli.console import PlainConsole

        return PlainConsole(stderr=self.as_json)

    def say(self, *what: RenderableType) -> None:
        """Print for people. Lines are not wrapped, so that paths and commands can be copied."""
        for thing in what:
            self.console.print(thing, soft_wrap=True)

    def complain(self, message: str) -> None:
        """Print an error for people, on standard error."""
        self._aside("error: ", "bold red", message)

    @staticmethod
    def _aside(kind: str, style: str, message: str) -> None:
        from covent.cli.console import PlainConsole

        PlainConsole(stderr=True).aside(kind, style, message)

    def warn(self, message: str) -> None:
        """Print something that is allowed but rarely meant, on standard error."""
        self._aside("warning: ", "bold yellow", message)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str, int, int], None]]:
        """A live bar for each phase, while the block runs; call what it yields with (phase, done, total)."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        bars: dict[str, TaskID] = {}
        with Progress(*columns, console=self.console) as live:

            def tell(phase: str, done: int, total: int) -> None:
                if phase not in bars:
                    bars[phase] = live.add_task(phase, total=total)
                live.update(bars[phase], completed=done, total=total)

            yield tell

    def result(self, command: str, exit_code: int, facts: Mapping[str, Any]) -> None:
        """The JSON line, the last thing on standard output; nothing without `as_json`."""
        if self.as_json:
            line = json.dumps({"command": command, "exit_code": exit_code, **facts}, allow_nan=False)
            print(line, file=self._stdout, flush=True)

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """With `as_json`, what a library prints goes to standard error: standard output holds the line alone."""
        if not self.as_json:
            yield
            return
        with contextlib.redirect_stdout(sys.stderr):
            yield
