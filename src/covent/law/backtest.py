"""Rolling origin: forecast a finished run from each of its earlier parts, and score it against what happened.

Always both: the conditional prediction, which is told the later entropy and tests the law, and the forecast, which is
not. Over several runs, errors and coverage are summed up by run, because points of one run err together: a hundred
later points of one run are closer to one observation than to a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law.correlated import Interval
from covent.law.forecast import Forecast, Prediction, StepEntropy, forecast
from covent.law.series import FloatArray, Unit
from covent.law.student import mixture_interval

LEVEL = 0.95

ORIGINS = (0.15, 0.3, 0.5, 0.7)
"""Shares of the run from which the rest is forecast; the first is the paper's 36 of 236 steps."""


class Score(BaseModel):
    """One kind of prediction, from one origin, over the rest of one run. None where it could not be made."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rmse: float | None
    end_error: float | None
    """Predicted minus observed at the end."""
    covered: float | None
    """Share of the later points inside their 95 % bands."""


class Origin(BaseModel):
    """All predictions from one origin."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fraction: float
    num_prefix: int
    num_later: int
    identified: bool
    conditional: Score
    forecast: Score
    unchanged: Score
    """The reference: accuracy stays where it was."""


class Backtest(BaseModel):
    """One run, from every origin."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    origins: list[Origin]
    unit: Unit


def backtest(
    step: ArrayLike,
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    num_steps: int,
    unit: Unit,
    fractions: Sequence[float] = ORIGINS,
    entropy_series: StepEntropy | None = None,
    window: float | None = None,
) -> Backtest:
    """`covent.law.forecast.forecast` from each origin.

    Args:
      fractions: the origins, as shares of the run.
      The others, Raises: as `forecast`.
    """
    ahead = [
        forecast(
            step,
            entropy,
            accuracy,
            num_steps=num_steps,
            fraction=fraction,
            unit=unit,
            entropy_series=entropy_series,
            window=window,
        )
        for fraction in fractions
    ]
    return Backtest(origins=[_origin(one) for one in ahead], unit=unit)


def _origin(ahead: Forecast) -> Origin:
    return Origin(
        fraction=ahead.fraction,
        num_prefix=ahead.num_prefix,
        num_later=len(ahead.later_steps),
        identified=ahead.identified,
        conditional=_score(ahead.conditional),
        forecast=_score(ahead.unconditional),
        unchanged=_score(ahead.unchanged),
    )


def _score(prediction: Prediction) -> Score:
    return Score(rmse=prediction.rmse, end_error=prediction.end_error, covered=prediction.covered)


class PooledScore(BaseModel):
    """One kind of prediction from one origin, over several runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    num_runs: int
    """Runs in which it could be made."""
    median_rmse: float | None
    mean_end_error: float | None
    """Predicted minus observed: its sign is the bias."""
    median_end_error: float | None
    """Of the absolute values."""
    coverage: float | None
    """Mean over runs of the share of later points inside their bands."""
    coverage_interval: Interval | None
    """95 % for that mean, by run: each run counts as one observation. None below two runs, and where all runs have the
    same share, so that nothing shows how much shares vary."""


class PooledOrigin(BaseModel):
    """All predictions from one origin, over several runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fraction: float
    conditional: PooledScore
    forecast: PooledScore
    unchanged: PooledScore


def pooled(backtests: Sequence[Backtest]) -> list[PooledOrigin]:
    """Error and coverage over several runs, each run one observation.

    Args:
      backtests: with the same origins and the same unit.

    Raises:
      FitError: no runs, or runs whose origins or units differ.
    """
    if not backtests:
        raise FitError("No runs to sum up; give at least one backtest.")
    first = backtests[0]
    fractions = [origin.fraction for origin in first.origins]
    for index, run in enumerate(backtests):
        if [origin.fraction for origin in run.origins] != fractions or run.unit != first.unit:
            raise FitError(f"backtests[{index}] has other origins or another unit than backtests[0]; use the same.")
    rows = [[run.origins[place] for run in backtests] for place in range(len(fractions))]
    return [
        PooledOrigin(
            fraction=fraction,
            conditional=_pool([origin.conditional for origin in row]),
            forecast=_pool([origin.forecast for origin in row]),
            unchanged=_pool([origin.unchanged for origin in row]),
        )
        for fraction, row in zip(fractions, rows, strict=True)
    ]


def _pool(scores: list[Score]) -> PooledScore:
    rmses = [score.rmse for score in scores if score.rmse is not None]
    ends = [score.end_error for score in scores if score.end_error is not None]
    covered = np.array([score.covered for score in scores if score.covered is not None])
    return PooledScore(
        num_runs=len(rmses),
        median_rmse=median(rmses) if rmses else None,
        mean_end_error=float(np.mean(ends)) if ends else None,
        median_end_error=median(abs(end) for end in ends) if ends else None,
        coverage=float(np.mean(covered)) if covered.size else None,
        coverage_interval=_mean_interval(covered) if covered.size >= 2 else None,
    )


def _mean_interval(values: FloatArray) -> Interval | None:
    """Student's interval for the mean of independent shares, within [0, 1]; None when all are equal."""
    centre, spread = float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(values.size))
    if spread == 0:
        return None
    low, high = mixture_interval(np.array([centre]), np.array([spread]), np.ones(1), values.size - 1, LEVEL)
    return max(low, 0.0), min(high, 1.0)
