"""The code task: gold programs pass, perturbed ones and misconceptions do not, and tests mean what the words say."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from covent.errors import IsolationError
from covent.tasks import Answer, CodeSettings, CodeTask, Problem, Verdict, VerifierSettings
from covent.tasks.code import _KINDS
from tests.verifiers.test_sandbox import MISSING

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
VERIFIER = VerifierSettings(timeout_s=60, memory_mb=256)


@pytest.fixture(scope="module")
def task() -> Iterator[CodeTask]:
    made = CodeTask(CodeSettings(), 0, VERIFIER)
    yield made
    made.close()


def problem_of(task: CodeTask, prompt: str) -> Problem:
    """The problem with this prompt, found by drawing."""
    rng = Random(0)
    return next(problem for problem in iter(lambda: task.draw(rng), None) if problem.prompt == prompt)


def test_what_the_words_mean(task: CodeTask) -> None:
    """By hand: the tests of a few descriptions."""
    expected = {
        "Q number : double : def f ( x ) :": lambda x: 2 * x,
        "Q number : half : def f ( x ) :": lambda x: (x - x % 2) // 2,
        "Q number : at least 3 : def f ( x ) :": lambda x: x if x > 3 else 3,
        "Q text : reverse : def f ( x ) :": lambda x: "".join(reversed(x)),
        "Q text : drop 2 : def f ( x ) :": lambda x: "".join(c for i, c in enumerate(x) if i > 1),
        "Q text : upper : def f ( x ) :": lambda x: "".join(chr(ord(c) - 32) for c in x),
    }
    for prompt, meaning in expected.items():
        cases = problem_of(task, prompt).truth["cases"]
        assert len(cases) == 6
        assert all(meaning(given) == value for (given,), value in cases)


def test_gold_programs_pass(task: CodeTask) -> None:
    rng = Random(1)
    drawn = [task.draw(rng) for _ in range(40)]
    judged = task.judge([Answer(problem, problem.answer) for problem in drawn])
    assert {judgement.verdict for judgement in judged} == {Verdict.RIGHT}


def test_every_right_way_passes_and_every_misconception_fails(task: CodeTask) -> None:
    """Each step on its own, with an operand for which it does something."""
    answers, expected = [], []
    for kind, steps in _KINDS.items():
        for step in steps:
            name = step.name.replace(" k", " 4")
            problem = problem_of(task, f"Q {kind} : {name} : def f ( x ) :")
            for ways, verdict in ((step.right, Verdict.RIGHT), (step.wrong, Verdict.WRONG)):
                answers += [Answer(problem, f"return {way}".replace(" k", " 4").replace("k ", "4 ")) for way in ways]
                expected += [verdict] * len(ways)
    found = [judgement.verdict for judgement in task.judge(answers)]
    wrong = [(a.problem.prompt, a.text, f) for a, f, e in zip(answers, found, expected, strict=True) if f is not e]
    assert wrong == []


def test_what_is_no_body_is_no_program(task: CodeTask) -> None:
    problem = problem_of(task, "Q number : double : def f ( x ) :")
    texts = {
        "return 2 * x": Verdict.RIGHT,
        "y = x ; return y + y": Verdict.RIGHT,
        "": Verdict.UNPARSABLE,
        "return x *": Verdict.UNPARSABLE,
        "x = 2 * x": Verdict.WRONG,
        "return y": Verdict.WRONG,
        "return x\nf = lambda x: 2 * x": Verdict.RIGHT,
    }
    judged = task.judge([Answer(problem, text) for text in texts])
    assert {text: each.verdict for text, each in zip(texts, judged, strict=True)} == texts
    assert task.verdict(problem, "return x + x") is Verdict.RIGHT


def test_the_same_program_runs_once(task: CodeTask, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, runs = problem_of(task, "Q number : double : def f ( x ) :"), []
    judge_one = task._programs._judge_one
    monkeypatch.setattr(task._programs, "_judge_one", lambda pair, poll: runs.append(pair) or judge_one(pair, poll))
    texts = ["return x + x", "return x", "return x + x", "return x"]
    judged = task.judge([Answer(problem, text) for text in texts])
    assert [judgement.reward for judgement in judged] == [1.0, 0.0, 1.0, 0.0]
    assert len(runs) == 2


def test_hard_steps_are_mostly_written_wrong() -> None:
    seeds = [CodeTask(CodeSettings(max_steps=1, hard_frac=frac), 3, VERIFIER) for frac in (0.0, 1.0)]
    shares = []
    for made in seeds:
        rng = Random(2)
        drawn = [made.draw(rng) for _ in range(60)]
        judged = made.judge([Answer(problem, made.demonstration(problem, rng)) for problem in drawn])
        shares.append(sum(judgement.verdict is Verdict.RIGHT for judgement in judged) / len(judged))
        made.close()
    assert shares[0] > 0.75 and shares[1] < 0.5


def test_where_programs_cannot_be_isolated_the_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from covent.verifiers import sandbox

    monkeypatch.setitem(sandbox._SURROUNDINGS, "files", [])
    with pytest.raises(IsolationError, match="allow_unsafe_programs"):
        CodeTask(CodeSettings(), 0, VERIFIER)
