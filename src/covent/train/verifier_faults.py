"""What a person should look at when verifiers fail: the responses, and what happened, as rows of the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from covent.store.schema import VerifierFaultRow
from covent.tasks import Answer, Judgement

_MAX_ROWS = 20
_MAX_CHARS = 500


def verifier_faults(
    phase: Literal["train", "validation", "test"],
    step: int,
    identities: Sequence[tuple[int, int]],
    answers: Sequence[Answer],
    judgements: Sequence[Judgement],
) -> list[VerifierFaultRow]:
    """The first of a step's time-outs, crashes, errors and warnings.

    Args:
        phase: what was judged.
        step: rollout steps before it.
        identities: (group, sample) of each; of an evaluation, the numbers of problem and sample.
        answers: in the same order.
        judgements: in the same order.
    """
    judged = zip(identities, answers, judgements, strict=True)
    return [
        VerifierFaultRow(
            phase=phase,
            step=step,
            group=group,
            sample=sample,
            prompt=answer.problem.prompt[-_MAX_CHARS:],
            response=answer.text[-_MAX_CHARS:],
            verdict=str(judgement.verdict),
            reason=judgement.reason or judgement.warning,
        )
        for (group, sample), answer, judgement in judged
        if judgement.is_fault
    ][:_MAX_ROWS]
