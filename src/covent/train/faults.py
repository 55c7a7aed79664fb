"""What a person should look at when verifiers fail: the responses, and what happened, as rows of the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Literal

from covent.store.schema import FaultRow
from covent.tasks import Answer, Judgement

_MAX_ROWS = 20
_MAX_CHARS = 500


def faults(
    phase: Literal["train", "validation", "test"],
    step: int,
    answers: Mapping[tuple[int, int], Answer],
    judgements: Mapping[tuple[int, int], Judgement],
) -> list[FaultRow]:
    """The first of a step's time-outs, crashes, errors and warnings.

    Args:
        phase: what was judged.
        step: rollout steps before it.
        answers: by (group, sample); of an evaluation, (number of the problem, number of the sample).
        judgements: the same keys.
    """
    found = (identity for identity, judgement in judgements.items() if judgement.is_fault)
    return [
        FaultRow(
            phase=phase,
            step=step,
            group=group,
            sample=sample,
            prompt=answers[group, sample].problem.prompt[-_MAX_CHARS:],
            response=answers[group, sample].text[-_MAX_CHARS:],
            verdict=str(judgements[group, sample].verdict),
            reason=judgements[group, sample].reason or judgements[group, sample].warning,
        )
        for group, sample in islice(found, _MAX_ROWS)
    ]
