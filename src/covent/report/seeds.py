"""Statistics over training seeds: the interquartile mean, and its interval by a bootstrap within each task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

TRIMMED = 0.25
"""Share of the values that is left out at each end."""

NUM_DRAWS = 2000
LEVEL = 0.95
SEED = 0
"""An interval is a property of the data: the same runs give the same one."""

FEWEST = 3
"""Below it there is no interval: the bootstrap of two runs can only give the two runs themselves, and they lie on the
same side of the truth every second time."""

FEW = 5
"""With fewer runs the bootstrap is too narrow, and the page says so."""


class OverSeeds(BaseModel):
    """A statistic over runs with its 95 % interval."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float | None
    """None for fewer runs than `FEWEST`."""
    high: float | None
    values: list[float]
    """Of each run."""

    @property
    def num_runs(self) -> int:
        return len(self.values)


def interquartile_mean(values: ArrayLike, axis: int = -1) -> NDArray[np.float64]:
    """The mean of the middle half: of n values sorted, the floor(n / 4) at either end are left out.

    Less swayed by one run that failed than the mean, less wasteful than the median.

    Args:
        values: of any shape.
        axis: along which the values of the runs lie.

    Source: Agarwal et al. 2021, arXiv 2108.13264. With fewer than 4 values nothing is left out, and it is the mean.

    Example:
        >>> float(interquartile_mean([0.0, 0.4, 0.6, 9.0]))
        0.5
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=axis)
    n = ordered.shape[axis]
    cut = int(TRIMMED * n)
    return np.asarray(np.take(ordered, range(cut, n - cut), axis=axis).mean(axis=axis), dtype=np.float64)


def stratified_draws(sizes: Sequence[int]) -> NDArray[np.int64]:
    """[draws, runs] places of resampled runs; those of a task are drawn from the runs of that task alone.

    Args:
        sizes: runs of each task, which follow one another.
    """
    rng = np.random.default_rng(SEED)
    first = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    parts = [start + rng.integers(0, size, (NUM_DRAWS, size)) for start, size in zip(first, sizes, strict=True)]
    return np.concatenate(parts, axis=1)


def over_seeds(values: Sequence[Sequence[float]]) -> OverSeeds | None:
    """The interquartile mean over all runs, with the interval of a stratified bootstrap; None without runs.

    Args:
        values: for each task, one value a run.
    """
    kept = [list(each) for each in values if len(each)]
    flat = np.array([value for each in kept for value in each])
    if not flat.size:
        return None
    value = float(interquartile_mean(flat))
    if flat.size < FEWEST:
        return OverSeeds(value=value, low=None, high=None, values=flat.tolist())
    drawn = interquartile_mean(flat[stratified_draws([len(each) for each in kept])])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return OverSeeds(value=value, low=float(low), high=float(high), values=flat.tolist())


def curve_over_seeds(curves: NDArray[np.float64]) -> tuple[list[float], list[float], list[float]]:
    """Interquartile mean at each step, and the ends of its interval.

    Args:
        curves: [runs, steps], all runs of one task; at least `FEWEST`.
    """
    assert len(curves) >= FEWEST
    middle = interquartile_mean(curves, axis=0)
    drawn = interquartile_mean(curves[stratified_draws([len(curves)])], axis=1)
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return middle.tolist(), low.tolist(), high.tolist()
