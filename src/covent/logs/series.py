"""From the rows of a log to the points (entropy, accuracy) of the law, with every decision said.

What is done, in this order: the metrics are chosen; rows without a finite number are left out and counted; rows out of
order are sorted, and after a restart the last run of a step counts; zeros that a fused path wrote are left out,
negative entropies refused; the unit of accuracy is told from its range or declared; each accuracy meets the mean of the
entropies logged at or just before it (`covent.logs.join`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from covent.law import Unit
from covent.law.series import LARGEST_ENTROPY_NATS, counted
from covent.logs.definitions import EntropyDefinition
from covent.logs.join import Point, in_time, join, listed
from covent.logs.metrics import Kind, accuracy_metrics, also_known, entropy_metric
from covent.logs.rows import LogError, LoggedRun

LARGEST_FRACTION = 1.0
FULL_PERCENT = 100.0


@dataclass(frozen=True)
class Ends:
    """Where a run starts and ends, for logs that hold the policy before any update."""

    entropy_start: float
    """Entropy of the first rollout step, nats."""
    accuracy_start: float | None
    """Accuracy before any update, unit of R; None where it was not measured."""
    num_steps: int
    """Rollout steps at the end whose mean entropy is the end of it."""
    num_points: int
    """Points at the end whose mean accuracy is the end of it."""


@dataclass(frozen=True)
class RunControl:
    """What a run did about its entropy and its groups, as far as its folder says."""

    names: tuple[str, ...]
    """The controls of entropy; empty for a plain ratio clip."""
    group_filter: str | None
    """`none`, `mixed` or `refill`, as in the trainer's settings."""
    took_all_frac: float = 0.0
    """Share of updates in which a control took every candidate there was."""


@dataclass(frozen=True, eq=False)
class LogSeries:
    """What the law needs of one run. The arrays of points have one length, which may be 0."""

    name: str
    source: Path
    format: str
    kind: Kind
    accuracy_metric: str
    entropy_metric: str
    definition: EntropyDefinition
    unit: Unit
    step: NDArray[np.int64]
    """Step of each accuracy."""
    entropy: NDArray[np.float64]
    """Mean of the entropies that the accuracy meets, nats."""
    accuracy: NDArray[np.float64]
    """In `unit`."""
    join: str
    """How the two met, in a sentence."""
    window_steps: float
    """Steps over which the entropy of a point is averaged."""
    entropy_steps: NDArray[np.int64]
    """Every step at which an entropy was logged."""
    entropies: NDArray[np.float64]
    others: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]
    """Steps and values of the metrics of `ALSO_KNOWN` that were logged."""
    warnings: list[str]
    ends: Ends | None = None
    """None: start and end are means over the first and the last 5 % of the log."""
    control: RunControl | None = None
    """None where the log does not say."""
    entropy_lost_after: int | None = None
    """Last step with an entropy, where accuracies go on without one; None where both reach the end."""
    label: str = ""
    """The name with what tells it apart from another log of the same name, where `all_series` found one."""

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True)
class Choice:
    """What the user may decide about a log; None leaves it to what the log says."""

    metric: str | None = None
    """Name or pattern of R."""
    entropy: str | None = None
    """Name of H."""
    unit: Unit | None = None
    window: int | None = None
    """Entropies that an accuracy meets."""
    temperature: float | None = None
    """Declared temperature of the entropy, where the log does not give it."""
    step: str | None = None
    by: str | None = None
    run: str | None = None


def log_series(run: LoggedRun, choice: Choice | None = None) -> LogSeries:
    """The points of the law that a log holds.

    Raises:
        LogError: a metric is missing or ambiguous; an entropy is negative, or all are 0; accuracies lie outside 0 to
        100,
            or mix fractions with percent; or no accuracy meets an entropy.
    """
    choice = choice or Choice()
    if choice.temperature is not None and not 0 < choice.temperature < math.inf:
        raise LogError(f"--temperature is {choice.temperature:g}; a temperature is a number above 0.")
    if choice.window is not None and choice.window < 1:
        raise LogError(f"--window is {choice.window}; give the number of entropies that an accuracy meets, at least 1.")
    warnings = list(run.notes)
    name, metric, note = entropy_metric(run, choice.entropy)
    accuracy = accuracy_metrics(run, choice.metric)
    warnings += [sentence for sentence in (note, accuracy.note) if sentence]
    definition = metric.definition
    if definition.temperature is None and choice.temperature is not None:
        definition = definition.model_copy(update={"temperature": choice.temperature})
    if definition.unknown:
        warnings.append(
            f"Entropy '{name}' is {definition.text}, where ? is what the log does not say: compare it with logs of the"
            f" same engine only. {metric.caution}"
        )
    entropies, said = _entropies(run, name)
    entropies, restarts, ordered = in_time(run, entropies)
    warnings += [*said, *ordered]
    values = _accuracies(run, accuracy.names, restarts, warnings)
    unit = _unit(run, accuracy.label, values, choice.unit, warnings)
    joined = join(entropies, values, choice.window)
    if not joined.points:
        raise LogError(
            f"{run.source}: no accuracy '{accuracy.label}' meets an entropy '{name}': accuracies are at steps"
            f" {listed([point.step for point in values])}, entropies at"
            f" {listed([point.step for point in entropies])}. Are the two logged with different counters? Name the"
            " right one with --step."
        )
    warnings += joined.notes
    return LogSeries(
        name=run.name,
        source=run.source,
        format=run.format,
        kind=accuracy.kind,
        accuracy_metric=accuracy.label,
        entropy_metric=name,
        definition=definition,
        unit=unit,
        step=np.array([point.step for point in joined.points], dtype=np.int64),
        entropy=np.array(joined.entropies, dtype=np.float64),
        accuracy=np.array([point.value for point in joined.points], dtype=np.float64),
        join=joined.sentence,
        window_steps=joined.window_steps,
        entropy_steps=np.array([point.step for point in entropies], dtype=np.int64),
        entropies=np.array([point.value for point in entropies], dtype=np.float64),
        others={key: _other(run, known) for key, known in also_known(run).items()},
        warnings=warnings,
        entropy_lost_after=joined.lost_after,
    )


