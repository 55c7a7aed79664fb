"""What the law leaves over: correlation of the residuals, curvature, a bend, and a drift in time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.law.correlated import CorrelatedFit, Interval, correlated_line
from covent.law.criterion import DECISIVE_AICC, aicc
from covent.law.drift import Drift, drift_at_equal_entropy
from covent.law.family import FULL_RANK, family_fit, left_over
from covent.law.line import is_flat, least_squares
from covent.law.series import FULL_MARKS, FloatArray, Points, Unit, checked_points

LEVEL = 0.95

FEWEST_POINTS = 10
"""A bend counts as four coefficients, the noise as two: with fewer points their AICc means nothing."""

BEND_COEFFICIENTS = 4
"""A change of slope, and a place that counts three times, because searching for it fits noise (Hall, Osborn and Sakkas
2013)."""

NUM_PLACES = 41
"""Candidate places of the bend."""

INNER = (0.1, 0.9)
"""They lie between these quantiles of exp(H), so that there are points to each side."""


MIDDLE = 0.05
"""Curvature needs a point at least here on the arch 4p(1 - p) over the range of exp(H), p from 0 to 1: about 1 % of the
range away from its ends."""


class Curvature(BaseModel):
    """How far the middle lies off the straight line in exp(H) that joins the ends."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sag: float
    """Accuracy in the middle of the range of exp(H) above what the law says, unit of R; its mean given the data."""
    sag_interval: Interval
    """95 %, under AR(1) noise."""

    @property
    def is_clear(self) -> bool:
        """The interval excludes 0."""
        return self.sag_interval[0] > 0 or self.sag_interval[1] < 0


class Bend(BaseModel):
    """Two straight lines in exp(H) that meet at one entropy, instead of one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    entropy: float
    """Where they meet best, nats."""
    entropy_interval: Interval
    """95 % of the places' weights."""
    a_above: float
    """a at higher entropies, that is, earlier in a run whose entropy falls; unit of R."""
    a_below: float
    """a at lower entropies."""
    aicc_gain: float
    """AICc of one line minus AICc of two: positive speaks for the bend."""

    @property
    def is_clear(self) -> bool:
        """Better by an AICc of 4."""
        return self.aicc_gain >= DECISIVE_AICC


class Diagnostics(BaseModel):
    """What the law leaves over. Parts are None where the points are too few or entropy is flat."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lag_one: float | None
    """Correlation of each least-squares residual with the one before, as it stands: biased downwards."""
    noise_correlation: float | None
    """The same, allowing for the fit: ρ given the data."""
    curvature: Curvature | None
    bend: Bend | None
    drift: Drift | None
    unit: Unit
    n: int
    findings: list[str]
    """What is clear, in words; empty when nothing speaks against the law."""


def diagnose(
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    unit: Unit,
    step: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Diagnostics:
    """Everything that the law leaves over in one run.

    Args, Raises: as `covent.law.fit.fit`.

    Example:
      >>> h = np.linspace(1.0, 0.1, 20)
      >>> kinked = 0.9 - 0.2 * np.exp(h) + 0.3 * np.maximum(0, np.exp(h) - 2)
      >>> diagnose(h, kinked, unit="fraction").bend.is_clear
      True
    """
    points = checked_points(entropy, accuracy, unit, step, weights)
    x, n = np.exp(points.entropy), points.entropy.size
    if n < FEWEST_POINTS or is_flat(x):
        return Diagnostics(
            lag_one=None, noise_correlation=None, curvature=None, bend=None, drift=None, unit=unit, n=n, findings=[]
        )
    correlated = correlated_line(x, points.accuracy, gaps=points.gaps, precisions=points.weights).fit
    residuals = least_squares(x, points.accuracy, points.weights).residuals
    squares = float(residuals @ residuals)
    curvature, bend, drift = _curvature(points, x), _bend(points, x, correlated), drift_at_equal_entropy(points)
    return Diagnostics(
        lag_one=float(residuals[1:] @ residuals[:-1]) / squares if squares > 0 else None,
        noise_correlation=correlated.correlation,
        curvature=curvature,
        bend=bend,
        drift=drift,
        unit=unit,
        n=n,
        findings=_findings(curvature, bend, drift, unit),
    )


def _curvature(points: Points, x: FloatArray) -> Curvature | None:
    place = (x - np.min(x)) / np.ptp(x)
    arch = 4 * place * (1 - place)
    # Over a wide range of entropies all points but one or two lie at the lower end of exp(H).
    if np.max(arch) < MIDDLE or left_over(arch[None], place)[0] <= FULL_RANK:
        return None
    columns = np.stack([place, arch], axis=1)[np.newaxis]
    fitted = family_fit(columns, points.accuracy, gaps=points.gaps, precisions=points.weights)
    return Curvature(
        sag=float(fitted.weights @ fitted.coefficients[:, 2]),
        sag_interval=fitted.interval(np.array([0.0, 0.0, 1.0]), LEVEL),
    )


def _bend(points: Points, x: FloatArray, straight: CorrelatedFit) -> Bend | None:
    low, high = np.quantile(x, INNER)
    if low <= np.min(x) or high >= np.max(x) or low >= high:
        return None
    places = np.linspace(low, high, NUM_PLACES)
    beyond = np.maximum(0.0, x - places[:, None])
    if np.min(left_over(beyond, x)) <= FULL_RANK:
        return None
    columns = np.stack([np.broadcast_to(x - np.min(x), beyond.shape), beyond], axis=2) / np.ptp(x)
    fitted = family_fit(columns, points.accuracy, gaps=points.gaps, precisions=points.weights)
    one, two = aicc(straight.log_likelihood, 2, x.size), aicc(fitted.log_likelihood, 2 + BEND_COEFFICIENTS, x.size)
    assert one is not None and two is not None, "FEWEST_POINTS is chosen so"
    best = int(np.argmax(fitted.log_likelihoods))
    mine = fitted.members == best
    share = fitted.weights[mine] / np.sum(fitted.weights[mine])
    _, below, change = share @ fitted.coefficients[mine] / np.ptp(x)
    cumulative = np.cumsum(fitted.member_weights)
    ends = np.searchsorted(cumulative, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).clip(0, NUM_PLACES - 1)
    return Bend(
        entropy=float(np.log(places[best])),
        entropy_interval=(float(np.log(places[ends[0]])), float(np.log(places[ends[1]]))),
        a_above=-float(below + change),
        a_below=-float(below),
        aicc_gain=one - two,
    )


def _findings(curvature: Curvature | None, bend: Bend | None, drift: Drift | None, unit: Unit) -> list[str]:
    found, points = [], 100 / FULL_MARKS[unit]
    if bend is not None and bend.is_clear:
        found.append(
            f"The law bends at H = {bend.entropy:.3g} nats (95 %: {bend.entropy_interval[0]:.3g} to"
            f" {bend.entropy_interval[1]:.3g}): a is {bend.a_above:.3g} above and {bend.a_below:.3g} below. The ceiling"
            " follows from the part below."
        )
    elif curvature is not None and curvature.is_clear:
        found.append(
            f"Curvature is left over: in the middle accuracy lies {points * curvature.sag:+.1f} points off the"
            f" law (95 %: {points * curvature.sag_interval[0]:+.1f} to {points * curvature.sag_interval[1]:+.1f})."
        )
    if drift is not None and drift.is_clear:
        found.append(
            f"At equal entropy accuracy changed by {points * drift.gain:+.1f} points over the run (95 %:"
            f" {points * drift.gain_interval[0]:+.1f} to {points * drift.gain_interval[1]:+.1f}), which no function of"
            " entropy gives."
        )
    return found
