"""Stopping a run whose verifier fails: the share of responses that could not be judged, over the newest of them."""

from __future__ import annotations

from collections.abc import Sequence

from covent.errors import VerifierError
from covent.verifiers.verdict import Judgement, Verdict

WINDOW = 100
"""The share is over the newest batches that together hold at least so many responses, and never over fewer."""


class ErrorWatch:
    """Counts errors batch by batch; one alone among 100 responses stops nothing at a limit of 1 %."""

    def __init__(self, max_error_frac: float, counted: Sequence[tuple[int, int]] = ()) -> None:
        """For a run that goes on, `counted` is what its watch had counted."""
        self._limit = max_error_frac
        self._batches = list(counted)

    @property
    def counted(self) -> tuple[tuple[int, int], ...]:
        """Errors and responses of the batches that still count."""
        return tuple(self._batches)

    def see(self, judgements: Sequence[Judgement], what: str) -> None:
        """Take in a batch.

        Args:
            judgements: of all its responses.
            what: where they come from, for the message, for example `rollout step 3`.

        Raises: VerifierError: too many of the newest are errors; the message has the first reasons.
        """
        errors = [judgement for judgement in judgements if judgement.verdict is Verdict.ERROR]
        self._batches.append((len(errors), len(judgements)))
        while sum(count for _, count in self._batches[1:]) >= WINDOW:
            del self._batches[0]
        num_errors = sum(count for count, _ in self._batches)
        num_seen = sum(count for _, count in self._batches)
        allowed = self._limit * max(WINDOW, num_seen)
        if errors and num_errors > allowed:
            reasons = list(dict.fromkeys(judgement.reason for judgement in errors))[:3]
            raise VerifierError(
                f"In {what}, {len(errors)} of {len(judgements)} responses could not be judged"
                f" ({num_errors} of the newest {num_seen}; verifier.max_error_frac = {self._limit:g} allows"
                f" {int(allowed)} of {max(WINDOW, num_seen)}): {'; '.join(reasons)}."
                " Mend the verifier, or raise verifier.max_error_frac."
            )
