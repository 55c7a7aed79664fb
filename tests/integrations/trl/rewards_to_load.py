"""Reward functions for runs of TRL, loaded by a child."""

from __future__ import annotations

import time
from typing import Any


def low_digits(completions: list[str], **_: Any) -> list[float]:
    """Share of the words that are digits below 5, as in `tests.support.tiny_trl`, which a child need not load."""
    return [
        sum(word.isdigit() and int(word) < 5 for word in text.split()) / max(1, len(text.split()))
        for text in completions
    ]


def starts_low(completions: list[str], **_: Any) -> list[float]:
    """1 if the first word is a digit below 5; raises for some of the completions of a random model."""
    if any(text.startswith("7") for text in completions):
        raise ValueError("seven")
    return [float(text[:1].isdigit() and int(text[:1]) < 5) for text in completions]


def raises_at_seven(completions: list[str], **_: Any) -> list[float]:
    """For some of the completions of a random model."""
    if any(text.startswith("7") for text in completions):
        raise ValueError("seven")
    return low_digits(completions)


def hangs_at_seven(completions: list[str], **_: Any) -> list[float]:
    """As long as a test would wait."""
    if any(text.startswith("7") for text in completions):
        time.sleep(600)
    return low_digits(completions)
