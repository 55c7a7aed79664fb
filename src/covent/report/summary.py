"""A run in numbers: everything that the words, tables and plots of the report say is computed here or in the law.

`summarise(run)` never fails on a short or interrupted run: what cannot be computed is None, or carries its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError, StoreError
from covent.law import Forecast, forecast
from covent.logs.advice import Advice, Phase
from covent.logs.explain import Explanation, course_of, explanation
from covent.logs.results import FitResult, fit_result
from covent.logs.rows import LogError
from covent.logs.run_folder import END_POINTS, END_STEPS, control_names, entropies, run_series
from covent.readings import Mean
from covent.report.accuracy import AccuracyChange, accuracy_changes
from covent.report.agreement import Agreement, Quantity, agreements
from covent.report.attribution import AttributionSummary, attribution_summary
from covent.report.probes import probe_series
from covent.store.coverage import Gaps
from covent.store.reader import Run
from covent.store.schema import Status, StepRow
from covent.store.series import LawSeries, law_series

FRACTIONS = (0.15, 0.30)
"""Shares of the run from which the rest is forecast; the paper's is 36/236 = 0.15."""

Source = Literal["validation", "training"]


class Part(BaseModel):
    """Base of the parts of a summary."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EntropySummary(Part):
    """Policy entropy over a run, nats."""

    definition: str
    first: float
    """At rollout step 0, before any update."""
    last: float
    """Mean over the last 5 rollout steps, or fewer if the run is shorter."""
    ratio: float | None
    """last / first."""
    phase: Phase
    """As `covent explain` has it."""
    half_life: int | None
    """First rollout step at which the mean over the 5 steps up to it is at most half of `first`; None if never."""
    mean: float
    """Mean over all rollout steps: the area under the curve divided by its length."""


class Thirds(Part):
    """Where in the run entropy was spent and accuracy was won. Shares of the whole; each list adds up to 1."""

    measure: str
    """Which accuracy: validation avg@k, or the training reward."""
    start_accuracy: float
    """Before any update, or of the first point where that was not measured."""
    end_accuracy: float
    """Mean over the last 3 points of the law."""
    gain: float
    """`end_accuracy` minus `start_accuracy`."""
    gain_shares: list[float] | None
    """None when there was no gain to share out."""
    entropy_spent: float
    """Nats."""
    entropy_shares: list[float] | None
    """None when entropy did not fall."""


class LawSummary(Part):
    """The law on one source of accuracy."""

    source: Source
    window: int | None
    """Rollout steps in the block of each point."""
    num_points: int
    fit: FitResult | None
    """The law with its rivals, exactly as `covent fit` gives it for the folder."""
    forecasts: list[Forecast]
    reason: str | None
    """Why there is no fit."""


class ControlSummary(Part):
    """What the entropy control asked for and did, over all optimizer steps."""

    name: str
    asked_frac: float | None
    realised_frac: float | None
    """Selected tokens over all tokens that carried gradient; None for a control without selection."""
    num_updates: int
    num_selected: int
    no_candidate_frac: float | None
    """Share of updates in which no token was eligible; None where the control does not count candidates."""
    took_all_frac: float
    """Share of updates in which every eligible token was taken: there the share no longer decides."""
    notes: dict[str, int]
    """What else the control remarked, and in how many updates, most frequent first."""


class ProbeSummary(Part):
    """Predicted, accounted and observed entropy change on the probe states."""

    num_states: int
    num_updates: int
    observed: float
    """Sum over all optimizer steps, nats."""
    explained: dict[Quantity, float]
    """The same sum of each quantity that should explain it (`covent.report.probes`)."""
    one_sided_frac: float | None
    """Share of what Lemma 1 leaves over, step by step in absolute value, that has the sign of its sum."""
    agreements: list[Agreement]

    def agreement(self, quantity: Quantity, per: str, trend: str) -> Agreement:
        """The one agreement with these three labels."""
        (found,) = (a for a in self.agreements if (a.quantity, a.per, a.trend) == (quantity, per, trend))
        return found


class RolloutSummary(Part):
    """What the sampled responses looked like at the start and at the end (means over 5 rollout steps)."""

    reward: tuple[float | None, float | None]
    response_length: tuple[float | None, float | None]
    truncated: tuple[float | None, float | None]
    unparsable: tuple[float | None, float | None]
    all_right: tuple[float | None, float | None]
    """Share of groups in which every response was right."""
    all_wrong: tuple[float | None, float | None]
    largest_sampler_gap: float | None


class RunSummary(Part):
    """One run in numbers. `model_dump_json()` is what `covent report --json` prints for it."""

    name: str
    method: str
    seed: int | None
    """None where the run folder does not say any more."""
    status: Status
    num_steps: int
    """Rollout steps recorded."""
    num_updates: int
    """Optimizer steps recorded."""
    num_updates_made: int
    """Optimizer steps that the recorded rollout steps count."""
    num_updates_planned: int | None
    """Rollout steps times `optimizer.updates_per_rollout`; a rollout with fewer mixed groups than that gives fewer
    updates. None where the settings do not say."""
    entropy: EntropySummary | None
    thirds: Thirds | None
    accuracy: list[AccuracyChange]
    laws: list[LawSummary]
    control: ControlSummary | None
    probe: ProbeSummary | None
    attribution: AttributionSummary | None
    """None unless the run was asked for it (`attribute_every`)."""
    rollout: RolloutSummary | None
    advice: Advice | None
    """What to do next, as `covent explain` says it: from validation accuracy, else from the training reward. None where
    the run has no point of the law."""
    seconds: dict[str, float]
    """Wall time by phase."""
    gaps: Gaps
    """By file what is missing in the run folder: numbers that rest on it are of the rows that are there."""
    notes: list[str]

    @property
    def main_law(self) -> LawSummary:
        """The law that is spoken of: on validation accuracy, or on the training reward where that alone has points."""
        return next((law for law in self.laws if law.fit is not None), self.laws[0])

    def law(self, source: Source) -> LawSummary:
        """The law on this source."""
        (found,) = (law for law in self.laws if law.source == source)
        return found

    def change(self, split: str, measure: str) -> AccuracyChange | None:
        """One accuracy at start and end, for example `change("test", "greedy")`; None if it was not measured."""
        return next((c for c in self.accuracy if (c.split, c.measure) == (split, measure)), None)


def summarise(run: Run) -> RunSummary:
    """A run in numbers.

    Args:
        run: a run folder that was read; it may be short, interrupted, or without evaluations.
    """
    laws = [_law(run, "validation"), _law(run, "training")]
    law = next((law for law in laws if law.fit is not None), None)
    told = None if law is None else explanation(run_series(run, law.source), law.fit)
    return RunSummary(
        name=run.name,
        method=method(run),
        seed=run.seed,
        status=run.status,
        num_steps=len(run.steps),
        num_updates=len(run.updates),
        num_updates_made=sum(row.num_updates for row in run.steps),
        num_updates_planned=_updates_planned(run),
        entropy=_entropy(run),
        thirds=None if law is None or told is None else _thirds(run, law.source, told),
        accuracy=accuracy_changes(run),
        laws=laws,
        control=_control(run),
        probe=_probe(run),
        attribution=attribution_summary(run),
        rollout=_rollout(run),
        advice=None if told is None else Advice(text=told.advice, reason=told.reason),
        seconds=_seconds(run),
        gaps=run.gaps,
        notes=run.notes,
    )


def method(run: Run) -> str:
    """The controls of a run in one word, for grouping."""
    return " + ".join(control_names(run))


def _entropy(run: Run) -> EntropySummary | None:
    steps, values = entropies(run)
    if not values:
        return None
    first, last = values[0], float(np.mean(values[-END_STEPS:]))
    trailing = [
        (steps[i], float(np.mean(values[i + 1 - END_STEPS : i + 1]))) for i in range(END_STEPS - 1, len(values))
    ]
    return EntropySummary(
        definition=run.steps[0].entropy.definition,
        first=first,
        last=last,
        ratio=last / first if first > 0 else None,
        phase=course_of(np.array(steps), np.array(values), min(END_STEPS, len(values)), first).phase,
        half_life=next((step for step, value in trailing if value <= first / 2), None),
        mean=float(np.mean(values)),
    )


def _law(run: Run, source: Source) -> LawSummary:
    try:
        series = law_series(run, source)
        fitted = fit_result(run_series(run, source))
        forecasts = [_forecast(run, series, fraction) for fraction in FRACTIONS]
    except (StoreError, FitError, LogError) as error:
        reason = str(error).removeprefix(f"{run.folder} holds no point of the law: ")
        return LawSummary(source=source, window=None, num_points=0, fit=None, forecasts=[], reason=reason)
    return LawSummary(
        source=source, window=series.window, num_points=len(series), fit=fitted, forecasts=forecasts, reason=None
    )


def _updates_planned(run: Run) -> int | None:
    section = run.header.config.get("optimizer")
    each = section.get("updates_per_rollout") if isinstance(section, dict) else None
    return each * len(run.steps) if isinstance(each, int) else None


def _forecast(run: Run, series: LawSeries, fraction: float) -> Forecast:
    """The length of the run is what was recorded: of an interrupted run, its part is forecast from its own part."""
    return forecast(
        series.step,
        series.entropy,
        series.accuracy,
        num_steps=run.steps[-1].step + 1,
        fraction=fraction,
        unit="fraction",
        entropy_series=entropies(run),
        window=series.window,
    )


def _thirds(run: Run, source: Source, told: Explanation) -> Thirds | None:
    """Entropy and accuracy at the start and after each third of the run, where accuracy looks back, never ahead."""
    if told.n < 3 * END_POINTS:
        return None
    series = law_series(run, source)
    steps = entropies(run)[0]
    ends = [steps[len(steps) * k // 3 - 1] for k in (1, 2)]
    counts = [int(np.searchsorted(series.step, end, side="right")) for end in ends]
    between = [float(np.mean(series.accuracy[max(0, count - END_POINTS) : max(1, count)])) for count in counts]
    accuracy = [told.accuracy_start, *between, told.accuracy_end]
    gain, spent = accuracy[-1] - accuracy[0], told.entropy_start - told.entropy_end
    return Thirds(
        measure=told.metric,
        start_accuracy=accuracy[0],
        end_accuracy=accuracy[-1],
        gain=gain,
        gain_shares=[float(d) / gain for d in np.diff(accuracy)] if gain > 0 else None,
        entropy_spent=spent,
        entropy_shares=told.entropy_thirds,
    )


def _control(run: Run) -> ControlSummary | None:
    readings = [row.control for row in run.updates]
    if not readings:
        return None
    asked = [reading.asked_frac for reading in readings if reading.asked_frac is not None]
    num_tokens = sum(reading.num_tokens for reading in readings)
    candidates = [reading.num_candidates for reading in readings if reading.num_candidates is not None]
    # What took_all_frac and no_candidate_frac count already is not said twice.
    rest = [r for r in readings if r.note and not r.took_all_candidates and r.num_candidates != 0]
    remarks = [reading.note for reading in rest]
    by_frequency = sorted(set(remarks), key=lambda note: (-remarks.count(note), note))
    return ControlSummary(
        name=readings[0].name,
        asked_frac=float(np.mean(asked)) if asked else None,
        realised_frac=sum(r.num_selected for r in readings) / num_tokens if asked and num_tokens else None,
        num_updates=len(readings),
        num_selected=sum(reading.num_selected for reading in readings),
        no_candidate_frac=sum(count == 0 for count in candidates) / len(candidates) if candidates else None,
        took_all_frac=sum(reading.took_all_candidates for reading in readings) / len(readings),
        notes={note: remarks.count(note) for note in by_frequency},
    )


def _probe(run: Run) -> ProbeSummary | None:
    series = probe_series(run)
    if series is None:
        return None
    rows: list[Agreement] = []
    for quantity, values in series.explained.items():
        rows += agreements(quantity, series.step, values, series.observed)
    left_over = series.observed - series.explained["accounted"]
    size = float(np.abs(left_over).sum())
    return ProbeSummary(
        num_states=next(row.probe.num_states for row in run.updates if row.probe is not None),
        num_updates=len(series.step),
        observed=float(series.observed.sum()),
        explained={quantity: float(values.sum()) for quantity, values in series.explained.items()},
        one_sided_frac=(size + abs(float(left_over.sum()))) / (2 * size) if size > 0 else None,
        agreements=rows,
    )


def _rollout(run: Run) -> RolloutSummary | None:
    if not run.steps:
        return None
    gaps = [row.sampler_gap for row in run.steps if row.sampler_gap is not None]
    first, last = run.steps[:END_STEPS], run.steps[-END_STEPS:]

    def both(mean: Callable[[StepRow], Mean]) -> tuple[float | None, float | None]:
        return merged([mean(row) for row in first]), merged([mean(row) for row in last])

    return RolloutSummary(
        reward=both(lambda row: row.reward),
        response_length=both(lambda row: row.response_length),
        truncated=both(lambda row: row.truncated),
        unparsable=both(lambda row: row.unparsable),
        all_right=both(lambda row: Mean(sum=row.num_all_right, count=row.num_groups)),
        all_wrong=both(lambda row: Mean(sum=row.num_all_wrong, count=row.num_groups)),
        largest_sampler_gap=max(gaps) if gaps else None,
    )


def merged(means: Sequence[Mean]) -> float | None:
    """The mean over everything that was counted, never a mean of means."""
    total = Mean(sum=0.0, count=0)
    for mean in means:
        total = total + mean
    return total.value


def _seconds(run: Run) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for row in run.steps:
        for phase, value in row.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + value
    return seconds
