"""What to do next with a run, and why: one answer for every command and for the report."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from covent.law.series import in_percent, in_points
from covent.logs.phrases import share
from covent.logs.results import FitResult
from covent.logs.series import LogSeries, RunControl

WON = 0.9
"""From this share of the gain that the law allows, the run counts as exhausted."""

IDLE_GROUPS = 0.5
"""From this share of groups with equal rewards on, most of the sampling buys no gradient."""

SOLVED = 0.97
"""Accuracy at the end from which the task counts as solved: there is nothing left to control for."""

MOSTLY = 0.5
"""From this share of updates on in which a control took every candidate, its own share no longer decides."""

ALREADY_FILTERED = ("mixed", "refill")
"""Settings of `rollout.group_filter` that leave groups of equal rewards out."""

WON_ANYWAY = 0.01
"""Accuracy gained, as a fraction, from which a rise of entropy alone is no reason to stop."""

Phase = Literal["spending", "plateau", "collapsed", "rising", "surging", "too short", "not known"]


class Advice(BaseModel):
    """What to do next, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    reason: str


class State(BaseModel):
    """Where a run stands, as far as advice depends on it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Phase
    ratio: float
    """Entropy at the end over entropy at the start."""
    above_lowest: float
    """Entropy at the end over its lowest mean."""
    start_accuracy: float
    """As a fraction."""
    end_accuracy: float
    """As a fraction."""
    won: float | None
    """Share of the gain that the law allows; None where the law says nothing."""
    idle: float | None
    """Share of groups with equal rewards at the end; None where it was not logged."""
    all_right: float | None


def advice(state: State, law: FitResult, series: LogSeries) -> Advice:
    """What to do next: the first of the rules that applies."""
    control = series.control or RunControl(names=(), group_filter=None)
    if state.phase == "not known":
        return Advice(
            text="Log entropy again before deciding anything by it.",
            reason="it was not logged to the end, so where the run stands is not known.",
        )
    if state.phase in ("rising", "surging"):
        gained = state.end_accuracy - state.start_accuracy
        if not law.identified and gained >= WON_ANYWAY:
            return Advice(
                text="Do not stop for the entropy alone. Look at the gap between sampler and learner and at the entropy"
                " bonus, and take no decision from the law.",
                reason=f"entropy is {state.above_lowest:.2g} times its lowest mean, but accuracy rose by"
                f" {in_points(gained, 'fraction')} meanwhile, and the law is not identified on this log.",
            )
        return Advice(
            text="Do not go on as it is: lower the learning rate or the entropy bonus, and look at the gap between"
            " sampler and learner.",
            reason=f"entropy is {state.above_lowest:.2g} times its lowest mean, "
            + ("which by the law buys no accuracy." if law.identified else "and accuracy did not rise with it."),
        )
    if state.end_accuracy >= SOLVED:
        return Advice(
            text="Compare controls on a harder task.",
            reason=f"accuracy ended at {in_percent(state.end_accuracy, 'fraction')}: the task is solved, and entropy"
            " that is gone was not missed.",
        )
    if state.idle is not None and state.idle >= IDLE_GROUPS:
        return _idle(state, state.idle, control)
    if control.took_all_frac > MOSTLY:
        return Advice(
            text="Lower the control's share, or widen its band: raising the share changes nothing.",
            reason=f"it took every candidate in {share(control.took_all_frac)} of the updates.",
        )
    return _by_the_law(state, law, bool(control.names))


def _idle(state: State, idle: float, control: RunControl) -> Advice:
    """Most groups give no gradient: the problems are too easy or too hard for the policy as it is."""
    problems = "problems of another difficulty"
    if state.all_right is not None:
        problems = "harder problems" if state.all_right >= idle / 2 else "easier problems"
    filtered = control.group_filter in ALREADY_FILTERED
    text = f"Sample {problems}" + ("." if filtered else ", or filter groups of equal rewards out before the update.")
    if state.phase == "collapsed" and not control.names:
        text += " For entropy that lasts longer, try Clip-Cov or KL-Cov from the same start, with several seeds."
    reason = f"{share(idle)} of the groups at the end had equal rewards and give no gradient"
    reason += "" if state.all_right is None else f" ({share(state.all_right)} all right)"
    return Advice(text=text, reason=reason + ("; the run leaves them out already." if filtered else "."))


def _by_the_law(state: State, law: FitResult, controlled: bool) -> Advice:
    distrust = _why_not_the_law(law)
    if distrust is not None:
        return Advice(text="Take no decision from the law yet.", reason=distrust)
    assert law.ceiling is not None and law.last_accuracy is not None
    left = law.ceiling - law.last_accuracy
    if state.phase == "collapsed" or (state.won is not None and state.won >= WON):
        cure = "a larger share of tokens under control" if controlled else "Clip-Cov or KL-Cov"
        return Advice(
            text="Stop here, or change something: more steps of the same buy little. For more, start again with"
            f" {cure}, so that entropy lasts.",
            reason=f"{share(1 - state.ratio)} of the entropy is spent and "
            + (
                f"the ceiling lies {in_points(left, law.unit)} above the last point."
                if left > 0
                else "the last point has reached the ceiling."
            ),
        )
    if state.phase == "plateau":
        return Advice(
            text="Look at the learning rate and the data before going on.",
            reason=f"entropy has stopped falling with {share(state.ratio)} left, so the law promises nothing from more"
            f" steps; its ceiling is {in_points(left, law.unit)} away.",
        )
    return Advice(
        text="Go on.",
        reason=f"entropy is still being spent, and by the law {in_points(left, law.unit)} are left to win.",
    )


def _why_not_the_law(law: FitResult) -> str | None:
    if not law.identified or law.ceiling is None or law.last_accuracy is None:
        return "it is not identified on this log; the findings say why."
    if not law.is_possible:
        return f"its ceiling of {in_percent(law.ceiling, law.unit)} is no possible accuracy."
    if law.is_beaten:
        return "another curve of entropy fits clearly better, and has another ceiling."
    return None
