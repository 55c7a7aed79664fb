"""What every command and the report say of the law of a run, in one place, so that two of them never disagree."""

from __future__ import annotations

import re

from covent.law.series import FULL_MARKS, in_percent
from covent.logs.results import FitResult


def law_text(law: FitResult) -> str:
    """The law of a run in sentences: the curve, its ceiling, and everything that speaks for and against it."""
    if law.a is None or law.b is None or law.ceiling is None or law.r2 is None:
        return " ".join(law.verdict) or "It could not be fitted."
    curve = curve_text(law)
    match = f"R² {law.r2:.3f} over {law.n} points"
    if law.line_r2 is not None:
        match += f", {law.line_r2:.3f} for a straight line in H"
    if not law.identified:
        return typographic(" ".join([*law.verdict, f"The curve {curve} ({match}) carries no weight."]))
    return typographic(" ".join([f"{curve}: a ceiling of {ceiling_text(law)} at zero entropy; {match}.", *law.verdict]))


def curve_text(law: FitResult) -> str:
    """The law with its constants: R = −2.51·exp(H) + 3.45."""
    assert law.a is not None and law.b is not None
    return typographic(f"R = {_three(-law.a)}·exp(H) {'+' if law.b >= 0 else '-'} {_three(abs(law.b))}")


def ceiling_text(law: FitResult) -> str:
    """The ceiling with its 95 % interval, in percent: 94.0 % [86.8, 98.4]."""
    assert law.ceiling is not None
    if law.ceiling_interval is None:
        return in_percent(law.ceiling, law.unit)
    low, high = (100 * end / FULL_MARKS[law.unit] for end in law.ceiling_interval)
    return f"{in_percent(law.ceiling, law.unit)} [{low:.1f}, {high:.1f}]"


def share(value: float) -> str:
    """A share as percent: whole ones from 10 % on, below with two digits: 31 %, 5.0 %, 0.040 %.

    Example:
        >>> share(0.0498), share(0.31)
        ('5.0 %', '31 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if abs(percent) >= 9.95 or value == 0 else f"{percent:#.2g}".rstrip(".") + " %"


def nats(value: float) -> str:
    """An entropy with three digits, without its unit.

    Example:
        >>> nats(0.035)
        '0.0350'
    """
    return _three(value)


def typographic(sentence: str) -> str:
    """A sentence with typographic minus signs before its numbers."""
    return re.sub(r"(?<![\w.])-(?= ?\d)", "−", sentence)


def _three(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")
