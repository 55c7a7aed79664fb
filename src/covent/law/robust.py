"""The law fitted so that a few broken points do not decide it: a failed evaluation, a step with a wrong entropy.

Least squares follows a single point far off the curve, most of all an early one, whose exp(H) is extreme. Here the
start is a median of slopes between distant points, which a few outliers cannot move, and a bisquare weight then refines
it: points further than 4.7 robust standard deviations from the curve count nothing.

It is a second opinion beside `covent.law.fit`, which keeps all points. Where the two differ, look at the points named.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.law.correlated import Interval, correlated_line
from covent.law.curve import ceiling
from covent.law.line import is_flat, least_squares
from covent.law.series import FloatArray, Unit, checked_points

FEWEST_POINTS = 6
"""Two coefficients, a spread, and enough points to call one an outlier."""

LEVEL = 0.95

BISQUARE = 4.685
"""Tuning constant of the bisquare in spreads: 95 % efficient under Gaussian noise."""

NORMAL_MAD = 0.6745
"""Median absolute deviation of a standard normal variable."""

ITERATIONS = 100

CONVERGED = 1e-10
"""Change of the fitted values, as a share of their spread, at which the iteration ends."""


class RobustFit(BaseModel):
    """R = -a·exp(H) + b with outliers set aside. None below 6 points and for flat entropy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    a: float | None = None
    b: float | None = None
    ceiling: float | None = None
    ceiling_interval: Interval | None = None
    """95 %, under AR(1) noise, from the points that are no outliers; it takes for granted that these were found."""
    spread: float | None = None
    """Robust standard deviation of the residuals, unit of R."""
    outliers: list[int]
    """Indices of the points that count nothing."""
    unit: Unit
    n: int


def fit_robust(entropy: ArrayLike, accuracy: ArrayLike, *, unit: Unit, step: ArrayLike | None = None) -> RobustFit:
    """The law by a bisquare M-estimate that starts from the median slope.

        start:   slope = median over i of (R_j - R_i)/(x_j - x_i),  x sorted, j half the points further on
        weight:  w = (1 - (r/(c·s))²)² for |r| < c·s, else 0;    s = median|r|/0.6745 at the start, kept

    Args, Raises: as `covent.law.fit.fit`.

    Source:
      Theil (1950) for the median of slopes; Beaton and Tukey (1974) for the bisquare.

    Example:
      >>> h = np.linspace(1.0, 0.1, 12)
      >>> r = 0.9 - 0.2 * np.exp(h)
      >>> r[0] = 0.0
      >>> robust = fit_robust(h, r, unit="fraction")
      >>> round(robust.a, 6), robust.outliers
      (0.2, [0])
    """
    points = checked_points(entropy, accuracy, unit, step)
    x, y, n = np.exp(points.entropy), points.accuracy, points.entropy.size
    if n < FEWEST_POINTS or is_flat(x):
        return RobustFit(outliers=[], unit=unit, n=n)
    residuals = _start(x, y)
    # Below rounding no residual is an outlier.
    spread = max(float(np.median(np.abs(residuals))) / NORMAL_MAD, 1e-12 * (float(np.max(np.abs(y))) or 1.0))
    for _ in range(ITERATIONS):
        weights = np.square(np.maximum(0.0, 1 - np.square(residuals / (BISQUARE * spread))))
        kept = weights > 0
        if is_flat(x[kept]):
            return RobustFit(outliers=np.flatnonzero(~kept).tolist(), spread=spread, unit=unit, n=n)
        line = least_squares(x, y, weights)
        moved = float(np.max(np.abs(line.residuals - residuals)))
        residuals = line.residuals
        if moved <= CONVERGED * spread:
            break
    interval = None
    if int(kept.sum()) >= FEWEST_POINTS:
        gaps = _gaps_between_kept(points.gaps, kept)
        interval = correlated_line(x[kept], y[kept], gaps=gaps).value_interval(1.0, LEVEL)
    return RobustFit(
        a=-line.slope,
        b=line.intercept,
        ceiling=ceiling(-line.slope, line.intercept),
        ceiling_interval=interval,
        spread=spread,
        outliers=np.flatnonzero(~kept).tolist(),
        unit=unit,
        n=n,
    )


def _start(x: FloatArray, y: FloatArray) -> FloatArray:
    """Residuals about the line through the medians: one slope for each pair, so each outlier spoils only one."""
    order = np.argsort(x, kind="stable")
    half = x.size // 2
    near, far = order[: x.size - half], order[half:]
    apart = x[far] > x[near]
    slope = float(np.median((y[far] - y[near])[apart] / (x[far] - x[near])[apart])) if apart.any() else 0.0
    left = y - slope * x
    return np.asarray(left - np.median(left), dtype=np.float64)


def _gaps_between_kept(gaps: FloatArray | None, kept: FloatArray) -> FloatArray | None:
    if kept.all():
        return gaps
    places = np.cumsum(np.ones(kept.size) if gaps is None else np.concatenate([[0.0], gaps[1:]]))
    return np.concatenate([[np.inf], np.diff(places[kept])])
