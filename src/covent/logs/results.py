"""What the commands return for a log: the law fitted to its points, and what the fit rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.law import LawFit, Rivals, Unit, diagnose, fit, fit_robust, rivals
from covent.law.criterion import DECISIVE_AICC
from covent.law.series import FULL_MARKS, in_percent
from covent.logs.read import read_logs
from covent.logs.run_folder import folder_series, is_run_folder
from covent.logs.series import FULL_PERCENT, Choice, LogSeries, log_series

Interval = tuple[float, float]


MOST_DOUBTED = 2000
"""With more points the law is fitted, but neither its rivals nor what it leaves over: that would take seconds."""


class Rival(BaseModel):
    """One curve of entropy beside the law."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    ceiling: float | None
    """None for the logarithm, which has none."""
    ceiling_interval: Interval | None
    aicc: float
    weight: float
    """Share of support among the curves compared."""


class FitResult(BaseModel):
    """The law R = -a·exp(H) + b of one log, or of several together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    log: str
    """The file or folder; several joined by ` + `."""
    name: str
    """The run's name."""
    label: str
    """The name, with what tells it apart where several logs of one call have it."""
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
    noise_correlation: float | None
    """Correlation of neighbouring residuals; independent noise has 0."""
    line_r2: float | None
    """R² of a straight line in H, the law's nearest rival."""
    forms: str
    """Whether the points support the exponential form among its rivals, in a sentence."""
    rivals: list[Rival]
    """The law and its rivals, best first; empty where there are too few points, or more than `MOST_DOUBTED`."""
    diagnostics: list[str]
    """What the law leaves over, where it is clear: curvature, a bend, a drift at equal entropy."""
    outlier_steps: list[int]
    """Steps of the points that a robust fit sets aside."""
    last_entropy: float | None
    """Entropy of the last point, nats."""
    last_accuracy: float | None
    verdict: list[str]
    """What speaks for and against the law here, in sentences, most important first: why it is not identified or its
    ceiling impossible, whether a rival fits better, what it leaves over, whether entropy was under control."""
    warnings: list[str]

    @property
    def is_possible(self) -> bool:
        """Whether the ceiling is an accuracy that can be: at most 100 %."""
        return self.ceiling is not None and self.ceiling <= FULL_MARKS[self.unit]

    @property
    def is_beaten(self) -> bool:
        """Whether a rival fits better by an AICc that is clear."""
        mine = next((rival.aicc for rival in self.rivals if rival.name == "law"), None)
        return mine is not None and mine - self.rivals[0].aicc >= DECISIVE_AICC

    @property
    def is_sound(self) -> bool:
        """Whether a decision may rest on the ceiling: identified, possible, and no rival clearly better."""
        return self.identified and self.is_possible and not self.is_beaten


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
    return _told_apart(found)


def _told_apart(series: Sequence[LogSeries]) -> list[LogSeries]:
    """Labels for runs that share a name, such as the seeds of a method: the part of the path that differs."""
    alike: dict[str, list[Path]] = {}
    for one in series:
        alike.setdefault(one.name, []).append(one.source.absolute())
    return [
        one if len(alike[one.name]) == 1 else replace(one, label=f"{one.name} · {_own_part(one, alike[one.name])}")
        for one in series
    ]


def _own_part(one: LogSeries, others: Sequence[Path]) -> str:
    """The last part of the path that no other has; the whole path as given where there is none."""
    parts = zip(*(reversed(path.parts) for path in others), strict=False)
    place = next((place for place, column in enumerate(parts, start=1) if len(set(column)) == len(others)), None)
    return str(one.source) if place is None else one.source.absolute().parts[-place]


def fit_result(series: LogSeries) -> FitResult:
    """The law fitted to one log."""
    law = fit(series.entropy, series.accuracy, unit=series.unit, step=series.step)
    return _result(series, law, _doubts(series), list(series.warnings))


def pooled_result(series: Sequence[LogSeries], *, compared: bool = False) -> FitResult:
    """One law for the points of several logs, as fractions; not fitted where their entropies are not one quantity.

    The points of a log stay together and in order, logs follow one another, so far apart that the noise of one tells
    nothing of the next one's. Where the pooled ceiling lies outside its own interval, the logs do not follow one curve,
    and it is not identified.

    Args:
        series: at least one.
        compared: whether the law is also held against its rivals, on the same points.
    """
    warnings = definition_warnings(series)
    entropy = np.concatenate([one.entropy for one in series])
    accuracy = np.concatenate([fractions(one) for one in series])
    if len({one.unit for one in series}) > 1:
        warnings.append("Percent were divided by 100: pooled numbers are fractions.")
    conflict = any(first.definition.conflicts(other.definition) for first in series for other in series)
    if conflict:
        warnings.insert(
            0, "Not pooled: the logs' entropies are defined differently, so one curve through them means nothing."
        )
        entropy, accuracy = entropy[:0], accuracy[:0]
    step = _far_apart(series) if entropy.size else None
    law = one_curve(fit(entropy, accuracy, unit="fraction", step=step))
    doubts = _Doubts("Several logs are not tested for form together.")
    if compared and 0 < entropy.size <= MOST_DOUBTED:
        found = rivals(entropy, accuracy, unit="fraction", step=step)
        doubts = _Doubts(found.sentence, _told(found))
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
    result = _result(joined, law, doubts, warnings)
    definition = _shared([one.definition.text for one in series])
    return result.model_copy(update={"entropy_definition": definition, "last_entropy": None, "last_accuracy": None})


