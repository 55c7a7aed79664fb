"""Several logs against each other: one curve or several, and who is higher at the same entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law import SharedCurve, accuracy, shared_curve
from covent.law.series import FULL_MARKS
from covent.logs.results import FitResult, fit_result, fractions, pooled_result
from covent.logs.series import LogSeries

MOST_COMPARED = 2000
"""With more points in all, the test of one curve is left out: it would take minutes."""


class ComparisonResult(BaseModel):
    """The laws of several logs, one law for all of them, and what that says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    runs: list[FitResult]
    pooled: FitResult
    common_entropy: float | None
    """Middle of the entropies that all logs reach, nats; None where they have none in common."""
    accuracy_at_common: list[float | None]
    """R of each log's law at that entropy, as fractions."""
    shared: SharedCurve | None
    """The test of one curve for all, as fractions; runs of one name are one group. None where it cannot be made."""
    sentences: list[str]


def comparison(series: Sequence[LogSeries]) -> ComparisonResult:
    """Several logs side by side.

    Args:
        series: the points of at least two runs. Runs that carry one name are one group, such as the seeds of a method.
    """
    runs = [fit_result(one) for one in series]
    pooled = pooled_result(series)
    common = _common_entropy(series)
    levels = [_level(run, common) for run in runs]
    shared, refusal = _shared(series, pooled)
    return ComparisonResult(
        runs=runs,
        pooled=pooled,
        common_entropy=common,
        accuracy_at_common=levels,
        shared=shared,
        sentences=[_at_common(runs, common, levels), refusal if shared is None else shared.sentence],
    )


def _shared(series: Sequence[LogSeries], pooled: FitResult) -> tuple[SharedCurve | None, str]:
    """The test, or why there is none."""
    if pooled.n == 0:
        return None, "Whether the logs share one curve was not tested: their entropies are not one quantity."
    if pooled.n > MOST_COMPARED:
        return None, f"Whether the logs share one curve was not tested: there are more than {MOST_COMPARED} points."
    groups: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64]]]] = {}
    for one in series:
        groups.setdefault(one.name, []).append((one.entropy, fractions(one)))
    try:
        return shared_curve(groups, unit="fraction"), ""
    except FitError as error:
        return None, f"Whether the logs share one curve was not tested: {error}"


def _common_entropy(series: Sequence[LogSeries]) -> float | None:
    low = max(float(one.entropy.min()) for one in series)
    high = min(float(one.entropy.max()) for one in series)
    return (low + high) / 2 if low <= high else None


def _level(run: FitResult, entropy: float | None) -> float | None:
    if entropy is None or run.a is None or run.b is None:
        return None
    return float(accuracy(entropy, run.a, run.b)) / FULL_MARKS[run.unit]


def _at_common(runs: Sequence[FitResult], common: float | None, levels: Sequence[float | None]) -> str:
    if common is None:
        return "The logs have no entropy in common, so their curves can only be compared by extrapolation."
    told = [f"{run.label} {100 * level:.1f} %" for run, level in zip(runs, levels, strict=True) if level is not None]
    return f"At the same entropy of {common:.3g} nats the laws give: {', '.join(told) or 'nothing'}."
