"""Typed verdicts. What the answer did is a verdict with a reward; what the verifier failed to do is an error without.

The rule behind `TIME_OUT` and `CRASH`: they are the answer's own doing and cost it the reward, since an answer that
could leave the baseline by hanging its verifier would be rewarded for it. A child process that was killed from
outside, starved of processor time or never started is the verifier's fault, and so is any failure of a reward
function that a user wrote: all of that is `ERROR`, the response leaves its group's baseline, and the rate is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

Poll = Callable[[], None]
"""Called again and again while a verifier waits; may raise to stop the waiting."""


class Verdict(StrEnum):
    """How a response was judged."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    """No answer of the task's format was found; a program that does not parse."""
    TIME_OUT = "time-out"
    """The answer kept its verifier, or itself, busy until the deadline."""
    CRASH = "crash"
    """The answer ended the process that judged or ran it, or ran out of the memory it may use."""
    ERROR = "error"
    """The verifier failed: nothing is known about the response."""
    NOT_APPLICABLE = "not applicable"
    """A reward function returned None: it does not judge this kind of response."""

    @property
    def is_judged(self) -> bool:
        """Whether the verdict says something about the response, so that it has a reward."""
        return self not in (Verdict.ERROR, Verdict.NOT_APPLICABLE)

    @property
    def reward(self) -> float | None:
        """1 if right, 0 if not; None where nothing is known."""
        return float(self is Verdict.RIGHT) if self.is_judged else None


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reward and, where it is not plain, its reason."""

    verdict: Verdict
    reward: float | None
    """None exactly where the verdict is no judgement: an error, or not applicable."""
    reason: str = ""
    """For people: what failed, with the name of the function or case. Empty for a plain verdict."""
    warning: str = ""
    """For people: something that was put right, and should not happen."""

    @property
    def is_fault(self) -> bool:
        """Whether it is worth keeping for a person to look at."""
        return bool(self.warning) or self.verdict in (Verdict.TIME_OUT, Verdict.CRASH, Verdict.ERROR)

    @classmethod
    def of(cls, verdict: Verdict, reason: str = "") -> Self:
        """The judgement with the verdict's own reward.

        Example:
            >>> Judgement.of(Verdict.RIGHT).reward, Judgement.of(Verdict.ERROR, "no child could be started").reward
            (1.0, None)
        """
        return cls(verdict, verdict.reward, reason)


def keep_waiting() -> None:
    """The `Poll` that never stops anything."""
