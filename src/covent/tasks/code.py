"""The code task: write a small Python function for a description in words; unit tests in a sandbox decide.

    Q number : triple , subtract 4 , at least 0 : def f ( x ) :   →   x = x * 3 ; x = x - 4 ; return max ( x , 0 )

Most steps can be written in several ways. The corpus' writers know some steps badly and then write a common
misconception: `x [ k : ]` for the first k characters, `x * 2` for the square. No answer is compared as text: whatever
passes the tests is right. The tests of a problem follow from its description alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from covent.tasks.base import Answer, GeneratedTask, Problem, TaskSettings
from covent.verifiers.programs import ProgramVerifier
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

_NUM_TESTS = 6
_LETTERS = "abcdefg"
_DIGITS = tuple("0123456789")


@dataclass(frozen=True)
class _Step:
    """One step of a description: its name, what it does, and how people write it on one line; `k` is a digit."""

    name: str
    meaning: Callable[[Any, int], Any]
    right: tuple[str, ...]
    wrong: tuple[str, ...]


_NUMBER_STEPS = (
    _Step("add k", lambda x, k: x + k, ("x + k", "k + x"), ("x - k", "x * k")),
    _Step("subtract k", lambda x, k: x - k, ("x - k", "- k + x"), ("k - x", "x + k")),
    _Step("double", lambda x, k: 2 * x, ("x * 2", "x + x"), ("x * x", "x + 2")),
    _Step("triple", lambda x, k: 3 * x, ("x * 3", "x + x + x"), ("x * x * x", "x + 3")),
    _Step("square", lambda x, k: x * x, ("x * x", "x ** 2"), ("x * 2", "x + x")),
    _Step("negate", lambda x, k: -x, ("- x", "0 - x"), ("1 - x", "abs ( x )")),
    _Step("half", lambda x, k: x // 2, ("x // 2",), ("x / 2", "x - 2")),
    _Step("remainder k", lambda x, k: x % k, ("x % k",), ("x // k", "x - k")),
    _Step("at least k", lambda x, k: max(x, k), ("max ( x , k )", "max ( k , x )"), ("min ( x , k )", "x + k")),
    _Step("at most k", lambda x, k: min(x, k), ("min ( x , k )", "min ( k , x )"), ("max ( x , k )", "x - k")),
)
_TEXT_STEPS = (
    _Step("first k", lambda x, k: x[:k], ("x [ : k ]",), ("x [ k : ]", "x [ k ]")),
    _Step("last k", lambda x, k: x[-k:], ("x [ - k : ]",), ("x [ : - k ]", "x [ k : ]")),
    _Step("drop k", lambda x, k: x[k:], ("x [ k : ]",), ("x [ : k ]", "x [ - k : ]")),
    _Step("reverse", lambda x, k: x[::-1], ("x [ : : - 1 ]",), ("x [ : - 1 ]", "x [ - 1 : ]")),
    _Step("twice", lambda x, k: x + x, ("x + x", "x * 2"), ("x * x", "x + 2")),
    _Step("upper", lambda x, k: x.upper(), ("x . upper ( )",), ("x . lower ( )", "upper ( x )")),
)
_KINDS = {"number": _NUMBER_STEPS, "text": _TEXT_STEPS}


class CodeSettings(TaskSettings):
    """Settings of the code task."""

    name: Literal["code"] = "code"
    min_steps: int = Field(default=1, ge=1)
    """Fewest steps of a description."""
    max_steps: int = Field(default=3, le=4)
    """Most steps of a description."""
    hard_frac: float = Field(default=0.4, ge=0, le=1)
    """Share of steps that the corpus' writers mostly write wrong."""
    corpus_seed: int | None = None
    """Seed of the steps that the corpus' writers know badly, and of the corpus; None: the seed of the run."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps ({self.min_steps}) must not be above max_steps ({self.max_steps})")
        return self


class CodeTask(GeneratedTask):
    """See the module's docstring. `corpus_seed` fixes which steps are hard."""

    answer_format = "The response is the body of the function on one line, its statements separated by ';'."
    vocabulary = tuple(
        dict.fromkeys(
            word
            for words in (
                *(step.name for steps in _KINDS.values() for step in steps),
                *(way for steps in _KINDS.values() for step in steps for way in (*step.right, *step.wrong)),
                *_DIGITS,
                "Q number text : , def f ( x ) x = ; return",
            )
            for word in words.split()
            if word != "k"
        )
    )

    def __init__(self, settings: CodeSettings, corpus_seed: int, verifier: VerifierSettings) -> None:
        """Raises: IsolationError: this machine cannot isolate programs."""
        self._settings = settings
        self._programs = ProgramVerifier(verifier)
        self._programs.warm()
        every = [step for steps in _KINDS.values() for step in steps]
        longest = max(len(way.split()) for step in every for way in step.right + step.wrong)
        self.max_prompt_words = 9 + 4 * settings.max_steps
        self.max_response_words = (longest + 3) * settings.max_steps
        rng = Random(f"code steps/{corpus_seed}")  # noqa: S311 - not cryptography
        self._right_frac: dict[str, float] = {}
        for steps in _KINDS.values():
            hard = set(rng.sample([step.name for step in steps], round(settings.hard_frac * len(steps))))
            self._right_frac |= {step.name: 0.25 if step.name in hard else 0.9 for step in steps}

    def close(self) -> None:
        """End the sandboxes."""
        self._programs.close()

    def draw(self, rng: Random) -> Problem:
        kind = rng.choice(tuple(_KINDS))
        num_steps = rng.randint(self._settings.min_steps, self._settings.max_steps)
        steps = [rng.choice(_KINDS[kind]) for _ in range(num_steps)]
        operands = [rng.randint(1, 9) for _ in steps]
        words = " , ".join(_with(step.name, operand) for step, operand in zip(steps, operands, strict=True))
        prompt = f"Q {kind} : {words} : def f ( x ) :"
        tests = _tests(prompt, kind, steps, operands)
        return Problem(prompt=prompt, answer=_line(step_ways(steps, operands)), truth=tests)

    def demonstration(self, problem: Problem, rng: Random) -> str:
        steps, operands = _read(problem.prompt)
        ways = []
        for step, operand in zip(steps, operands, strict=True):
            knows = rng.random() < self._right_frac[step.name]
            ways.append(_with(rng.choice(step.right if knows else step.wrong), operand))
        return _line(ways)

    def verdict(self, problem: Problem, response: str) -> Verdict:
        (judgement,) = self.judge([Answer(problem, response)])
        return judgement.verdict

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """See `Task`: each program with its tests, in a sandbox."""
        pairs = [(f"def f ( x ) : {answer.text}", answer.problem.truth) for answer in answers]
        return self._programs.judge(pairs, poll)


