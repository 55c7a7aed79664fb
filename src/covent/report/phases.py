"""What became of a run's entropy, in the words of the head of the page and of the cards: both come from here."""

from __future__ import annotations

from dataclasses import dataclass

from covent.logs.advice import Phase
from covent.logs.explain import COLLAPSED, FEWEST_STEPS, ROSE, STEADY, SURGED
from covent.report import numbers as n
from covent.report.summary import EntropySummary

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

_HELD = Fate("Held", "held", f"entropy has not fallen, and ends at most at {ROSE:g} times its start")


def fate(phase: Phase, spent_frac: float, num_steps: int) -> Fate:
    """A phase in words.

    Args:
        phase: as `covent.logs.explain` has it.
        spent_frac: share of the entropy that is spent; negative where it rose.
        num_steps: steps with an entropy.
    """
    if phase == "too short" and num_steps >= FEWEST_STEPS:
        return _HELD
    found = _FATES[phase]
    if phase == "spending" and spent_frac < LITTLE:
        rule = f"{found.rule}, which is {n.share(spent_frac)} of the start"
        return Fate(f"{found.name} slowly", f"{found.verb} slowly", rule)
    return found


def fate_of(entropy: EntropySummary, num_steps: int) -> Fate:
    """The same of a run's summary, which has a phase also where there is no law."""
    return fate(entropy.phase, 0.0 if entropy.ratio is None else 1 - entropy.ratio, num_steps)