def _points(run: LoggedRun, name: str) -> tuple[list[Point], list[int]]:
    """The finite values of a metric in the order of the log, and the lines where it is present but no number."""
    points, missing = [], []
    for order, row in enumerate(run.rows):
        if name not in row.values:
            continue
        value = row.values[name]
        assert row.step is not None
        if value is None:
            missing.append(row.line)
        else:
            points.append(Point(row.step, value, order, row.line))
    return points, missing


def _entropies(run: LoggedRun, name: str) -> tuple[list[Point], list[str]]:
    """The entropies that can be one, and what was left out."""
    points, missing = _points(run, name)
    said = []
    if missing:
        said.append(
            f"{counted(len(missing), 'row')} left out because '{name}' is no finite number (lines {listed(missing)})."
        )
    negative = next((point for point in points if point.value < 0), None)
    if negative is not None:
        raise LogError(
            f"{run.place(negative.line)}: '{name}' is {negative.value:g}; an entropy in nats is at least 0. A loss is"
            " sometimes logged with the opposite sign, and padding has made means negative: name another metric with"
            " --entropy, or repair the log."
        )
    vast = next((point for point in points if point.value > LARGEST_ENTROPY_NATS), None)
    if vast is not None:
        raise LogError(
            f"{run.place(vast.line)}: '{name}' is {vast.value:g}; a mean entropy of tokens is at most"
            f" {LARGEST_ENTROPY_NATS:g} nats. Log neither a perplexity nor a sum over tokens, or name another metric"
            " with --entropy."
        )
    zeros = [point for point in points if point.value == 0]
    if points and len(zeros) == len(points):
        raise LogError(
            f"{run.source}: every '{name}' is exactly 0. Fused loss paths write 0 where they do not take the entropy"
            " (axolotl's, or ROLL's without old log-probabilities): switch the entropy on in the trainer, or name"
            " another metric with --entropy."
        )
    if zeros:
        said.append(
            f"{counted(len(zeros), 'row')} left out because '{name}' is exactly 0 (lines"
            f" {listed([zero.line for zero in zeros])}): a fused path writes 0 where it does not take the entropy,"
            " and a mean over tokens is never exactly 0."
        )
    return [point for point in points if point.value != 0], said


def _accuracies(
    run: LoggedRun, names: tuple[str, ...], restarts: list[tuple[int, int]], warnings: list[str]
) -> list[Point]:
    """R at each step at which all of its metrics were logged."""
    columns = []
    for name in names:
        points, missing = _points(run, name)
        if missing:
            warnings.append(f"{counted(len(missing), 'row')} left out because '{name}' is no finite number.")
        kept, _, note = in_time(run, points, restarts)
        warnings += [sentence for sentence in note if not restarts and sentence not in warnings]
        columns.append({point.step: point for point in kept})
    shared = sorted(set.intersection(*(set(column) for column in columns)))
    lost = len(set.union(*(set(column) for column in columns))) - len(shared)
    if lost:
        warnings.append(f"{counted(lost, 'step')} left out because not all of the {len(names)} metrics are there.")
    means = ((step, [column[step] for column in columns]) for step in shared)
    return [Point(step, fmean(p.value for p in points), points[-1].order, points[-1].line) for step, points in means]


def _unit(run: LoggedRun, label: str, values: list[Point], declared: Unit | None, warnings: list[str]) -> Unit:
    low, high = min(values, key=lambda p: p.value), max(values, key=lambda p: p.value)
    full = LARGEST_FRACTION if declared == "fraction" else FULL_PERCENT
    outside = low if low.value < 0 else high if high.value > full else None
    if outside is not None:
        raise LogError(
            f"{run.place(outside.line)}: '{label}' is {outside.value:g}; an accuracy lies between 0 and {full:g}. A"
            " reward with bonus or penalty terms is no accuracy: name the accuracy with --metric."
        )
    if declared is not None:
        return declared
    if high.value <= LARGEST_FRACTION:
        return "fraction"
    inside = [point for point in values if 0 < point.value < LARGEST_FRACTION]
    if inside:
        raise LogError(
            f"{run.source}: '{label}' mixes units: {inside[0].value:g} at step {inside[0].step} reads as a fraction,"
            f" {high.value:g} at step {high.step} as percent. Repair the log, or say --unit percent if all are percent."
        )
    warnings.append(f"Accuracies reach {high.value:g}, so '{label}' is taken as percent; --unit says otherwise.")
    return "percent"


def _other(run: LoggedRun, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    points, _ = _points(run, name)
    kept, _, _ = in_time(run, points)
    return np.array([p.step for p in kept], dtype=np.int64), np.array([p.value for p in kept], dtype=np.float64)
