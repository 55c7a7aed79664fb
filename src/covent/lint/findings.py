"""What the linter says of a config: findings with a level, a reason, a source and what to set instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How much a finding matters; the largest one decides the exit code."""

    INFO = 0
    """Worth knowing; nothing is wrong."""
    WARNING = 1
    """It runs, but does something else or something weaker than its words say."""
    ERROR = 2
    """The control does nothing, does something else altogether, or the engine refuses the setting."""


EXIT_CODES = {Level.INFO: 0, Level.WARNING: 3, Level.ERROR: 4}
"""2 stays what it is everywhere: the call was wrong, or the file cannot be read."""


@dataclass(frozen=True)
class Finding:
    """One thing a config will do that its words do not say."""

    level: Level
    rule: str
    """Name of the rule, as in docs/lint.md."""
    setting: str
    """The setting it is about, with its value; `(default)` where the config does not say it."""
    text: str
    """What will happen."""
    reason: str
    """Why."""
    instead: str
    """What to set instead; empty where nothing needs to change."""
    source: str
    """Where that is known from: a paper's section, an engine's file, an issue."""


def exit_code(findings: Sequence[Finding]) -> int:
    """0 for information at most, 3 for warnings, 4 for errors.

    Example:
      >>> exit_code([])
      0
    """
    return EXIT_CODES[max((finding.level for finding in findings), default=Level.INFO)]
