"""Ordinary least squares of a straight line, in closed form. Every form of the law here is a line in some g(H)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covent.law.series import FloatArray

FLAT = 1e-12
"""A regressor whose range is below this share of its size is constant up to rounding."""


@dataclass(frozen=True, slots=True)
class Line:
    """y = intercept + slope·x by least squares, with what is needed to judge it."""

    intercept: float
    slope: float
    residuals: FloatArray
    r2: float | None
    """1 - (sum of squared residuals) / (sum of squares about the mean), weighted as the fit; None where y is constant
    over the points that count."""

    @property
    def rmse(self) -> float:
        """Root of the mean squared residual, over all n points (not n - 2)."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    def __call__(self, x: float) -> float:
        return self.intercept + self.slope * x


def is_flat(x: FloatArray) -> bool:
    """True when x has no range beyond rounding, so that no slope can be found."""
    return x.size == 0 or float(np.ptp(x)) <= FLAT * max(1.0, float(np.max(np.abs(x))))


def least_squares(x: FloatArray, y: FloatArray, precisions: FloatArray | None = None) -> Line:
    """The straight line with the least (weighted) sum of squared residuals.

        slope = Σw(x - x̄)(y - ȳ) / Σw(x - x̄)²,    intercept = ȳ - slope·x̄,    x̄ = Σwx/Σw

    Args:
      x: regressor, at least two points and not flat (see `is_flat`).
      y: response, same length.
      precisions: w >= 0, same length; None: all equal.
    """
    assert x.size >= 2 and not is_flat(x)
    w = np.full(x.size, 1.0 / x.size) if precisions is None else precisions / np.sum(precisions)
    x_mean, y_mean = float(w @ x), float(w @ y)
    x_centred, y_centred = x - x_mean, y - y_mean
    slope = float((w * x_centred) @ y_centred) / float((w * x_centred) @ x_centred)
    residuals = y_centred - slope * x_centred
    total = float((w * y_centred) @ y_centred)
    # Weights of 0, which a robust fit gives, can leave a y that is constant.
    r2 = None if total <= 0 or is_flat(y[w > 0]) else 1.0 - float((w * residuals) @ residuals) / total
    return Line(intercept=y_mean - slope * x_mean, slope=slope, residuals=residuals, r2=r2)
