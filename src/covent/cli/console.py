"""The terminal of the commands: what it is given as text is data and cannot steer it."""

from __future__ import annotations

import contextlib
from typing import Any

from rich.console import Console
from rich.text import Text

from covent.cli.output import PIPE_CLOSED
from covent.visible import visible


class PlainConsole(Console):
    """A console without markup, emoji and highlighting, so that paths and a model's words stay as they are.

    Control characters are written out. Every string comes through `render_str`, those in tables too; a `Text` does not.
    """

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """The reader has seen enough: end without a word, and with the exit code that shells know."""
        with contextlib.suppress(SystemExit):
            super().on_broken_pipe()
        raise SystemExit(PIPE_CLOSED)

    def aside(self, kind: str, style: str, message: str) -> None:
        """A line that begins with what kind of message it is, not wrapped."""
        self.print(Text.assemble((kind, style), visible(message)), soft_wrap=True)
