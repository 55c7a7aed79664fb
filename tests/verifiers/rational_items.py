"""Right answers written in different ways, and wrong ones near them; truth by Python's own fractions."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from random import Random


def written(value: Fraction, rng: Random) -> str:
    """A rational number in one of the ways in which people and models write it."""
    sign = "-" if value < 0 else ""
    top, bottom = abs(value.numerator), value.denominator
    factor = rng.randint(1, 9)
    ways = [
        f"{sign}{top}/{bottom}",
        f"{sign}\\frac{{{top}}}{{{bottom}}}",
        f"\\dfrac{{{value.numerator * factor}}}{{{bottom * factor}}}",
        f"$ {sign}{top} / {bottom} $",
    ]
    if bottom == 1:
        ways += [f"{value.numerator}", f"{value.numerator}.0", f"{sign}{top:,}", f"{value.numerator}."]
    if value.denominator in (2, 4, 5, 8, 10):
        ways += [f"{float(value)}", f"{float(value):.6f}"]
    if top > bottom > 1:
        ways.append(f"{sign}{top // bottom}\\frac{{{top % bottom}}}{{{bottom}}}")
    return rng.choice(ways)


def rational_items(rng: Random, count: int) -> Iterator[tuple[str, str, Fraction]]:
    """(answer, truth, value): one number, written twice."""
    for _ in range(count):
        value = Fraction(rng.randint(-9_999, 9_999), rng.choice([1, 1, 1, 2, 3, 4, 5, 7, 8, 10, 12, 97]))
        yield written(value, rng), written(value, rng), value


def perturbed(value: Fraction, rng: Random) -> str:
    """Another number near it, written in the same ways: a sign, a digit, a term off."""
    steps = [Fraction(1), Fraction(-1), Fraction(1, 10), Fraction(1, 1_000), value, -2 * value, Fraction(10)]
    step = rng.choice([step for step in steps if step != 0])
    return written(value + step, rng)
