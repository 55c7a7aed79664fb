"""The law's coefficients over model sizes: a and b as straight lines in the logarithm of the parameter count.

    a(N) = a0 + a1·ln N,    b(N) = b0 + b1·ln N,    ceiling(N) = b(N) - a(N)

From small models the law of a larger one can be foretold before it is trained. With three or four sizes the lines have
one or two degrees of freedom, and the intervals say how little that is.

Source: arXiv 2505.22617, section 2.5 and Fig. 7, with N without the embeddings. *Differs:* the paper gives no interval.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law.correlated import Interval
from covent.law.line import Line, is_flat, least_squares
from covent.law.series import FloatArray, Unit, aligned
from covent.law.student import mixture_interval

LEVEL = 0.95

FEWEST_SIZES = 2
"""Two sizes give a line without an interval; from three on there is one."""


class SizePrediction(BaseModel):
    """The law of a model of another size."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_parameters: float
    a: float
    b: float
    ceiling: float
    a_interval: Interval | None
    """95 % for the value that a run at this size would show, scatter between sizes included. None for two sizes."""
    b_interval: Interval | None
    ceiling_interval: Interval | None
    extrapolated: float
    """How far ln N lies outside the sizes, in units of their range: 0 inside, 1 as far again."""


class SizeScaling(BaseModel):
    """a and b over sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_parameters: list[float]
    a: list[float]
    b: list[float]
    a_slope: float
    """Change of a when ln N grows by 1, unit of R."""
    b_slope: float
    ceiling_slope: float
    a_rmse: float
    b_rmse: float
    unit: Unit
    warnings: list[str]

    def at(self, num_parameters: float) -> SizePrediction:
        """The law at a size, each coefficient with its prediction interval.

        Raises:
          FitError: the size is not positive.
        """
        if not num_parameters > 0:
            raise FitError(f"num_parameters is {num_parameters:g}; give a positive number of parameters.")
        sizes, a, b = np.log(self.num_parameters), np.array(self.a), np.array(self.b)
        place = float(np.log(num_parameters))
        outside = max(float(np.min(sizes)) - place, place - float(np.max(sizes)), 0.0)
        lines = {"a": least_squares(sizes, a), "b": least_squares(sizes, b), "ceiling": least_squares(sizes, b - a)}
        return SizePrediction(
            num_parameters=num_parameters,
            a=lines["a"](place),
            b=lines["b"](place),
            ceiling=lines["ceiling"](place),
            a_interval=_prediction_interval(lines["a"], sizes, place),
            b_interval=_prediction_interval(lines["b"], sizes, place),
            ceiling_interval=_prediction_interval(lines["ceiling"], sizes, place),
            extrapolated=outside / float(np.ptp(sizes)),
        )


def fit_sizes(num_parameters: ArrayLike, a: ArrayLike, b: ArrayLike, *, unit: Unit) -> SizeScaling:
    """The lines of a and b in ln N by ordinary least squares.

    Args:
      num_parameters: N of each size, in the paper without embeddings, shape (k,).
      a, b: of the law fitted at each size, shape (k,), in `unit`.

    Raises:
      ShapeError: the series differ in length.
      FitError: fewer than two different sizes, or one that is not positive.

    Example:
      >>> lines = fit_sizes([1e9, 2e9, 4e9], [10.0, 12.0, 14.0], [30.0, 40.0, 50.0], unit="percent")
      >>> round(lines.at(8e9).ceiling, 6)
      44.0
    """
    sizes, values_a, values_b = aligned(num_parameters=num_parameters, a=a, b=b)
    if sizes.size and np.min(sizes) <= 0:
        index = int(np.argmin(sizes))
        raise FitError(f"num_parameters[{index}] = {sizes[index]:g} is not positive.")
    if sizes.size < FEWEST_SIZES or is_flat(np.log(sizes)):
        raise FitError(f"{np.unique(sizes).size} different sizes; lines over size need at least {FEWEST_SIZES}.")
    places = np.log(sizes)
    line_a, line_b = least_squares(places, values_a), least_squares(places, values_b)
    return SizeScaling(
        num_parameters=sizes.tolist(),
        a=values_a.tolist(),
        b=values_b.tolist(),
        a_slope=line_a.slope,
        b_slope=line_b.slope,
        ceiling_slope=line_b.slope - line_a.slope,
        a_rmse=line_a.rmse,
        b_rmse=line_b.rmse,
        unit=unit,
        warnings=_warnings(np.unique(sizes).size),
    )


def _warnings(num_sizes: int) -> list[str]:
    if num_sizes == FEWEST_SIZES:
        return ["Two sizes always lie on a line: nothing says whether a third would, and there is no interval."]
    if num_sizes == FEWEST_SIZES + 1:
        return ["Three sizes leave one degree of freedom: the intervals are wide, and rightly so."]
    return []


def _prediction_interval(line: Line, places: FloatArray, place: float) -> Interval | None:
    """y ± t·s·√(1 + 1/k + (x - x̄)²/Σ(x - x̄)²) with k - 2 degrees of freedom."""
    k = places.size
    if k <= FEWEST_SIZES:
        return None
    centred = places - np.mean(places)
    spread = np.sqrt(float(line.residuals @ line.residuals) / (k - 2))
    reach = float(spread * np.sqrt(1 + 1 / k + (place - np.mean(places)) ** 2 / (centred @ centred)))
    if reach == 0:
        return line(place), line(place)
    return mixture_interval(np.array([line(place)]), np.array([reach]), np.ones(1), k - 2, LEVEL)
