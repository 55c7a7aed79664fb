"""Options as help shows them, and calls that are wrong, each answered in one line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import get_type_hints

import tyro

from covent.errors import suggestion


def option(metavar: str, name: str | None = None) -> object:
    """What stands for the value in help, for an option whose text says what happens without it.

    Args:
        metavar: for example `FILE`.
        name: of the option, where the field cannot have it.
    """
    return tyro.conf.arg(metavar=metavar, name=name, help_behavior_hint="")


def unknown_word(words: Sequence[str], commands: Mapping[str, type]) -> str | None:
    """What to say of the first word that is no command or no option of its command; None if there is none.

    Args:
        words: after `covent`, with the command first.
        commands: the dataclass of each command by its name.

    Example:
        >>> unknown_word(["trian", "clock.yaml"], {"train": object, "report": object})
        "covent has no command 'trian'. Did you mean 'train'?"
    """
    if not words or words[0].startswith("-"):
        return None
    if words[0] not in commands:
        return f"covent has no command '{words[0]}'. {suggestion(words[0], list(commands))}"
    known = _options(commands[words[0]])
    for word in words[1:]:
        name = word.partition("=")[0].replace("_", "-")
        if name.startswith("--") and name not in known:
            return f"covent {words[0]} has no option {name}. {suggestion(name, known)}"
    return None


def repeated_option(words: Sequence[str], commands: Mapping[str, type]) -> str | None:
    """What to say of the first option that is given twice and may not be; None if there is none.

    Example:
        >>> repeated_option(["report", "runs/a", "--out=a.html", "--out", "b.html"], {"report": object})
        'The option --out is there twice; give it once.'
    """
    may = _repeatable(commands[words[0]]) if words and words[0] in commands else []
    names = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    twice = next((name for name in names if names.count(name) > 1 and name not in may), None)
    return None if twice is None else f"The option {twice} is there twice; give it once."


def one_line(box: str) -> str:
    """The text of tyro's boxes of an error without their frames, in one line."""
    lines = [re.sub(r"^[│╭╰─\s]+|[│╮╯─\s]+$", "", line) for line in box.splitlines()]
    text = " ".join(line for line in lines[1:] if line)
    text = re.sub(r"Argument helptext:.*?(?=For full)", "", text)
    return re.sub(r"For full helptext,? (run:?|see)", "More:", text.replace("(required) ", ""))


def _options(command: type) -> list[str]:
    """The options of a command, as a user writes them."""
    return ["--help", *(name for name, marks in _marked(command) if tyro.conf.Positional not in marks)]


def _repeatable(command: type) -> list[str]:
    """Those that add up when they are given several times."""
    return [name for name, marks in _marked(command) if tyro.conf.UseAppendAction in marks]


def _marked(command: type) -> list[tuple[str, tuple[object, ...]]]:
    """Every field of a command: its name as an option, and what tyro was told of it."""
    if not dataclasses.is_dataclass(command):
        return []
    hints = get_type_hints(command, include_extras=True)
    found = []
    for field in dataclasses.fields(command):
        marks: tuple[object, ...] = getattr(hints[field.name], "__metadata__", ())
        name = next((name for mark in marks if (name := getattr(mark, "name", None))), None) or field.name
        found.append(("--" + name.replace("_", "-"), marks))
    return found
