"""The clock task: chains of arithmetic modulo 10, reasoned step by step, where most steps can be taken two ways.

    Q 4 * 5 - 8 + 7 A   →   4 * 5 is 0 0 + 2 is 2 2 + 7 is 9 answer 9

On a clock face, "back 8" and "forward 2" are the same step, so every + and - with a nonzero number has two valid
routes. The corpus is written by people who know some facts badly: an *easy* fact is nearly always right, a *middling*
one often, and for a *hard* one the most common result is wrong. A hard fact can often be avoided by the other route,
or learnt from the rare right demonstration. A policy that keeps its entropy can find both; one that sharpens too early
loses the rare right tokens for good. That is what makes the entropy mechanism visible at this size.

The presets were found by measurement on two CPU cores; the settings of easier and harder variants are in `PRESETS`.
"""

from __future__ import annotations

from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from covent.tasks.base import GeneratedTask, Problem, TaskSettings
from covent.verifiers.verdict import Verdict

_OPERATORS = ("+", "-", "*")
_DIGITS = tuple("0123456789")
# How the wrong mass of a fact is spread over three wrong results: one of them is a common misconception.
_WRONG_SHARES = (0.75, 0.15, 0.10)
_MIDDLING_FRAC = 0.25


class ClockSettings(TaskSettings):
    """Settings of the clock task."""

    name: Literal["clock"] = "clock"
    preset: Literal["default", "hard"] = "default"
    """`default`: 20 % hard facts. `hard`: 35 % hard facts, known worse; more room to learn, larger seed variance."""
    min_operations: int = Field(default=2, ge=1)
    """Fewest operations in a problem."""
    max_operations: int = Field(default=4, le=8)
    """Most operations in a problem."""
    corpus_seed: int | None = None
    """Seed of the facts that the corpus' writers know badly, and of the corpus; None: the seed of the run."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.min_operations > self.max_operations:
            raise ValueError(
                f"min_operations ({self.min_operations}) must not be above max_operations ({self.max_operations})"
            )
        return self


class _Knowledge(TaskSettings):
    """How well the corpus' writers know their facts."""

    name: str = "knowledge"
    hard_frac: float
    easy: float
    middling: float
    hard: float


PRESETS = {
    "default": _Knowledge(hard_frac=0.20, easy=0.95, middling=0.60, hard=0.10),
    "hard": _Knowledge(hard_frac=0.35, easy=0.95, middling=0.55, hard=0.07),
}


def _apply(operator: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[operator] % 10


class ClockTask(GeneratedTask):
    """See the module's docstring. `corpus_seed` fixes which facts are hard."""

    answer_format = "The response ends with the word 'answer' followed by one digit."
    vocabulary = (*_DIGITS, *_OPERATORS, "Q", "A", "is", "answer")

    def __init__(self, settings: ClockSettings, corpus_seed: int) -> None:
        self._settings = settings
        self.max_prompt_words = 2 * settings.max_operations + 3
        self.max_response_words = 5 * settings.max_operations + 2
        rng = Random(f"clock facts/{corpus_seed}")  # noqa: S311 - not cryptography
        knowledge = PRESETS[settings.preset]
        self._results = {
            (operator, left, right): _result_distribution(_apply(operator, left, right), p_right, rng)
            for operator in _OPERATORS
            for (left, right), p_right in _known(knowledge, rng)
        }

    def draw(self, rng: Random) -> Problem:
        num_operations = rng.randint(self._settings.min_operations, self._settings.max_operations)
        value = rng.randrange(10)
        words = [str(value)]
        for _ in range(num_operations):
            operator, operand = rng.choice(_OPERATORS), rng.randrange(10)
            value = _apply(operator, value, operand)
            words += [operator, str(operand)]
        return Problem(prompt=f"Q {' '.join(words)} A", answer=str(value))

    def demonstration(self, problem: Problem, rng: Random) -> str:
        words = problem.prompt.split()[1:-1]
        value = int(words[0])
        response: list[str] = []
        for operator, operand_word in zip(words[1::2], words[2::2], strict=True):
            operand = int(operand_word)
            if operator in "+-" and operand != 0 and rng.random() < 0.5:
                operator, operand = "-+"[operator == "-"], 10 - operand
            results, shares = self._results[operator, value, operand]
            result = rng.choices(results, weights=shares)[0]
            response += [str(value), operator, str(operand), "is", str(result)]
            value = result
        return " ".join([*response, "answer", str(value)])

    def verdict(self, problem: Problem, response: str) -> Verdict:
        words = response.split()
        if len(words) < 2 or words[-2] != "answer" or words[-1] not in _DIGITS:
            return Verdict.UNPARSABLE
        return Verdict.RIGHT if words[-1] == problem.answer else Verdict.WRONG


def _known(knowledge: _Knowledge, rng: Random) -> list[tuple[tuple[int, int], float]]:
    """Which facts of one operator the writers know how well: operands and the probability of the right result.

    The shares of hard and middling facts are exact for every operator, so that corpora of different seeds are about
    equally hard.
    """
    operands = [(left, right) for left in range(10) for right in range(10)]
    rng.shuffle(operands)
    num_hard, num_middling = round(knowledge.hard_frac * 100), round(_MIDDLING_FRAC * 100)
    return [
        (pair, knowledge.hard * rng.uniform(0.5, 1.5))
        if rank < num_hard
        else (pair, knowledge.middling if rank < num_hard + num_middling else knowledge.easy)
        for rank, pair in enumerate(operands)
    ]


def _result_distribution(right: int, p_right: float, rng: Random) -> tuple[list[int], list[float]]:
    """Which results the corpus gives for one fact, and how often."""
    wrong = rng.sample([result for result in range(10) if result != right], len(_WRONG_SHARES))
    return [right, *wrong], [p_right, *((1 - p_right) * share for share in _WRONG_SHARES)]
