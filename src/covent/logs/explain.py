"""A log in words: where the run stands, what it has spent and won, and what to do next, with the reason.

Every threshold is a named constant, every sentence carries its numbers, and nothing is said about what was not logged.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.law.series import FULL_MARKS, in_percent
from covent.logs.advice import Phase, State, advice
from covent.logs.join import EDGE_FRAC
from covent.logs.phrases import law_text, nats, share
from covent.logs.results import FitResult, fit_result
from covent.logs.series import LogSeries

COLLAPSED = 0.1
"""Below this share of its start, entropy counts as collapsed."""

ROSE = 1.2
"""Above this share, entropy counts as risen."""

SURGED = 2.0
"""Entropy at the end above this multiple of its lowest mean counts as a surge."""

STEADY = 0.05
"""A last third that spends less than this share of all entropy spent is a plateau."""

FEWEST_STEPS = 6
"""With fewer entropies no phase is told."""

CUT_OFF = 0.2
"""From this share of responses cut off at the length limit on, rewards speak of length."""


class Finding(BaseModel):
    """A sentence or two under one heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    text: str


class Explanation(FitResult):
    """The law of a log and the run in words."""

    phase: Phase
    entropy_start: float
    """Nats: of the first rollout step in a run folder of covent; elsewhere the mean of the first 5 % of the log."""
    entropy_end: float
    """Mean of the last 5 rollout steps of a run folder; elsewhere of the last 5 %."""
    entropy_spent_frac: float
    """1 - end/start: negative where entropy rose."""
    entropy_thirds: list[float] | None
    """Share of the entropy spent in each third of the steps; None where entropy did not fall."""
    accuracy_start: float
    """Before any update in a run folder; elsewhere the mean of the first 5 % of the points; unit of R."""
    accuracy_end: float
    """Mean of the last 3 points of a run folder; elsewhere of the last 5 %."""
    gain_won_frac: float | None
    """Share of the gain that the law allows from the start's entropy down to 0: (e^H0 - e^H) / (e^H0 - 1). None where
    the law is not to be relied on."""
    findings: list[Finding]
    advice: str
    reason: str


@dataclass(frozen=True)
class Course:
    """How entropy went."""

    start: float
    end: float
    lowest: float
    thirds: tuple[float, float, float] | None
    """Share of the entropy spent in each third of the steps; None where entropy did not fall."""
    lost_after: int | None = None
    """Last step with an entropy, where accuracies go on without one."""

    @property
    def ratio(self) -> float:
        return self.end / self.start if self.start > 0 else 1.0

    @property
    def above_lowest(self) -> float:
        """Entropy at the end over its lowest mean; 1 where that is 0."""
        return self.end / self.lowest if self.lowest > 0 else 1.0

    @property
    def phase(self) -> Phase:
        if self.lost_after is not None:
            return "not known"
        if self.ratio > ROSE:
            return "rising"
        if self.end > SURGED * self.lowest and self.ratio > COLLAPSED:
            return "surging"
        if self.ratio < COLLAPSED:
            return "collapsed"
        if self.thirds is None:
            return "too short"
        return "plateau" if self.thirds[2] < STEADY else "spending"


def explanation(series: LogSeries, law: FitResult | None = None) -> Explanation:
    """The run behind a log, in words.

    Args:
        series: the points of the log.
        law: what `fit_result` gives for them, if that is known already.

    Returns:
        The law as `fit_result` gives it, with findings in the order in which a reader asks.
    """
    law = law or fit_result(series)
    course = entropy_course(series)
    falling = course.end < course.start and course.lost_after is None
    won = gain_won(course) if law.is_sound and falling else None
    ends = accuracy_ends(series)
    found = [
        _entropy(course),
        _gain(law, ends, won),
        Finding(topic="The law", text=law_text(law)),
        _groups(series),
        _lengths(series),
        _covariance(series),
    ]
    idle, right = _ends(series, "zero_variance"), _ends(series, "all_right")
    state = State(
        phase=course.phase,
        ratio=course.ratio,
        above_lowest=course.above_lowest,
        start_accuracy=ends[0] / FULL_MARKS[law.unit],
        end_accuracy=ends[1] / FULL_MARKS[law.unit],
        won=won,
        idle=None if idle is None else idle[1],
        all_right=None if right is None else right[1],
    )
    told = advice(state, law, series)
    return Explanation(
        **law.model_dump(),
        phase=course.phase,
        entropy_start=course.start,
        entropy_end=course.end,
        entropy_spent_frac=1 - course.ratio,
        entropy_thirds=None if course.thirds is None else list(course.thirds),
        accuracy_start=ends[0],
        accuracy_end=ends[1],
        gain_won_frac=won,
        findings=[finding for finding in found if finding is not None],
        advice=told.text,
        reason=told.reason,
    )


def entropy_course(series: LogSeries) -> Course:
    """Start, end, lowest and thirds of the entropies of a log.

    Of a run folder: the first rollout step, before any update, and the mean of the last 5. Of any other log: the means
    of its first and of its last 5 %. In between, the mean of as many entropies as at the end, around each place.
    """
    ends, values = series.ends, series.entropies
    width = _edge(values.size) if ends is None else min(ends.num_steps, values.size)
    start = None if ends is None else ends.entropy_start
    return course_of(series.entropy_steps, values, width, start, lost_after=series.entropy_lost_after)


