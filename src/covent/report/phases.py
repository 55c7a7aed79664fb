"""What became of a run's entropy, in the words of the head of the page and of the cards: both come from here."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from covent.logs.advice import Phase
from covent.logs.explain import COLLAPSED, FEWEST_STEPS, ROSE, STEADY, SURGED
from covent.report import numbers as n
from covent.report.subject import Subject
from covent.report.summary import RunSummary

LITTLE = 0.1
"""A run that has spent less of its entropy than this is still spending, but slowly."""


@dataclass(frozen=True)
class Fate:
    """A phase in words."""

    name: str
    """On a card."""
    verb: str
    """After the word entropy."""
    rule: str
    """What makes it so."""


_FATES: dict[Phase, Fate] = {
    "collapsed": Fate("Collapsed", "collapsed", f"less than {n.percent(COLLAPSED, 0)} of the entropy is left"),
    "rising": Fate("Rising", "rose", f"entropy ends above {ROSE:g} times its start"),
    "surging": Fate("Surging", "surged late", f"entropy ends above {SURGED:g} times its lowest mean"),
    "plateau": Fate(
        "Plateau",
        "has levelled off",
        f"the last third of the steps spent less than {n.percent(STEADY, 0)} of what was spent",
    ),
    "spending": Fate(
        "Spending",
        "is being spent",
        f"the last third of the steps still spent {n.percent(STEADY, 0)} or more of what was spent",
    ),
    "too short": Fate(
        "Too short to tell", "has too few steps for a phase", f"a phase needs {FEWEST_STEPS} steps of entropy"
    ),
    "not known": Fate("Not known", "was not logged to the end", "accuracies go on where entropies have ended"),
}

_STILL = "was still being spent"
"""What is being spent while a run goes on, when it goes on no longer."""

_LOST = Fate("Not known", "is not known for want of step rows", "the rows of steps.jsonl are missing")

_ROWS_END = re.compile(r"steps\.jsonl ends? at step (\d+)")
"""What the store says of a run whose last step rows are missing."""

_HELD = Fate("Held", "held", f"entropy has not fallen, and ends at most at {ROSE:g} times its start")


def fate(
    phase: Phase, spent_frac: float, num_steps: int, *, is_over: bool = False, rows_end: int | None = None
) -> Fate:
    """A phase in words.

    Args:
        phase: as `covent.logs.explain` has it.
        spent_frac: share of the entropy that is spent; negative where it rose.
        num_steps: steps with an entropy.
        is_over: whether the run is known to go on no longer.
        rows_end: last step that is known of, where later ones were made. If not given, all steps are known.
    """
    if phase == "too short" and num_steps >= FEWEST_STEPS:
        return _up_to(_HELD, rows_end)
    found = _FATES[phase]
    if phase != "spending":
        return _up_to(found, rows_end)
    over = is_over or rows_end is not None
    name, verb, rule = found.name, _STILL if over else found.verb, found.rule
    if spent_frac < LITTLE:
        name, verb, rule = f"{name} slowly", f"{verb} slowly", f"{rule}, which is {n.share(spent_frac)} of the start"
    if over and rows_end is None:
        verb += " at the end"
    return _up_to(Fate(name, verb, rule), rows_end)


def _up_to(found: Fate, step: int | None) -> Fate:
    if step is None:
        return found
    return replace(found, name=f"{found.name} up to step {step}", verb=f"{found.verb} up to step {step}")


def are_steps_lost(summary: RunSummary) -> bool:
    """Whether rollout steps were made and not one of their rows is there."""
    return not summary.num_steps and (summary.status.step > 0 or summary.num_updates > 0)


def fate_of(summary: RunSummary) -> Fate | None:
    """What became of a run's entropy, also where there is no law; None where nothing is known yet."""
    entropy = summary.entropy
    if entropy is None:
        return _LOST if are_steps_lost(summary) else None
    told = [*summary.notes, *summary.gaps.get("steps", [])]
    ends = [int(found.group(1)) for sentence in told if (found := _ROWS_END.search(sentence))]
    return fate(
        entropy.phase,
        0.0 if entropy.ratio is None else 1 - entropy.ratio,
        summary.num_steps,
        is_over=summary.status.state != "running",
        rows_end=min(ends, default=None),
    )


def fate_of_subject(subject: Subject) -> Fate | None:
    """The same of a run folder or a log."""
    if subject.summary is not None:
        return fate_of(subject.summary)
    if subject.told is None or subject.points is None:
        return None
    return fate(subject.told.phase, subject.told.entropy_spent_frac, len(subject.points.entropies))
