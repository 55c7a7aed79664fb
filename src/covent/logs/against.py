"""Several logs against each other: one curve or several, and who is higher at the same entropy."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from covent.law import accuracy
from covent.law.series import FULL_MARKS
from covent.logs.results import FitResult, fit_result, pooled_result, shared_curve
from covent.logs.series import LogSeries


class ComparisonResult(BaseModel):
    """The laws of several logs, one law for all of them, and what that says."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    runs: list[FitResult]
    pooled: FitResult
    common_entropy: float | None
    """Middle of the entropies that all logs reach, nats; None where they have none in common."""
    accuracy_at_common: list[float | None]
    """R of each log's law at that entropy, as fractions."""
    pooled_rmse: float | None
    """Of one law for all, as a fraction."""
    separate_rmse: float | None
    """Of a law for each."""
    sentences: list[str]


def comparison(series: Sequence[LogSeries]) -> ComparisonResult:
    """Several logs side by side.

    Args:
        series: the points of at least two runs.

    Returns:
        No test is made: with one run a log, what differs between two logs may differ between two seeds.
    """
    runs = [fit_result(one) for one in series]
    pooled = pooled_result(series)
    common = _common_entropy(series)
    levels = [_level(run, common) for run in runs]
    rmse = shared_curve(series)
    return ComparisonResult(
        runs=runs,
        pooled=pooled,
        common_entropy=common,
        accuracy_at_common=levels,
        pooled_rmse=None if rmse is None else rmse[0],
        separate_rmse=None if rmse is None else rmse[1],
        sentences=_sentences(runs, common, levels, rmse),
    )


def _common_entropy(series: Sequence[LogSeries]) -> float | None:
    low = max(float(one.entropy.min()) for one in series)
    high = min(float(one.entropy.max()) for one in series)
    return (low + high) / 2 if low <= high else None


def _level(run: FitResult, entropy: float | None) -> float | None:
    if entropy is None or run.a is None or run.b is None:
        return None
    return float(accuracy(entropy, run.a, run.b)) / FULL_MARKS[run.unit]


def _sentences(
    runs: Sequence[FitResult],
    common: float | None,
    levels: Sequence[float | None],
    rmse: tuple[float, float] | None,
) -> list[str]:
    found = []
    if common is None:
        found.append("The logs have no entropy in common, so their curves can only be compared by extrapolation.")
    elif all(level is not None for level in levels):
        told = ", ".join(f"{run.name} {100 * (level or 0):.1f} %" for run, level in zip(runs, levels, strict=True))
        found.append(f"At the same entropy of {common:.3g} nats the laws give: {told}.")
    if rmse is not None:
        found.append(
            f"One curve for all misses the points by {100 * rmse[0]:.2f} points (RMSE), a curve for each by"
            f" {100 * rmse[1]:.2f}: "
            + (
                "the logs lie on one curve as far as these points can tell."
                if rmse[0] < 1.5 * rmse[1]
                else "not one curve."
            )
        )
    found.append("One run a log: a difference between two logs may be one between two seeds.")
    return found