APART = 1e4
"""Typical distances between points from the end of one log to the start of the next: noise does not reach that far."""


def _far_apart(series: Sequence[LogSeries]) -> NDArray[np.float64]:
    """The steps of pooled points, in units of the usual distance in each log."""
    places: list[NDArray[np.float64]] = []
    start = 0.0
    for one in series:
        usual = float(np.median(np.diff(one.step))) if len(one) > 1 else 1.0
        places.append(start + (one.step - one.step[0]) / usual)
        start = float(places[-1][-1]) + APART
    return np.concatenate(places)


def one_curve(law: LawFit) -> LawFit:
    """The pooled law, not identified where its ceiling lies outside its own interval."""
    if law.ceiling is None or law.ceiling_interval is None or not law.identified:
        return law
    low, high = law.ceiling_interval
    if low <= law.ceiling <= high:
        return law
    reason = (
        f"Not identified: the logs do not follow one curve. Through all points the ceiling is"
        f" {in_percent(law.ceiling, law.unit)}, within the logs it is {in_percent(low, law.unit)} to"
        f" {in_percent(high, law.unit)}."
    )
    return law.model_copy(update={"identified": False, "warnings": [reason, *law.warnings]})


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


def fractions(series: LogSeries) -> NDArray[np.float64]:
    """The accuracies of a log as fractions, whatever its unit."""
    return series.accuracy / FULL_PERCENT if series.unit == "percent" else series.accuracy


def _shared(values: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(values))


@dataclass(frozen=True)
class _Doubts:
    """What speaks for other curves, and against this one."""

    forms: str
    rivals: list[Rival] = field(default_factory=list)
    diagnostics: list[str] = field(default_factory=list)
    outlier_steps: list[int] = field(default_factory=list)


def _doubts(series: LogSeries) -> _Doubts:
    if len(series) > MOST_DOUBTED:
        return _Doubts(f"With more than {MOST_DOUBTED} points the law was not compared with other curves.")
    compared = rivals(series.entropy, series.accuracy, unit=series.unit, step=series.step)
    found = diagnose(series.entropy, series.accuracy, unit=series.unit, step=series.step)
    robust = fit_robust(series.entropy, series.accuracy, unit=series.unit, step=series.step)
    return _Doubts(
        forms=compared.sentence,
        rivals=_told(compared),
        diagnostics=found.findings,
        outlier_steps=series.step[robust.outliers].tolist(),
    )


def _told(compared: Rivals) -> list[Rival]:
    return [
        Rival(
            name=form.name,
            ceiling=form.ceiling,
            ceiling_interval=form.ceiling_interval,
            aicc=form.aicc,
            weight=form.weight,
        )
        for form in compared.forms
    ]


def _line_r2(series: LogSeries) -> float | None:
    """Squared correlation of H and R; None where one of them is constant."""
    if len(series) < 3 or np.ptp(series.entropy) == 0 or np.ptp(series.accuracy) == 0:
        return None
    return float(np.corrcoef(series.entropy, series.accuracy)[0, 1] ** 2)


def _result(series: LogSeries, law: LawFit, doubts: _Doubts, warnings: list[str]) -> FitResult:
    under_control = _under_control(series)
    return FitResult(
        log=str(series.source),
        name=series.name,
        label=series.label or series.name,
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
        noise_correlation=law.noise_correlation,
        line_r2=_line_r2(series),
        forms=doubts.forms,
        rivals=doubts.rivals,
        diagnostics=doubts.diagnostics,
        outlier_steps=doubts.outlier_steps,
        last_entropy=float(series.entropy[-1]) if len(series) else None,
        last_accuracy=float(series.accuracy[-1]) if len(series) else None,
        verdict=_verdict(law, doubts, under_control),
        warnings=warnings + under_control + law.warnings,
    )


def _verdict(law: LawFit, doubts: _Doubts, under_control: list[str]) -> list[str]:
    """Where the law is not identified, nothing is said of its form: those sentences speak of the same fit."""
    of_the_form = [doubts.forms, *doubts.diagnostics] if law.identified else []
    return [*law.warnings, *of_the_form, *under_control]


def _under_control(series: LogSeries) -> list[str]:
    if series.control is None or not series.control.names:
        return []
    return [
        f"Entropy was under control ({' + '.join(series.control.names)}): the law is stated for runs that spend their"
        " entropy freely, so its ceiling is a description here and no limit."
    ]
