"""Proportions over problems with their intervals: what evaluations store."""

from __future__ import annotations

import math
from collections.abc import Sequence

from covent.store.schema import Estimate

_Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples is right.

        1 - C(n - c, k) / C(n, k)          n samples, c of them right

    Source: Chen et al. 2021, arXiv 2107.03374, Eq. 1.

    Example:
      >>> pass_at_k(4, 1, 1), pass_at_k(4, 1, 4)
      (0.25, 1.0)
    """
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def wilson(values: Sequence[float]) -> Estimate:
    """Mean of values in [0, 1], one a problem, with its 95 % Wilson score interval.

    The Wilson interval is for right-or-wrong values. A value in [0, 1] with mean p has at most their variance
    p (1 - p), so for averages over samples the interval is wider than it needs to be, never too narrow.

    Source: Wilson 1927.

    Example:
      >>> wilson([1.0] * 10).high, round(wilson([1.0] * 10).low, 3)
      (1.0, 0.722)
    """
    n = len(values)
    mean = sum(values) / n
    centre = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(mean * (1 - mean) / n + _Z**2 / (4 * n**2))
    return Estimate(value=mean, low=max(0.0, min(centre - half, mean)), high=min(1.0, max(centre + half, mean)))


def powers_of_two(limit: int) -> list[int]:
    """The k of pass@k: 1, 2, 4, … up to a limit."""
    return [2**i for i in range(limit.bit_length()) if 2**i <= limit]
