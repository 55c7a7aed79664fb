"""Curves that are a straight line once one shape parameter is fixed: y = level + change·g_θ(t), θ on a grid.

Entropy's decay, the saturating curve, a power of H and a line with a bend are of this kind. No optimizer is needed:
each θ is a generalised least-squares fit, and together with the correlation ρ of the noise, θ is integrated over
instead of being found and then trusted. Flat priors on level and change need g_θ to have range 1 over the points, so
that the change means the same for every θ.
"""

from __future__ import annotations

import numpy as np

from covent.law.correlated import COARSE_CORRELATIONS, CorrelatedDesign, CorrelatedFit
from covent.law.series import FloatArray

MOST_ROWS = 400
"""Longer series are averaged in blocks first, columns and response alike, which leaves the line as it is."""

FULL_RANK = 1e-6
"""Smallest share of a column's squares that the columns before it must leave unexplained: below, they are one."""


def family_fit(
    columns: FloatArray, response: FloatArray, *, gaps: FloatArray | None = None, precisions: FloatArray | None = None
) -> CorrelatedFit:
    """The mixture over all members of a family and all correlations.

    Args:
      columns: (K, n) the column g_θ of each member, or (K, n, q) several; a column of ones is added in front.
      response: (n,)
      gaps, precisions: as `covent.law.correlated.CorrelatedDesign`.
    """
    stacked = columns if columns.ndim == 3 else columns[:, :, np.newaxis]
    designs = np.concatenate([np.ones((*stacked.shape[:2], 1)), stacked], axis=2)
    if response.size > MOST_ROWS:
        designs, response, precisions = _block_means(designs, response, precisions)
        gaps = None
    shared = CorrelatedDesign(designs, gaps=gaps, precisions=precisions, correlations=COARSE_CORRELATIONS)
    return shared.fit(response)


def left_over(columns: FloatArray, given: FloatArray) -> FloatArray:
    """Share of the squares of each column about its mean that a straight line in `given` leaves unexplained.

    Below `FULL_RANK` the two columns cannot be told apart, and a fit with both means nothing.

    Args:
      columns: (K, n).
      given: (n,), not constant.

    Returns:
      (K,), in [0, 1]; 0 for a constant column.

    Example:
      >>> columns = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 0.0], [5.0, 5.0, 5.0]])
      >>> left_over(columns, np.array([1.0, 2.0, 3.0])).round(9).tolist()
      [0.0, 1.0, 0.0]
    """
    direction = given - np.mean(given)
    direction /= np.sqrt(direction @ direction)
    centred = columns - np.mean(columns, axis=1, keepdims=True)
    rest = centred - (centred @ direction)[:, None] * direction
    total = np.sum(centred**2, axis=1)
    shares = np.sum(rest**2, axis=1) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, shares, 0.0), dtype=np.float64)


def unit_range(columns: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Each row of (K, n) shifted and divided so that it runs from 0 to 1; with the shifts and the divisors, (K,)."""
    shifts, ranges = np.min(columns, axis=1), np.ptp(columns, axis=1)
    return (columns - shifts[:, None]) / ranges[:, None], shifts, ranges


def _block_means(
    designs: FloatArray, response: FloatArray, precisions: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted means over consecutive blocks, and the weight of each block."""
    weights = np.ones(response.size) if precisions is None else precisions
    size = int(np.ceil(response.size / MOST_ROWS))
    starts = np.arange(0, response.size, size)
    totals = np.add.reduceat(weights, starts)
    means = np.add.reduceat(designs * weights[:, None], starts, axis=1) / totals[:, None]
    return means, np.add.reduceat(response * weights, starts) / totals, totals
