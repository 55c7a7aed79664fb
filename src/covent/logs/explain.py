"""A log in words: where the run stands, what it has spent and won, and what to do next, with the reason.

Every threshold is a named constant, every sentence carries its numbers, and nothing is said about what was not logged.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.law.series import FULL_MARKS
from covent.logs.results import FitResult, fit_result
from covent.logs.series import LogSeries

EDGE_FRAC = 0.05
"""Share of the logged entropies at each end whose mean is its start and its end."""

COLLAPSED = 0.1
"""Below this share of its start, entropy counts as collapsed."""

ROSE = 1.2
"""Above this share, entropy counts as risen."""

SURGED = 2.0
"""Entropy at the end above this multiple of its lowest mean counts as a surge."""

STEADY = 0.05
"""A last third that spends less than this share of all entropy spent is a plateau."""

WON = 0.9
"""From this share of the gain that the law allows, the run counts as exhausted."""

IDLE_GROUPS = 0.5
"""From this share of groups with equal rewards on, most of the sampling buys no gradient."""

CUT_OFF = 0.2
"""From this share of responses cut off at the length limit on, rewards speak of length."""

Phase = Literal["spending", "plateau", "collapsed", "rising", "surging", "too short"]


class Finding(BaseModel):
    """A sentence or two under one heading."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str
    text: str


class Explanation(FitResult):
    """The law of a log and the run in words."""

    phase: Phase
    entropy_start: float
    """Mean of the first 5 % of the logged entropies, nats."""
    entropy_end: float
    entropy_spent_frac: float
    """1 - end/start: negative where entropy rose."""
    gain_won_frac: float | None
    """Share of the gain that the law allows from the start's entropy down to 0: (e^H0 - e^H) / (e^H0 - 1)."""
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

    @property
    def ratio(self) -> float:
        return self.end / self.start

    @property
    def phase(self) -> Phase:
        if self.ratio > ROSE:
            return "rising"
        if self.end > SURGED * self.lowest and self.ratio > COLLAPSED:
            return "surging"
        if self.ratio < COLLAPSED:
            return "collapsed"
        if self.thirds is None:
            return "too short"
        return "plateau" if self.thirds[2] < STEADY else "spending"


def explanation(series: LogSeries) -> Explanation:
    """The run behind a log, in words.

    Args:
        series: the points of the log.

    Returns:
        The law as `fit_result` gives it, with findings in the order in which a reader asks.
    """
    law = fit_result(series)
    course = entropy_course(series.entropy_steps, series.entropies)
    possible = law.identified and law.ceiling is not None and law.ceiling <= FULL_MARKS[law.unit]
    won = gain_won(course) if possible and course.end < course.start else None
    found = [
        _entropy(course),
        _gain(series, law, won),
        _law(law),
        _groups(series),
        _lengths(series),
        _covariance(series),
    ]
    advice, reason = _advice(series, law, course, won)
    return Explanation(
        **law.model_dump(),
        phase=course.phase,
        entropy_start=course.start,
        entropy_end=course.end,
        entropy_spent_frac=1 - course.ratio,
        gain_won_frac=won,
        findings=[finding for finding in found if finding is not None],
        advice=advice,
        reason=reason,
    )


def entropy_course(steps: NDArray[np.int64], entropies: NDArray[np.float64]) -> Course:
    """Start, end, lowest and thirds of a series of entropies, each a mean over `EDGE_FRAC` of it.

    Args:
        steps: increasing, shape (n,), n >= 1.
        entropies: nats, all positive.
    """
    width = max(1, round(EDGE_FRAC * entropies.size))
    means = np.convolve(entropies, np.full(width, 1 / width), mode="valid")
    start, end = float(means[0]), float(means[-1])
    thirds = None
    if entropies.size >= 6 and end < start:
        cuts = steps[0] + (steps[-1] - steps[0]) * np.array([1 / 3, 2 / 3])
        at = [start, *np.interp(cuts, steps[: means.size] + (width - 1) / 2, means).tolist(), end]
        thirds = tuple((before - after) / (start - end) for before, after in itertools.pairwise(at))
        assert len(thirds) == 3
    return Course(start, end, float(np.min(means)), thirds)


def gain_won(course: Course) -> float:
    """Share of the gain that the law allows between the start's entropy and none: it does not depend on a and b.

    (R(H) - R(H0)) / (R(0) - R(H0)) = (e^H0 - e^H) / (e^H0 - 1)
    """
    return (math.exp(course.start) - math.exp(course.end)) / math.expm1(course.start)


def _entropy(course: Course) -> Finding:
    text = (
        f"Entropy went from {course.start:.3g} to {course.end:.3g} nats: {_percent(course.ratio)} of its start is left."
    )
    if course.thirds is not None:
        first, _, last = course.thirds
        text += (
            f" The first third of the steps spent {_percent(first)} of what was spent, the last third {_percent(last)}."
        )
    rules = {
        "collapsed": f" That is collapse (less than {_percent(COLLAPSED)} left).",
        "rising": f" It rises (above {ROSE:g} times its start): an explosion, or a bonus that is too strong.",
        "surging": f" It has come back from {course.lowest:.3g}, more than {SURGED:g} times: a late surge.",
        "plateau": " It has stopped falling.",
        "spending": " It is still being spent.",
        "too short": " The log is too short to tell a phase.",
    }
    return Finding(topic="Entropy", text=text + rules[course.phase])


