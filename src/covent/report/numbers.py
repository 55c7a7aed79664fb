"""How numbers are written in the report: nats, percent, points, intervals. Minus signs are typographic."""

from __future__ import annotations

import re

from covent.logs import phrases
from covent.logs.phrases import typographic
from covent.logs.results import FitResult
from covent.report.accuracy import Difference
from covent.store.schema import Estimate

MISSING = "–"
"""Stands where a number was not measured or could not be computed."""


def plain(value: float | None, digits: int = 3) -> str:
    """Significant digits, without exponents for everyday sizes: 0.00895, 12.3, 54321, 1.2e−07."""
    if value is None:
        return MISSING
    size = abs(value)
    if size == 0:
        return "0"
    if 10**digits - 0.5 <= size < 1e7:
        text = f"{value:.0f}"
    elif 1e-4 <= size < 10**digits:
        text = f"{value:#.{digits}g}".rstrip(".")
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", "−")


def fixed(value: float | None, decimals: int = 2) -> str:
    """A fixed number of decimals: correlations, slopes, R²."""
    if value is None:
        return MISSING
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def signed(value: float | None, decimals: int = 2) -> str:
    """As `fixed`, always with a sign unless it rounds to zero."""
    text = fixed(value, decimals)
    return text if value is None or value < 0 or float(text) == 0 else f"+{text}"


def nats(value: float | None) -> str:
    """An entropy with its unit."""
    return MISSING if value is None else f"{plain(value)} nats"


def percent(value: float | None, decimals: int = 1) -> str:
    """A share as percent: 0.918 reads 91.8 %."""
    return MISSING if value is None else f"{fixed(100 * value, decimals)} %"


def share(value: float | None) -> str:
    """A share of any size as percent: 31 %, below 10 % with two significant digits: 0.0004 reads 0.040 %."""
    return MISSING if value is None else typographic(phrases.share(value))


def points(value: float | None) -> str:
    """A difference of two shares in percentage points."""
    return MISSING if value is None else f"{signed(100 * value, 1)} points"


def estimate(value: Estimate | None) -> str:
    """A proportion and its 95 % interval: 91.8 % [88.0, 94.5]."""
    if value is None:
        return MISSING
    return f"{percent(value.value)} [{fixed(100 * value.low, 1)}, {fixed(100 * value.high, 1)}]"


def ceiling(law: FitResult) -> str:
    """The ceiling of a law with its 95 % interval: 94.0 % [86.8, 98.4]."""
    return typographic(phrases.ceiling_text(law))


def difference(value: Difference | None) -> str:
    """A paired difference and its 95 % interval in points: +1.8 points [−0.2, +3.8]."""
    if value is None:
        return MISSING
    return f"{points(value.value)} [{signed(100 * value.low, 1)}, {signed(100 * value.high, 1)}]"


def times(value: float | None) -> str:
    """A ratio in words: 6.3 times."""
    return MISSING if value is None else f"{plain(value, 2)} times"


def factor(value: float | None) -> str:
    """A ratio: 5.9×, 0.41×."""
    return MISSING if value is None else f"{plain(value, 2)}×"


def unbroken(text: str) -> str:
    """The text with no-break spaces between a number and its unit, for a page that wraps."""
    return re.sub(r"(?<=\d) (?=(?:%|points|nats|steps|s|min|h)\b|%)", "\u00a0", text)


def minutes(seconds: float) -> str:
    """A duration: 34 s, 3 min 40 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
