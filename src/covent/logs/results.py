"""What the commands return for a log: the law fitted to its points, and what the fit rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.law import FormComparison, LawFit, Unit, compare_forms, fit
from covent.logs.read import read_logs
from covent.logs.run_folder import folder_series, is_run_folder
from covent.logs.series import FULL_PERCENT, Choice, LogSeries, log_series

Interval = tuple[float, float]


class FitResult(BaseModel):
    """The law R = -a·exp(H) + b of one log, or of several together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log: str
    """The file or folder; several joined by ` + `."""
    name: str
    """The run's name."""
    format: str
    metric: str
    """What R is."""
    entropy_metric: str
    """What H is."""
    entropy_definition: str
    """Which entropy: estimator, temperature, policy, weighting, token set; `?` where the log does not say."""
    join: str
    """How accuracies met entropies."""
    a: float | None
    """Unit of R; None where it could not be computed, and `warnings` says why."""
    b: float | None
    ceiling: float | None
    """b - a: the accuracy at zero entropy."""
    a_interval: Interval | None
    """95 %."""
    b_interval: Interval | None
    ceiling_interval: Interval | None
    naive_ceiling_interval: Interval | None
    """Under independent noise: too narrow on real runs."""
    r2: float | None
    rmse: float | None
    n: int
    identified: bool
    """Whether the points determine the law."""
    unit: Unit
    line_r2: float | None
    """R² of the rival, a straight line in H."""
    forms: str
    """Whether the points support the exponential form, in a sentence."""
    last_entropy: float | None
    """Entropy of the last point, nats."""
    last_accuracy: float | None
    warnings: list[str]


def all_series(paths: Sequence[Path], choice: Choice) -> list[LogSeries]:
    """The points of every run in every log, in the order given; run folders of covent are logs too.

    Raises:
        CoventError: as `read_logs`, `log_series` and `folder_series`.
    """
    found: list[LogSeries] = []
    for path in paths:
        if is_run_folder(path):
            found.append(folder_series(path, choice))
        else:
            runs = read_logs(path, step=choice.step, by=choice.by, run=choice.run)
            found += [log_series(run, choice) for run in runs]
    return found


def fit_result(series: LogSeries) -> FitResult:
    """The law fitted to one log."""
    return _result(series, compare_forms(series.entropy, series.accuracy, unit=series.unit), list(series.warnings))


def pooled_result(series: Sequence[LogSeries]) -> FitResult:
    """One law for the points of several logs, as fractions; not fitted where their entropies are not one quantity.

    The points of a log stay together and in order, logs follow one another, so that the noise model sees a jump only
    where a log ends.
    """
    warnings = definition_warnings(series)
    entropy = np.concatenate([one.entropy for one in series])
    accuracy = np.concatenate([_fractions(one) for one in series])
    if len({one.unit for one in series}) > 1:
        warnings.append("Percent were divided by 100: pooled numbers are fractions.")
    conflict = any(first.definition.conflicts(other.definition) for first in series for other in series)
    if conflict:
        warnings.insert(
            0, "Not pooled: the logs' entropies are defined differently, so one curve through them means nothing."
        )
        entropy, accuracy = entropy[:0], accuracy[:0]
    comparison = compare_forms(entropy, accuracy, unit="fraction")
    first = series[0]
    joined = LogSeries(
        name="pooled",
        source=Path(" + ".join(str(one.source) for one in series)),
        format=_shared([one.format for one in series]),
        kind=first.kind,
        accuracy_metric=_shared([one.accuracy_metric for one in series]),
        entropy_metric=_shared([one.entropy_metric for one in series]),
        definition=first.definition,
        unit="fraction",
        step=np.arange(entropy.size),
        entropy=entropy,
        accuracy=accuracy,
        join=_shared([one.join for one in series]),
        window_steps=1.0,
        entropy_steps=np.arange(0),
        entropies=np.zeros(0),
        others={},
        warnings=[],
    )
    result = _result(joined, comparison, warnings)
    definition = _shared([one.definition.text for one in series])
    return result.model_copy(update={"entropy_definition": definition, "last_entropy": None, "last_accuracy": None})


def definition_warnings(series: Sequence[LogSeries]) -> list[str]:
    """Where the entropies or accuracies of several logs are not one quantity, or not known to be."""
    warnings = []
    first = series[0]
    for other in series[1:]:
        conflicts = first.definition.conflicts(other.definition)
        if conflicts:
            warnings.append(f"Entropies of {first.name} and {other.name} differ: {'; '.join(conflicts)}.")
        if first.accuracy_metric != other.accuracy_metric:
            warnings.append(
                f"R is '{first.accuracy_metric}' in {first.name} and '{other.accuracy_metric}' in {other.name}."
            )
    unknown = sorted({part for one in series for part in one.definition.unknown})
    if unknown and len(series) > 1:
        warnings.append(f"Not every log says the {', '.join(unknown)} of its entropy, so agreement there is assumed.")
    return warnings


def shared_curve(series: Sequence[LogSeries]) -> tuple[float, float] | None:
    """Whether several logs lie on one curve: (rmse of one law for all, rmse with a law for each), as fractions.

    Returns:
        None where a log alone has no fit, or the logs cannot be pooled.
    """
    alone = [fit(one.entropy, _fractions(one), unit="fraction") for one in series]
    together = pooled_result(series)
    if together.rmse is None or any(one.rmse is None for one in alone):
        return None
    squares = sum(one.n * (one.rmse or 0.0) ** 2 for one in alone)
    return together.rmse, math.sqrt(squares / sum(one.n for one in alone))


def _fractions(series: LogSeries) -> NDArray[np.float64]:
    return series.accuracy / FULL_PERCENT if series.unit == "percent" else series.accuracy


def _shared(values: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _result(series: LogSeries, comparison: FormComparison, warnings: list[str]) -> FitResult:
    law: LawFit = comparison.law
    return FitResult(
        log=str(series.source),
        name=series.name,
        format=series.format,
        metric=series.accuracy_metric,
        entropy_metric=series.entropy_metric,
        entropy_definition=series.definition.text,
        join=series.join,
        a=law.a,
        b=law.b,
        ceiling=law.ceiling,
        a_interval=law.a_interval,
        b_interval=law.b_interval,
        ceiling_interval=law.ceiling_interval,
        naive_ceiling_interval=law.naive_ceiling_interval,
        r2=law.r2,
        rmse=law.rmse,
        n=law.n,
        identified=law.identified,
        unit=law.unit,
        line_r2=comparison.line.r2,
        forms=comparison.sentence,
        last_entropy=float(series.entropy[-1]) if len(series) else None,
        last_accuracy=float(series.accuracy[-1]) if len(series) else None,
        warnings=warnings + law.warnings,
    )
