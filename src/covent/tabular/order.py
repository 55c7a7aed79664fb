"""In which order an error falls with the step size: medians over problems, and the slope between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from covent.errors import ConfigError
from covent.tabular.softmax import FloatArray

Verdict = Literal["exact", "first order", "fails"]

STEP_SIZES = tuple(float(size) for size in np.logspace(-1, -6, 11))
"""Half decades from 0.1 to 1e-6."""

ROUNDING = 1e-11
"""Relative errors up to here are rounding: a covariance of terms that cancel loses a few of float64's 16 digits."""

SLOPE_TOLERANCE = 0.05
"""How far a local slope may lie from 1 where the error falls linearly."""

DECADES_ASKED = 3.0
"""Decades of step sizes over which an error must fall linearly to be called first order."""


@dataclass(frozen=True)
class ErrorOrder:
    """Median relative error of a statement at each step size, largest step first."""

    step_sizes: tuple[float, ...]
    median_errors: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.step_sizes) != len(self.median_errors) or len(self.step_sizes) < 2:
            raise ConfigError(
                f"{len(self.step_sizes)} step sizes and {len(self.median_errors)} errors; there must be equally many,"
                " at least 2."
            )
        if not (np.diff(self.step_sizes) < 0).all() or self.step_sizes[-1] <= 0:
            raise ConfigError(f"step_sizes = {self.step_sizes}; they must fall and be positive.")

    @property
    def local_slopes(self) -> tuple[float, ...] | None:
        """d log(error) / d log(step size) between neighbours; None if an error is 0."""
        if min(self.median_errors) == 0.0:
            return None
        return tuple((np.diff(np.log(self.median_errors)) / np.diff(np.log(self.step_sizes))).tolist())

    @property
    def slope(self) -> float | None:
        """The order: slope of log error against log step size by least squares; None if an error is 0."""
        if min(self.median_errors) == 0.0:
            return None
        return float(np.polyfit(np.log(self.step_sizes), np.log(self.median_errors), 1)[0])

    @property
    def linear_decades(self) -> float:
        """Decades of step sizes, from the smallest up, over which every local slope is 1 to within 0.05."""
        reached = len(self.step_sizes) - 1
        for slope in reversed(self.local_slopes or ()):
            if abs(slope - 1.0) > SLOPE_TOLERANCE:
                break
            reached -= 1
        return float(np.log10(self.step_sizes[reached] / self.step_sizes[-1]))

    @property
    def verdict(self) -> Verdict:
        """`exact`: rounding at every step size. `first order`: linear over three decades. Otherwise `fails`."""
        if max(self.median_errors) <= ROUNDING:
            return "exact"
        # Three decades between two rounded step sizes may come out as 2.9999999.
        return "first order" if round(self.linear_decades, 6) >= DECADES_ASKED else "fails"


def error_order(
    relative_errors: Callable[[float], FloatArray], step_sizes: tuple[float, ...] = STEP_SIZES
) -> ErrorOrder:
    """The order of an error from its values on many problems at each step size.

    Medians, because the relative error of a problem whose covariance happens to be near 0 is large at any step size.

    Args:
      relative_errors: the errors of all problems at a step size, the same problems each time.
      step_sizes: largest first.

    Example:
      >>> quadratic = error_order(lambda size: np.array([size**2]))
      >>> round(quadratic.slope, 6), quadratic.verdict
      (2.0, 'fails')
    """
    medians = tuple(float(np.median(relative_errors(size))) for size in step_sizes)
    return ErrorOrder(tuple(step_sizes), medians)