def step_ways(steps: Sequence[_Step], operands: Sequence[int]) -> list[str]:
    """The first right way to write each step."""
    return [_with(step.right[0], operand) for step, operand in zip(steps, operands, strict=True)]


def _with(words: str, operand: int) -> str:
    return " ".join(str(operand) if word == "k" else word for word in words.split())


def _line(ways: Sequence[str]) -> str:
    """The body of the function: all steps but the last are assignments."""
    return " ; ".join([*(f"x = {way}" for way in ways[:-1]), f"return {ways[-1]}"])


def _read(prompt: str) -> tuple[list[_Step], list[int]]:
    """Steps and operands of a prompt; the operand of a step that has none is 1."""
    _, kind, _, *words = prompt.split()
    steps, operands = [], []
    for part in " ".join(words).split(" : ")[0].split(" , "):
        *name, last = part.split()
        operand = int(last) if last in _DIGITS else None
        wanted = " ".join([*name, "k" if operand is not None else last])
        steps.append(next(step for step in _KINDS[kind] if step.name == wanted))
        operands.append(operand or 1)
    return steps, operands


def _tests(prompt: str, kind: str, steps: Sequence[_Step], operands: Sequence[int]) -> dict[str, Any]:
    """Calls with what the description means, from inputs that follow from the prompt."""
    rng = Random(f"tests/{prompt}")  # noqa: S311 - not cryptography
    cases = []
    for i in range(_NUM_TESTS):
        given: Any = rng.randint(-9, 20) if kind == "number" else "".join(rng.choices(_LETTERS, k=3 + 2 * i))
        value = given
        for step, operand in zip(steps, operands, strict=True):
            value = step.meaning(value, operand)
        cases.append([[given], value])
    return {"kind": "calls", "name": "f", "cases": cases}
