"""A task whose responses a user's reward function judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from covent.tasks.base import Answer, Task
from covent.verifiers.functions import RewardCall, RewardFunction
from covent.verifiers.verdict import Judgement, Poll, keep_waiting

_SHOWN_CHARS = 60


class RewardedTask:
    """Another task in everything but its judgements."""

    def __init__(self, task: Task, function: RewardFunction) -> None:
        self.task = task
        self._function = function

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """See `Task`: the function's scores."""
        return self._function.judge([_call(number, answer) for number, answer in enumerate(answers)], poll)


def _call(number: int, answer: Answer) -> RewardCall:
    """What either signature of a reward function is given for one answer."""
    problem = answer.problem
    is_chat = bool(problem.messages)
    truth = problem.answer if problem.truth is None else problem.truth
    shown = problem.prompt[-_SHOWN_CHARS:].replace("\n", " ")
    return RewardCall(
        prompt=[dict(message) for message in problem.messages] if is_chat else problem.prompt,
        completion=[{"role": "assistant", "content": answer.text}] if is_chat else answer.text,
        response=answer.text,
        token_ids=answer.token_ids,
        source=problem.source,
        ground_truth=truth,
        extra_info=problem.columns.get("extra_info") or {},
        columns=problem.columns or {"answer": problem.answer},
        label=f"sample {number}, {problem.place or 'prompt'} '{shown}'",
    )
