"""Tasks of reasoning-gym: its problems, its scoring, both in a child process with a fixed hash seed.

Its generators and scorers are other people's code over random text: some calculate symbolically, and some depend on the
order of sets. In a child they can neither hang the run nor differ from one run to the next.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

from pydantic import Field

from covent.errors import ConfigError, MissingExtraError
from covent.tasks.base import Answer, GeneratedTask, Problem, TaskSettings
from covent.verifiers.children import Children, Limits, Outcome
from covent.verifiers.exact import marked_answer
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

_TARGET = "covent.tasks.gym:entries_and_scores"
_START_S = 120.0
_NUM_LOOKED_AT = 200
_SPARE = 1.25


class GymSettings(TaskSettings):
    """Settings of a task of reasoning-gym (the `tasks` extra)."""

    name: Literal["reasoning_gym"] = "reasoning_gym"
    dataset: str = "chain_sum"
    """Its name in reasoning-gym, for example `chain_sum` or `leg_counting`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Its configuration, for example `{"min_terms": 2, "max_terms": 3}`."""
    instances: int = Field(default=100_000, ge=100)
    """Problems are drawn from so many."""
    marked: bool = False
    r"""The answer is what the last `<answer>` or `\boxed{}` encloses; otherwise all of the response is the answer."""
    instruction: str = ""
    """Text after each question."""
    right_at: float = Field(default=1.0, gt=0, le=1)
    """A score of at least this is right."""
    wrong_frac: float = Field(default=0.5, ge=0, le=1)
    """Share of wrong answers in the corpus that a model made here starts from."""
    corpus_seed: int | None = None
    """Seed of the corpus; None: the seed of the run."""


class GymTask(GeneratedTask):
    """See the module's docstring."""

    spelling = "characters"

    def __init__(self, settings: GymSettings, corpus_seed: int, verifier: VerifierSettings) -> None:
        """Raises: ConfigError: no such data set, or not with these options. MissingExtraError."""
        _require_reasoning_gym()
        self._settings, self._timeout_s = settings, verifier.timeout_s
        self._children = Children(
            _TARGET,
            {"dataset": settings.dataset, "options": settings.options, "instances": settings.instances},
            size=verifier.processes,
            limits=Limits(memory_mb=max(2048, verifier.memory_mb), cpu_s=verifier.timeout_s, no_files=True),
            environment={"PYTHONHASHSEED": "0", "HOME": os.environ.get("HOME", "/")},
        )
        self.answer_format = (
            "The answer stands in <answer> or \\boxed{}." if settings.marked else "The response is the answer."
        )
        rng = Random(f"gym words/{corpus_seed}")  # noqa: S311 - not cryptography
        drawn = [self.draw(rng) for _ in range(_NUM_LOOKED_AT)]
        texts = [text for problem in drawn for text in (problem.prompt, problem.answer)]
        self.vocabulary = tuple(sorted({character for text in texts for character in text} | set(" <answer>/")))
        self.max_prompt_words = int(_SPARE * max(len(problem.prompt) for problem in drawn))
        self.max_response_words = int(_SPARE * max(len(self._response(problem.answer)) for problem in drawn)) + 1

    def close(self) -> None:
        """End the children."""
        self._children.close()

    def draw(self, rng: Random) -> Problem:
        index = rng.randrange(self._settings.instances)
        outcome = self._children.ask({"index": index}, _START_S)
        if outcome.kind != "done":
            raise ConfigError(
                f"task.dataset = '{self._settings.dataset}' of reasoning-gym with task.options ="
                f" {self._settings.options}: {outcome.kind}: {outcome.detail}"
            )
        question, answer = outcome.value
        prompt = f"{question} {self._settings.instruction}".strip()
        return Problem(prompt=prompt, answer=answer, truth=index, source=self._settings.dataset)

    def demonstration(self, problem: Problem, rng: Random) -> str:
        other = rng.random() < self._settings.wrong_frac
        return self._response(self.draw(rng).answer if other else problem.answer)

    def _response(self, answer: str) -> str:
        return f"<answer>{answer}</answer>" if self._settings.marked else answer

    def verdict(self, problem: Problem, response: str) -> Verdict:
        (judgement,) = self.judge([Answer(problem, response)])
        return judgement.verdict

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """See `Task`: reasoning-gym's own scores."""
        read = [marked_answer(answer.text) if self._settings.marked else answer.text or None for answer in answers]
        requests = [
            {"index": answer.problem.truth, "answer": text}
            for answer, text in zip(answers, read, strict=True)
            if text is not None
        ]
        outcomes = iter(self._children.ask_all(requests, self._timeout_s, poll))
        return [Judgement.of(Verdict.UNPARSABLE) if text is None else self._judgement(next(outcomes)) for text in read]

    def _judgement(self, outcome: Outcome) -> Judgement:
        reason = f"reasoning-gym: {outcome.kind}: {outcome.detail}"
        match outcome.kind:
            case "done":
                return Judgement.of(Verdict.RIGHT if outcome.value >= self._settings.right_at else Verdict.WRONG)
            case "time-out":
                return Judgement.of(Verdict.TIME_OUT, reason)
            case "memory" | "crash":
                return Judgement.of(Verdict.CRASH, reason)
            case _:
                return Judgement.of(Verdict.ERROR, reason)


def _require_reasoning_gym() -> None:
    from importlib.util import find_spec

    if find_spec("reasoning_gym") is None:
        raise MissingExtraError(
            "task.name = reasoning_gym needs reasoning-gym, which is not installed. Install the extra, for which a C"
            " compiler is needed: pip install 'covent[tasks]'"
        )


def entries_and_scores(settings: Any) -> Callable[[Any], Any]:
    """In the child: the handler that gives entry number `index`, or the score of an answer to it."""
    import reasoning_gym

    logging.disable()
    dataset = reasoning_gym.create_dataset(
        settings["dataset"], size=settings["instances"], seed=0, **settings["options"]
    )

    def handle(request: Any) -> Any:
        entry = dataset[request["index"]]
        if "answer" in request:
            return float(dataset.score_answer(answer=request["answer"], entry=entry))
        return [str(entry["question"]), str(entry["answer"])]

    return handle
