"""Whether several algorithms, or several data sets, share one curve R = -a·exp(H) + b.

Two tests, because two things can make curves differ:

    by point   each group's a and b against common ones, under AR(1) noise within runs. It answers whether these runs
               lie on one curve; a seed that shifts a whole run counts as a difference.
    by run     the same curves with the labels of the runs exchanged. It answers whether the groups differ by more
               than runs of one group do, and needs two runs in each group at least.

With one run a group, only the first can be done, and a small p-value cannot tell an algorithm from a seed.

Source: arXiv 2505.22617, Figs. 6 (algorithms) and 13 (data); the paper compares by eye.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law.correlated import COARSE_CORRELATIONS, CorrelatedDesign, Interval
from covent.law.line import is_flat, least_squares
from covent.law.series import FloatArray, Unit, checked_points
from covent.law.student import f_survival

LEVEL = 0.95

SIGNIFICANT = 0.05

NUM_EXCHANGES = 2000

SEED = 0

FEWEST_POINTS = 3
"""Of each run: two coefficients and one point to disagree."""

Curve = tuple[ArrayLike, ArrayLike]
"""Entropies and accuracies of one run, in the order of time."""


class GroupCurve(BaseModel):
    """The curve of one group, all its runs together, under the noise model of all groups."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_runs: int
    n: int
    a: float
    b: float
    ceiling: float
    ceiling_interval: Interval
    """95 %, under AR(1) noise within runs; it does not contain what another seed would change."""


class SharedCurve(BaseModel):
    """One curve for all groups, or one for each."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    groups: dict[str, GroupCurve]
    a: float
    """Of the common curve, by least squares over all points."""
    b: float
    rmse_shared: float
    """About the common curve."""
    rmse_separate: float
    """About each group's own."""
    p_by_point: float
    """How probable a difference this large is if all points lie on one curve."""
    p_by_run: float | None
    """How probable it is if labels do not matter; None where a group has one run only."""
    unit: Unit
    sentence: str


@dataclass(frozen=True, slots=True)
class _Run:
    group: int
    x: FloatArray
    y: FloatArray


def shared_curve(groups: Mapping[str, Sequence[Curve]], *, unit: Unit) -> SharedCurve:
    """Test whether groups of runs share one curve.

        by point:  F = (Cβ)ᵀ(C·Cov·Cᵀ)⁻¹(Cβ)/q at each ρ, its p-value averaged over ρ;  C: differences of a and b from
                   the first group's, q = 2·(groups - 1)
        by run:    share of 2000 exchanges of labels that separate the runs' curves as well

    Args:
      groups: name → its runs, each (entropy, accuracy); two groups at least. A group is an algorithm, or a data set.
      unit: "fraction" or "percent", the same for all.

    Raises:
      FitError: fewer than two groups, a group without runs, a run with fewer than 3 points or flat entropy.
      ShapeError: a run's series differ in length.
    """
    if len(groups) < 2:
        raise FitError(f"{len(groups)} groups; a comparison needs at least two.")
    runs = [
        _checked_run(name, index, group, curve, unit)
        for group, (name, curves) in enumerate(groups.items())
        for index, curve in enumerate(_some(name, curves))
    ]
    x, y = np.concatenate([run.x for run in runs]), np.concatenate([run.y for run in runs])
    if x.size <= 2 * len(groups):
        raise FitError(f"{x.size} points in {len(groups)} groups; two coefficients a group leave none to disagree.")
    common = least_squares(x, y)
    curves, p_by_point, separate = _by_point(list(groups), runs, x, y)
    p_by_run = _by_run(runs) if all(len(curves) > 1 for curves in groups.values()) else None
    return SharedCurve(
        groups=curves,
        a=-common.slope,
        b=common.intercept,
        rmse_shared=common.rmse,
        rmse_separate=separate,
        p_by_point=p_by_point,
        p_by_run=p_by_run,
        unit=unit,
        sentence=_sentence(p_by_point, p_by_run),
    )


def _some(name: str, curves: Sequence[Curve]) -> Sequence[Curve]:
    if not curves:
        raise FitError(f"Group '{name}' has no runs.")
    return curves


def _checked_run(name: str, index: int, group: int, curve: Curve, unit: Unit) -> _Run:
    points = checked_points(*curve, unit)
    x = np.exp(points.entropy)
    if x.size < FEWEST_POINTS or is_flat(x):
        raise FitError(f"Run {index} of '{name}' has {x.size} points or flat entropy; leave it out.")
    return _Run(group, x, points.accuracy)


