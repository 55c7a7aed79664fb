"""Names of runs, short enough to stand in a heading: what was left out of them is a matter of the page."""

from __future__ import annotations

from collections.abc import Sequence

MOST = 60
"""Characters of a name that are shown."""

_LAST = 20
"""Of these, how many are its last ones: names of one sweep often differ there."""


def short(name: str) -> str:
    """A name with its middle left out where it is longer than `MOST` characters.

    Example:
        >>> short("grpo"), short("a" * 3000 + " seed 1")
        ('grpo', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…aaaaaaaaaaaaa seed 1')
    """
    return name if len(name) <= MOST else f"{name[: MOST - _LAST - 1]}…{name[-_LAST:]}"


def all_short(names: Sequence[str]) -> list[str]:
    """As `short`, where equal names stay equal and others apart: those that would not are numbered."""
    wholes: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        wholes.setdefault(short(name), []).append(name)
    found = []
    for name in names:
        alike = wholes[short(name)]
        found.append(short(name) if len(alike) == 1 else f"{short(name)} ({alike.index(name) + 1})")
    return found