def course_of(
    steps: NDArray[np.int64],
    values: NDArray[np.float64],
    width: int,
    start: float | None = None,
    *,
    lost_after: int | None = None,
) -> Course:
    """How entropies went, from means over `width` of them; `start` stands for the first of these where it is given."""
    means = np.convolve(values, np.full(width, 1 / width), mode="valid")
    first = float(means[0]) if start is None else start
    end = float(means[-1])
    thirds = None
    if values.size >= FEWEST_STEPS and end < first:
        cuts = steps[0] + (steps[-1] - steps[0]) * np.array([1 / 3, 2 / 3])
        at = [first, *np.interp(cuts, steps[: means.size] + (width - 1) / 2, means).tolist(), end]
        thirds = tuple((before - after) / (first - end) for before, after in itertools.pairwise(at))
        assert len(thirds) == 3
    return Course(first, end, float(np.min(means)), thirds, lost_after)


def accuracy_ends(series: LogSeries) -> tuple[float, float]:
    """Accuracy at the start and at the end of a log, unit of R: before any update and the mean of the last 3 points for
    a run folder, the means of the first and of the last 5 % of the points elsewhere."""
    edge = _edge(len(series))
    if series.ends is None:
        return float(np.mean(series.accuracy[:edge])), float(np.mean(series.accuracy[-edge:]))
    start = series.ends.accuracy_start
    end = float(np.mean(series.accuracy[-series.ends.num_points :]))
    return float(series.accuracy[0]) if start is None else start, end


def _edge(size: int) -> int:
    return max(1, round(EDGE_FRAC * size))


def gain_won(course: Course) -> float:
    """Share of the gain that the law allows between the start's entropy and none: it does not depend on a and b.

    (R(H) - R(H0)) / (R(0) - R(H0)) = (e^H0 - e^H) / (e^H0 - 1)
    """
    return (math.exp(course.start) - math.exp(course.end)) / math.expm1(course.start)


def _entropy(course: Course) -> Finding:
    change = f"Entropy went from {nats(course.start)} to {nats(course.end)} nats"
    text = f"{change}: {share(course.ratio)} of its start is left."
    if course.thirds is not None:
        first, _, last = course.thirds
        text += f" The first third of the steps spent {share(first)} of what was spent, the last third {share(last)}."
    rules = {
        "collapsed": f" That is collapse (less than {share(COLLAPSED)} left).",
        "rising": f" It rises (above {ROSE:g} times its start): an explosion, or a bonus that is too strong.",
        "surging": f" It has come back from {nats(course.lowest)}, more than {SURGED:g} times: a late surge.",
        "plateau": " It has stopped falling.",
        "spending": " It is still being spent.",
        "too short": " The log is too short to tell a phase.",
        "not known": f" It was not logged after step {course.lost_after}, while accuracy goes on: where it is now"
        " is not known.",
    }
    return Finding(topic="Entropy", text=text + rules[course.phase])


def _gain(law: FitResult, ends: tuple[float, float], won: float | None) -> Finding:
    start, end = (in_percent(value, law.unit) for value in ends)
    text = f"R ({law.metric}) went from {start} to {end} over {law.n} points."
    if won is not None:
        text += f" By the law, the entropy spent has bought {share(won)} of the gain that was there at the start."
    return Finding(topic="Accuracy", text=text)


def _groups(series: LogSeries) -> Finding | None:
    ends = _ends(series, "zero_variance")
    if ends is None:
        return None
    text = (
        f"Groups with equal rewards, which give no gradient: {share(ends[0])} at the start, {share(ends[1])} at"
        " the end."
    )
    right = _ends(series, "all_right")
    if right is not None:
        text += f" All right: {share(right[0])}, then {share(right[1])}."
    return Finding(topic="Groups", text=text)


def _lengths(series: LogSeries) -> Finding | None:
    ends = _ends(series, "clipped_length")
    if ends is None or max(ends) < CUT_OFF:
        return None
    return Finding(
        topic="Length",
        text=f"Responses cut off at the length limit: {share(ends[0])} at the start, {share(ends[1])} at last.",
    )


def _covariance(series: LogSeries) -> Finding:
    ends = _ends(series, "covariance")
    if ends is None:
        return Finding(
            topic="Covariance",
            text="No covariance was logged, so the cause of the entropy's fall cannot be told from this log. Dump the"
            " tokens of a step and run `covent measure DUMP`.",
        )
    signs = ["lowers" if end > 0 else "raises" for end in ends]
    still = "still " if signs[0] == signs[1] else "now "
    return Finding(
        topic="Covariance",
        text=f"Mean Cov(log π, A) went from {ends[0]:.3g} to {ends[1]:.3g}: to first order each update"
        f" {still}{signs[1]} entropy.",
    )


def _ends(series: LogSeries, key: str) -> tuple[float, float] | None:
    if key not in series.others or not series.others[key][1].size:
        return None
    steps, values = series.others[key]
    if series.ends is not None:
        width = series.ends.num_steps
        return (
            float(np.mean(values[steps < steps[0] + width])),
            float(np.mean(values[steps > steps[-1] - width])),
        )
    edge = _edge(values.size)
    return float(np.mean(values[:edge])), float(np.mean(values[-edge:]))
