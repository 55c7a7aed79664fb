"""A second, independent ceiling: accuracy as a saturating curve of compute, which does not look at entropy at all.

    R(C) = R0 + (A - R0)·s(C),    s(C) = 1/(1 + (C_mid/C)^B)

A is the ceiling, C_mid the compute at which half of the gain is won, B how sharply. For fixed B and C_mid it is a
straight line in s, whose value at s = 1 is A, so B and C_mid are a grid that is integrated over, like ρ.

Source: ScaleRL, arXiv 2510.13786. *Differs:* R0 is fitted unless given, and A has an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law.correlated import Interval
from covent.law.criterion import aicc
from covent.law.family import family_fit
from covent.law.fit import LawFit
from covent.law.line import Line, least_squares
from covent.law.series import (
    FULL_MARKS,
    FloatArray,
    Unit,
    aligned,
    check_accuracy,
    check_increasing,
    counted,
    gaps_of,
    in_percent,
    in_points,
)

LEVEL = 0.95

FEWEST_POINTS = 8
"""R0, A, C_mid and B with σ and ρ are six; the criterion exists from eight points."""

SHARPNESS: FloatArray = np.geomspace(0.5, 4.0, 13)
"""B, in steps of 19 %. ScaleRL's fits lie between 1.4 and 2.5."""

MIDPOINTS: FloatArray = np.geomspace(0.01, 2.0, 25)
"""C_mid in units of the largest compute, in steps of 25 %. Beyond twice the data less than half of the gain is seen."""

REFINEMENT = 21
"""Points a side of the finer grid on which the curve itself, not its interval, is found."""

UNSEEN = 0.1
"""Weight of the largest C_mid of the grid from which the data are said not to show where the curve saturates."""


class SaturatingFit(BaseModel):
    """R0, A, C_mid and B. None where the points are too few or accuracy does not rise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    start: float | None = None
    """R0: accuracy at no compute, unit of R."""
    ceiling: float | None = None
    """A."""
    ceiling_interval: Interval | None = None
    """95 %, over B, C_mid and ρ."""
    midpoint: float | None = None
    """C_mid, in the unit of the compute that was given."""
    sharpness: float | None = None
    """B."""
    rmse: float | None = None
    aicc: float | None = None
    """Under AR(1) noise, four coefficients; comparable with the law's, for the same points."""
    n: int
    identified: bool
    unit: Unit
    warnings: list[str]


def fit_saturating(compute: ArrayLike, accuracy: ArrayLike, *, unit: Unit) -> SaturatingFit:
    """The saturating curve that fits best, and an interval for its ceiling over all that fit.

    Args:
      compute: C > 0 of each point, increasing: GPU-hours, tokens or steps, shape (n,). ScaleRL drops the first part
        of a run (1,500 of 100,000 GPU-hours); leave it out yourself if you want the same.
      accuracy: R of each point in `unit`, shape (n,).
      unit: "fraction" or "percent".

    Raises:
      ShapeError, FitError: as `covent.law.fit.fit`; also for compute that is not positive or does not increase.

    Example:
      >>> c = np.arange(1.0, 41.0)
      >>> round(fit_saturating(c, 0.2 + 0.5 / (1 + (4.0 / c) ** 2), unit="fraction").ceiling, 2)
      0.7
    """
    spent, points_r = aligned(compute=compute, accuracy=accuracy)
    check_increasing("compute", spent)
    check_accuracy("accuracy", points_r, unit)
    if spent.size and spent[0] <= 0:
        raise FitError(f"compute[0] = {spent[0]:g}; the curve is one of ln C and needs C > 0. Leave the point out.")
    n = spent.size
    if n < FEWEST_POINTS:
        reason = f"Not identified: {counted(n, 'point')}; the saturating curve needs at least {FEWEST_POINTS}."
        return SaturatingFit(n=n, identified=False, unit=unit, warnings=[reason])
    powers, midpoints = (grid.ravel() for grid in np.meshgrid(SHARPNESS, MIDPOINTS * spent[-1], indexing="ij"))
    shares = 1 / (1 + (midpoints[:, None] / spent) ** powers[:, None])
    lows, ranges = shares[:, 0], shares[:, -1] - shares[:, 0]
    fitted = family_fit((shares - lows[:, None]) / ranges[:, None], points_r, gaps=gaps_of(spent))
    best = int(np.argmax(fitted.log_likelihoods))
    curve = _refined(spent, points_r, float(powers[best]), float(midpoints[best]))
    if curve.line.slope <= 0:
        reason = "Not identified: accuracy does not rise with compute."
        return SaturatingFit(n=n, identified=False, unit=unit, warnings=[reason])
    at_one = np.stack([np.ones_like(lows), (1 - lows) / ranges], axis=1)
    interval = fitted.interval(at_one, LEVEL)
    reasons = _doubts(interval, float(fitted.member_weights[midpoints == midpoints.max()].sum()), unit)
    return SaturatingFit(
        start=curve.line(0.0),
        ceiling=curve.line(1.0),
        ceiling_interval=interval,
        midpoint=curve.midpoint,
        sharpness=curve.sharpness,
        rmse=curve.line.rmse,
        aicc=aicc(fitted.log_likelihood, 4, n),
        n=n,
        identified=not reasons,
        unit=unit,
        warnings=reasons,
    )


