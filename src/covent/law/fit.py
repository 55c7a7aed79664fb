"""Fit the law R = -a·exp(H) + b to one run, and its rival beside it: a straight line in H.

Both forms have two coefficients, so over the narrow range of exp(H) that one run sees they are hard to tell apart.
`covent.law.rivals` says whether the data support the exponential or merely that accuracy is some function of entropy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.law.correlated import Interval, correlated_line, white_noise_line
from covent.law.criterion import aicc
from covent.law.curve import ceiling
from covent.law.drift import drift_at_equal_entropy
from covent.law.line import FLAT, is_flat, least_squares
from covent.law.series import FULL_MARKS, FloatArray, Points, Unit, checked_points, counted, in_percent, in_points

FEWEST_POINTS = 3
"""Two coefficients pass through any two points; the third is the first that can disagree."""

LEVEL = 0.95
"""Probability of every interval here."""

LEAST_RANGE_NATS = 1e-6
"""Entropies that differ by less are one: float32 log-probs resolve no more."""

HIGH_CORRELATION = 0.85
"""From this noise correlation on the intervals are said to be too narrow, for noise that remembers longer than a grid
up to 0.97 can hold is estimated from here up: table `hard` of docs/law.md has how often, and what they then cover."""


class LawFit(BaseModel):
    """R = -a·exp(H) + b fitted to one series. What could not be computed is None, and `warnings` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    a: float | None = None
    """Least squares, unit of R."""
    b: float | None = None
    ceiling: float | None = None
    """b - a: the accuracy at zero entropy."""
    a_interval: Interval | None = None
    """95 % interval that allows for AR(1) noise of unknown correlation (`covent.law.correlated`)."""
    b_interval: Interval | None = None
    ceiling_interval: Interval | None = None
    naive_ceiling_interval: Interval | None = None
    """95 % interval under independent noise: too narrow on real runs, given to show by how much."""
    noise_correlation: float | None = None
    """Correlation of neighbouring residuals, its mean given the data, on [-0.97, 0.97]."""
    r2: float | None = None
    """Share of the variance of R explained; smoothing points raises it by construction."""
    rmse: float | None = None
    """Root of the mean squared residual over the n points, unit of R."""
    aicc: float | None = None
    """Akaike's criterion, corrected for few points, under AR(1) noise; lower is better; None below 6 points."""
    n: int
    identified: bool
    """False when the points do not determine the law; `warnings` begins with the reason."""
    unit: Unit
    warnings: list[str]
    entropy_min: float | None = None
    """Smallest entropy among the points, nats: the ceiling is an extrapolation from there to 0."""
    entropy_max: float | None = None


class LineFit(BaseModel):
    """The rival R = intercept + slope·H fitted to the same series; its ceiling is the intercept."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    intercept: float | None = None
    slope: float | None = None
    intercept_interval: Interval | None = None
    """95 % interval, as for the law."""
    r2: float | None = None
    rmse: float | None = None
    aicc: float | None = None
    """Under the same noise model as the law's, so that the two may be subtracted."""
    n: int
    unit: Unit
    entropy_min: float | None = None
    entropy_max: float | None = None