def _by_point(
    names: list[str], runs: list[_Run], x: FloatArray, y: FloatArray
) -> tuple[dict[str, GroupCurve], float, float]:
    """The groups' curves, the p-value of their differences, and the RMSE about them."""
    member = np.concatenate([np.full(run.x.size, run.group) for run in runs])
    begins = np.concatenate([[np.inf, *np.ones(run.x.size - 1)] for run in runs])
    num_groups, centre = len(names), float(np.mean(x))
    mine = (member[:, None] == np.arange(num_groups)).astype(np.float64)
    design = np.concatenate([mine, mine * (x - centre)[:, None]], axis=1)
    fitted = CorrelatedDesign(design, gaps=begins, correlations=COARSE_CORRELATIONS).fit(y)

    differences = np.concatenate([-np.ones((num_groups - 1, 1)), np.eye(num_groups - 1)], axis=1)
    contrasts = np.kron(np.eye(2), differences)
    gaps = np.einsum("qp,cp->cq", contrasts, fitted.coefficients)
    spreads = np.einsum("qp,cpr,sr->cqs", contrasts, fitted.covariances, contrasts)
    num_contrasts = contrasts.shape[0]
    f = np.einsum("cq,cq->c", gaps, np.linalg.solve(spreads, gaps[:, :, None])[:, :, 0]) / num_contrasts
    p_value = float(fitted.weights @ f_survival(np.maximum(f, 0.0), num_contrasts, fitted.dof))

    curves, squares = {}, 0.0
    for group, name in enumerate(names):
        line = least_squares(x[member == group], y[member == group])
        squares += float(line.residuals @ line.residuals)
        at_ceiling = np.zeros(2 * num_groups)
        at_ceiling[group], at_ceiling[num_groups + group] = 1.0, 1.0 - centre
        curves[name] = GroupCurve(
            num_runs=sum(run.group == group for run in runs),
            n=line.residuals.size,
            a=-line.slope,
            b=line.intercept,
            ceiling=line(1.0),
            ceiling_interval=fitted.interval(at_ceiling, LEVEL),
        )
    return curves, p_value, float(np.sqrt(squares / x.size))


def _by_run(runs: list[_Run]) -> float:
    """Share of exchanges, the one observed among them, under which groups explain as much of the runs' curves."""
    ends = np.quantile(np.concatenate([run.x for run in runs]), [0.25, 0.75])
    lines = [least_squares(run.x, run.y) for run in runs]
    values = np.array([[line(float(end)) for end in ends] for line in lines])
    spread = np.std(values, axis=0)
    values = (values - np.mean(values, axis=0)) / np.where(spread > 0, spread, 1.0)
    labels = np.array([run.group for run in runs])
    rng = np.random.default_rng(SEED)
    observed = _explained(values, labels)
    exchanged = [_explained(values, rng.permutation(labels)) for _ in range(NUM_EXCHANGES)]
    as_much = int(np.sum(np.array(exchanged) >= observed * (1 - 1e-9)))
    return (1 + as_much) / (1 + NUM_EXCHANGES)


def _explained(values: FloatArray, labels: NDArray[np.intp]) -> float:
    """Sum over groups of size times the squared distance of their mean from the grand mean, which is 0."""
    counts = np.bincount(labels)
    sums = np.stack([np.bincount(labels, column) for column in values.T], axis=1)
    return float(np.sum(sums**2 / counts[:, None]))


def _sentence(p_by_point: float, p_by_run: float | None) -> str:
    if p_by_point >= SIGNIFICANT:
        return f"One curve fits all runs: nothing speaks against it (p = {p_by_point:.2g} by point)."
    if p_by_run is None:
        return (
            f"The points do not lie on one curve (p = {p_by_point:.2g}), but with one run in a group this may be its"
            " seed. Repeat with more seeds."
        )
    if p_by_run >= SIGNIFICANT:
        return (
            f"The runs do not lie on one curve (p = {p_by_point:.2g} by point), but the groups differ no more than runs"
            f" of one group do (p = {p_by_run:.2g} by run)."
        )
    return f"The groups follow different curves (p = {p_by_point:.2g} by point, {p_by_run:.2g} by run)."