@dataclass(frozen=True, slots=True)
class _Curve:
    sharpness: float
    midpoint: float
    line: Line
    """Accuracy over the share s."""


def _share(compute: FloatArray, sharpness: float, midpoint: float) -> FloatArray:
    return np.asarray(1 / (1 + (midpoint / compute) ** sharpness), dtype=np.float64)


def _refined(compute: FloatArray, accuracy: FloatArray, sharpness: float, midpoint: float) -> _Curve:
    """Least squares on a finer grid, one step of the coarse one to each side."""
    finer = np.linspace(-1, 1, REFINEMENT)
    curves = []
    for power in sharpness * (SHARPNESS[1] / SHARPNESS[0]) ** finer:
        for middle in midpoint * (MIDPOINTS[1] / MIDPOINTS[0]) ** finer:
            line = least_squares(_share(compute, float(power), float(middle)), accuracy)
            curves.append(_Curve(float(power), float(middle), line))
    return min(curves, key=lambda curve: curve.line.rmse)


def _doubts(interval: Interval, weight_at_end: float, unit: Unit) -> list[str]:
    doubts = []
    if weight_at_end >= UNSEEN:
        doubts.append(
            "Not identified: the curve has not begun to saturate; half of its gain may lie beyond the data, so its"
            " ceiling is open above."
        )
    elif interval[1] - interval[0] > FULL_MARKS[unit]:
        doubts.append("Not identified: the interval of the ceiling is wider than all possible accuracies.")
    return doubts


class TwoCeilings(BaseModel):
    """The ceiling from entropy beside the ceiling from compute."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    law: LawFit
    saturating: SaturatingFit
    difference: float | None
    """Law minus saturating, unit of R; None unless both are identified."""
    agree: bool | None
    """Their intervals overlap; None unless both are identified."""
    sentence: str
    """What to think of it."""


def two_ceilings(law: LawFit, saturating: SaturatingFit) -> TwoCeilings:
    """What to think when the ceiling from entropy and the ceiling from compute agree, and when they differ.

    The two use the same accuracies, but extrapolate along different axes: the law to zero entropy, the curve to endless
    compute. Where entropy stops falling, the law's ceiling is out of reach and lies above the curve's; where
    accuracy goes on at little entropy, it lies below.
    """
    if law.ceiling is None or saturating.ceiling is None or not (law.identified and saturating.identified):
        missing = [name for name, one in (("law", law), ("saturating curve", saturating)) if not one.identified]
        are = "are" if len(missing) > 1 else "is"
        sentence = f"No second opinion: the {' and the '.join(missing)} {are} not identified by these points."
        return TwoCeilings(law=law, saturating=saturating, difference=None, agree=None, sentence=sentence)
    assert law.ceiling_interval is not None and saturating.ceiling_interval is not None
    low = max(law.ceiling_interval[0], saturating.ceiling_interval[0])
    high = min(law.ceiling_interval[1], saturating.ceiling_interval[1])
    difference, agree = law.ceiling - saturating.ceiling, low <= high
    if agree:
        sentence = (
            f"Both ceilings agree: their intervals share {in_percent(low, law.unit)} to {in_percent(high, law.unit)}."
        )
    elif difference > 0:
        sentence = (
            f"The law's ceiling lies {in_points(difference, law.unit)} above the saturating curve's: accuracy levels"
            " off before entropy is spent. Either entropy has stopped falling, then the law's ceiling is out of reach"
            " as the run is going, or entropy goes on falling without gain, then the law has ended and the lower one is"
            " to be believed."
        )
    else:
        sentence = (
            f"The law's ceiling lies {in_points(-difference, law.unit)} below the saturating curve's: accuracy still"
            " rises with compute although little entropy is left to spend. If it goes on past the law's ceiling, the"
            " law has ended (entropy under control, or learning that does not cost entropy); until then believe neither"
            " alone."
        )
    return TwoCeilings(law=law, saturating=saturating, difference=difference, agree=agree, sentence=sentence)