def fit(
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    unit: Unit,
    step: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> LawFit:
    """The law fitted by least squares, with intervals that hold when neighbouring points err together.

        R = -a·exp(H) + b,    a = -Σw(x - x̄)(R - R̄) / Σw(x - x̄)²,    b = R̄ + a·x̄,    x = exp(H)

    "Not identified" is said when there are fewer than 3 points, when entropy is flat, when a is not positive, when
    entropy moved by less than 1e-6 nats, or so little for the noise that the 95 % interval of a reaches 0, when
    accuracy rises mainly at equal entropy, as it does where a control holds entropy, or when no accuracy in the
    interval of the ceiling is possible.

    Args:
      entropy: H of each point in nats, in the order of time (the noise model needs the order), shape (n,).
      accuracy: R of each point in `unit`, shape (n,).
      unit: "fraction" (0 to 1) or "percent" (0 to 100). Never guessed.
      step: training step of each point, increasing, shape (n,); points further apart are then less correlated. None:
        evenly spaced.
      weights: positive, in proportion to 1/variance of each accuracy, such as the number of answers behind it. None:
        all equal.

    Returns:
      The fit; a, b and what follows from them are None below 3 points and for constant entropy.

    Raises:
      ShapeError: the series differ in length or are not one-dimensional.
      FitError: a value is not finite, an entropy lies outside [0, 30], an accuracy outside its unit, steps do not
        increase, a weight is not positive; the message names the index.

    Source:
      arXiv 2505.22617, Eq. 6. *Differs:* the paper does not say how it fits and gives no interval.

    Example:
      >>> law = fit([0.0, 0.5, 1.0], [0.8, 0.670256, 0.456344], unit="fraction")
      >>> round(law.a, 3), round(law.b, 3), law.identified
      (0.2, 1.0, True)
    """
    points = checked_points(entropy, accuracy, unit, step, weights)
    points_h, points_r, n = points.entropy, points.accuracy, points.entropy.size
    x = np.exp(points_h)
    entropy_min, entropy_max = _span(points_h)
    if n < FEWEST_POINTS or is_flat(x):
        return LawFit(
            n=n,
            identified=False,
            unit=unit,
            warnings=[_why_no_fit(points_h)],
            entropy_min=entropy_min,
            entropy_max=entropy_max,
        )
    line = least_squares(x, points_r, points.weights)
    correlated = correlated_line(x, points_r, gaps=points.gaps, precisions=points.weights)
    naive = white_noise_line(x, points_r, points.weights)
    slope_low, slope_high = correlated.slope_interval(LEVEL)
    a, b = -line.slope, line.intercept
    a_interval = (-slope_high, -slope_low)
    ceiling_interval = correlated.value_interval(1.0, LEVEL)
    reasons = _why_not_identified(points_h, a, a_interval) + _why_law_does_not_apply(points, ceiling_interval, unit)
    return LawFit(
        a=a,
        b=b,
        ceiling=ceiling(a, b),
        a_interval=a_interval,
        b_interval=correlated.value_interval(0.0, LEVEL),
        ceiling_interval=ceiling_interval,
        naive_ceiling_interval=naive.value_interval(1.0, LEVEL),
        noise_correlation=correlated.fit.correlation,
        r2=line.r2,
        rmse=line.rmse,
        aicc=aicc(correlated.fit.log_likelihood, 2, n),
        n=n,
        identified=not reasons,
        unit=unit,
        warnings=reasons
        + _doubts(points_h, points_r, ceiling(a, b), ceiling_interval, unit)
        + ([] if reasons else _too_narrow(correlated.fit.correlation, line.rmse, points_r)),
        entropy_min=entropy_min,
        entropy_max=entropy_max,
    )


def fit_line(
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    unit: Unit,
    step: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> LineFit:
    """The rival of the law: R = intercept + slope·H by least squares.

    Args, Raises: as `fit`.

    Returns:
      The fit; coefficients are None below 3 points and for constant entropy.

    Example:
      >>> round(fit_line([0.0, 0.5, 1.0], [0.9, 0.7, 0.5], unit="fraction").slope, 6)
      -0.4
    """
    points = checked_points(entropy, accuracy, unit, step, weights)
    points_h, points_r, n = points.entropy, points.accuracy, points.entropy.size
    entropy_min, entropy_max = _span(points_h)
    if n < FEWEST_POINTS or is_flat(points_h):
        return LineFit(n=n, unit=unit, entropy_min=entropy_min, entropy_max=entropy_max)
    line = least_squares(points_h, points_r, points.weights)
    correlated = correlated_line(points_h, points_r, gaps=points.gaps, precisions=points.weights)
    return LineFit(
        intercept=line.intercept,
        slope=line.slope,
        intercept_interval=correlated.value_interval(0.0, LEVEL),
        r2=line.r2,
        rmse=line.rmse,
        aicc=aicc(correlated.fit.log_likelihood, 2, n),
        n=n,
        unit=unit,
        entropy_min=entropy_min,
        entropy_max=entropy_max,
    )


def _span(entropy: FloatArray) -> tuple[float, float] | tuple[None, None]:
    return (float(np.min(entropy)), float(np.max(entropy))) if entropy.size else (None, None)


def _why_no_fit(entropy: FloatArray) -> str:
    if entropy.size < FEWEST_POINTS:
        return f"Not identified: {counted(entropy.size, 'point')}; two coefficients need at least {FEWEST_POINTS}."
    return f"Not identified: entropy stays at {entropy[0]:.4g} nats, so its effect on accuracy cannot be seen."


def _why_not_identified(entropy: FloatArray, a: float, a_interval: Interval) -> list[str]:
    if a <= 0:
        return [
            f"Not identified: a = {a:.4g} is not positive, that is, accuracy does not rise where entropy falls; the"
            " law does not describe this run."
        ]
    if float(np.ptp(entropy)) < LEAST_RANGE_NATS:
        return [
            f"Not identified: entropy moved by {np.ptp(entropy):.2g} nats only, which is less than float32 log-probs"
            " resolve: what accuracy did meanwhile was not bought with it."
        ]
    if a_interval[0] <= 0:
        return [
            f"Not identified: entropy moved from {np.max(entropy):.4g} to {np.min(entropy):.4g} nats over"
            f" {counted(entropy.size, 'point')}, too little for the noise: the 95 % interval of a,"
            f" [{a_interval[0]:.3g}, {a_interval[1]:.3g}], includes 0."
        ]
    return []


def _why_law_does_not_apply(points: Points, ceiling_interval: Interval, unit: Unit) -> list[str]:
    reasons = []
    drift = drift_at_equal_entropy(points)
    if drift is not None and drift.outweighs_entropy:
        low, high = (100 * end / FULL_MARKS[unit] for end in drift.gain_interval)
        reasons.append(
            "Not identified: something besides entropy drives this run, such as a control that holds entropy, so the"
            f" law does not apply: at equal entropy accuracy rose by {in_points(drift.gain, unit)} over the run (95 %:"
            f" {low:.1f} to {high:.1f}), and entropy accounts for at most {in_points(drift.entropy_gain, unit)}."
        )
    if ceiling_interval[0] > FULL_MARKS[unit]:
        reasons.append(
            "Not identified: even the lower end of the ceiling's 95 % interval,"
            f" {in_percent(ceiling_interval[0], unit)}, is no possible accuracy, so the law cannot go on to zero"
            " entropy: it does not apply to this run."
        )
    return reasons


def _too_narrow(correlation: float, rmse: float, accuracy: FloatArray) -> list[str]:
    # What rounding leaves over is no noise.
    if correlation < HIGH_CORRELATION or rmse <= FLAT * float(np.max(np.abs(accuracy))):
        return []
    return [
        f"Neighbouring points err together (correlation {correlation:.2f}): from 0.95 on in truth, which cannot be told"
        " from this, the 95 % intervals are too narrow. Only further seeds tell how sure the ceiling is."
    ]


def _doubts(entropy: FloatArray, accuracy: FloatArray, top: float, top_interval: Interval, unit: Unit) -> list[str]:
    """What a reader of the ceiling should know, although the law could be fitted."""
    doubts = []
    full = FULL_MARKS[unit]
    if top > full and top_interval[0] <= full:
        doubts.append(
            f"Impossible accuracy: the ceiling of {in_percent(top, unit)} lies above 100 %, but its 95 % interval"
            f" reaches down to {in_percent(top_interval[0], unit)}: the points do not fix it."
        )
    if not top_interval[0] <= top <= top_interval[1]:
        doubts.append(
            f"The least-squares ceiling of {in_percent(top, unit)} lies outside its own 95 % interval,"
            f" {in_percent(top_interval[0], unit)} to {in_percent(top_interval[1], unit)}: the trend over the whole run"
            " and the trend between neighbours disagree."
        )
    reach = float(np.exp(np.min(entropy)) - 1.0)
    seen = float(np.ptp(np.exp(entropy)))
    if reach > seen:
        doubts.append(
            f"The ceiling is far from the data: entropy never fell below {np.min(entropy):.4g} nats, and exp(H) has"
            f" {reach / seen:.1f} times as far to go to the ceiling as it has moved."
        )
    if unit == "percent" and float(np.max(accuracy)) <= 1.0:
        doubts.append("No accuracy exceeds 1, although the unit is percent: are these fractions?")
    return doubts
