"""Numbers as the findings say them."""

from __future__ import annotations


def percent(fraction: float) -> str:
    """A share in percent, without zeros that say nothing.

    Example:
      >>> percent(2e-4), percent(0.2), percent(0.000123)
      ('0.02 %', '20 %', '0.0123 %')
    """
    return f"{fraction * 100:.3g} %"


def tokens(number: float) -> str:
    """A number of tokens, with a decimal where there are few.

    Example:
      >>> tokens(1.64), tokens(0.0512), tokens(262144.0)
      ('1.6', '0.051', '262,144')
    """
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def times(number: float) -> str:
    """A factor.

    Example:
      >>> times(27.26), times(0.61), times(3.0)
      ('27', '0.61', '3')
    """
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"