def _gain(series: LogSeries, law: FitResult, won: float | None) -> Finding:
    edge = max(1, round(EDGE_FRAC * len(series)))
    start, end = float(np.mean(series.accuracy[:edge])), float(np.mean(series.accuracy[-edge:]))
    text = f"R ({law.metric}) went from {_accuracy(start, law)} to {_accuracy(end, law)} over {law.n} points."
    if won is not None:
        text += f" By the law, the entropy spent has bought {_percent(won)} of the gain that was there at the start."
    return Finding(topic="Accuracy", text=text)


def _law(law: FitResult) -> Finding:
    if law.a is None or law.b is None or law.ceiling is None or law.r2 is None:
        return Finding(topic="The law", text=law.warnings[-1] if law.warnings else "It could not be fitted.")
    text = f"R = -{law.a:.4g}·exp(H) + {law.b:.4g} with R² {law.r2:.3f}; ceiling {_accuracy(law.ceiling, law)}"
    if law.ceiling_interval is not None:
        text += f" [{_accuracy(law.ceiling_interval[0], law)}, {_accuracy(law.ceiling_interval[1], law)}]"
    said = next((warning for warning in law.warnings if warning.startswith(("Not identified", "Impossible"))), "")
    return Finding(
        topic="The law", text=" ".join(part for part in (f"{text}.", law.forms, *law.diagnostics, said) if part)
    )


def _groups(series: LogSeries) -> Finding | None:
    ends = _ends(series, "zero_variance")
    if ends is None:
        return None
    text = (
        f"Groups with equal rewards, which give no gradient: {_percent(ends[0])} at the start, {_percent(ends[1])} at"
        " the end."
    )
    right = _ends(series, "all_right")
    if right is not None:
        text += f" All right: {_percent(right[0])}, then {_percent(right[1])}."
    return Finding(topic="Groups", text=text)


def _lengths(series: LogSeries) -> Finding | None:
    ends = _ends(series, "clipped_length")
    if ends is None or max(ends) < CUT_OFF:
        return None
    return Finding(
        topic="Length",
        text=f"Responses cut off at the length limit: {_percent(ends[0])} at the start, {_percent(ends[1])} at last.",
    )


def _covariance(series: LogSeries) -> Finding:
    ends = _ends(series, "covariance")
    if ends is None:
        return Finding(
            topic="Covariance",
            text="No covariance was logged, so the cause of the entropy's fall cannot be told from this log. Dump the"
            " tokens of a step and run `covent measure DUMP`.",
        )
    sign = "lowers" if ends[1] > 0 else "raises"
    return Finding(
        topic="Covariance",
        text=f"Mean Cov(log π, A) went from {ends[0]:.3g} to {ends[1]:.3g}: to first order each update still {sign}"
        " entropy.",
    )


def _advice(series: LogSeries, law: FitResult, course: Course, won: float | None) -> tuple[str, str]:
    phase = course.phase
    if phase in ("rising", "surging"):
        return (
            "Do not go on as it is: lower the learning rate or the entropy bonus, and look at the gap between sampler"
            " and learner.",
            f"entropy is {course.end / course.lowest:.2g} times its lowest mean, which does not buy accuracy by the"
            " law.",
        )
    idle = _ends(series, "zero_variance")
    if idle is not None and idle[1] >= IDLE_GROUPS:
        return (
            "Sample problems of another difficulty, or filter groups of equal rewards out before the update.",
            f"{_percent(idle[1])} of the groups give no gradient.",
        )
    if not law.identified or law.ceiling is None or law.last_accuracy is None:
        return "Take no decision from the law yet.", "it is not identified on this log; the findings say why."
    left = law.ceiling - law.last_accuracy
    if law.ceiling > FULL_MARKS[law.unit]:
        return (
            "Take no decision from the law yet.",
            "its ceiling is no possible accuracy, so it does not describe this run.",
        )
    if phase == "collapsed" or (won is not None and won >= WON):
        return (
            "Stop here, or change something: more steps of the same buy little. For more, start again with Clip-Cov or"
            " KL-Cov so that entropy lasts.",
            f"{_percent(1 - course.ratio)} of the entropy is spent and "
            + (
                f"the ceiling lies {_points(left, law)} above the last point."
                if left > 0
                else "the last point has reached the ceiling."
            ),
        )
    if phase == "plateau":
        return (
            "Look at the learning rate and the data before going on.",
            f"entropy has stopped falling with {_percent(course.ratio)} left, so the law promises nothing from more"
            f" steps; its ceiling is {_points(left, law)} away.",
        )
    return "Go on.", f"entropy is still being spent, and by the law {_points(left, law)} are left to win."


def _ends(series: LogSeries, key: str) -> tuple[float, float] | None:
    if key not in series.others or not series.others[key][1].size:
        return None
    values = series.others[key][1]
    edge = max(1, round(EDGE_FRAC * values.size))
    return float(np.mean(values[:edge])), float(np.mean(values[-edge:]))


def _percent(share: float) -> str:
    return f"{round(100 * share)} %"


def _accuracy(value: float, law: FitResult) -> str:
    return f"{100 * value / FULL_MARKS[law.unit]:.1f} %"


def _points(value: float, law: FitResult) -> str:
    return f"{100 * value / FULL_MARKS[law.unit]:.1f} points"
