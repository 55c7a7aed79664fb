"""B5 row 29: gold scores 1 and perturbed gold 0, for every task and verifier; and where two verifiers disagree."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from itertools import islice
from random import Random
from typing import Any

import pytest

from covent.tasks import (
    Answer,
    ClockSettings,
    ClockTask,
    CodeSettings,
    CodeTask,
    GridSettings,
    GridTask,
    GymSettings,
    GymTask,
    Problem,
    Verdict,
    VerifierSettings,
)
from covent.verifiers.exact import judge_exactly
from covent.verifiers.mathematics import MathVerifier
from tests.support.figures import figure
from tests.verifiers.rational_items import perturbed, rational_items
from tests.verifiers.test_sandbox import MISSING

VERIFIER = VerifierSettings(timeout_s=60, memory_mb=512)
MIXED = re.compile(r"[0-9]\\frac")
Pairs = Iterator[tuple[Problem, str, str]]
"""Problems with a right response and a wrong one."""


def clock() -> tuple[Any, Pairs]:
    task, rng = ClockTask(ClockSettings(), 0), Random(0)

    def pairs() -> Pairs:
        for problem in task.stream("train", 0):
            other = str((int(problem.answer) + rng.randint(1, 9)) % 10)
            yield problem, f"answer {problem.answer}", f"answer {other}"

    return task, pairs()


def grid() -> tuple[Any, Pairs]:
    """One move of a right walk mirrored: it leaves the grid, hits a wall, jumps, or ends elsewhere."""
    task, rng = GridTask(GridSettings(), 0), Random(0)
    mirrored = {"N": "S", "S": "N", "E": "W", "W": "E"}

    def pairs() -> Pairs:
        for problem in task.stream("train", 0):
            words = problem.answer.split()
            place = 3 * rng.randrange(len(words) // 3)
            yield problem, problem.answer, " ".join([*words[:place], mirrored[words[place]], *words[place + 1 :]])

    return task, pairs()


def code() -> tuple[Any, Pairs]:
    """The result of a right program changed by one: a number more, a letter more."""
    if MISSING:
        pytest.skip(MISSING)
    task = CodeTask(CodeSettings(), 0, VERIFIER)

    def pairs() -> Pairs:
        for problem in task.stream("train", 0):
            more = "+ 1" if problem.prompt.startswith("Q number") else "+ 'a'"
            head, _, value = problem.answer.rpartition("return ")
            yield problem, problem.answer, f"{head}return ( {value} ) {more}"

    return task, pairs()


def gym(dataset: str) -> Callable[[], tuple[Any, Pairs]]:
    def made() -> tuple[Any, Pairs]:
        pytest.importorskip("reasoning_gym", reason="needs the tasks extra")
        task = GymTask(GymSettings(dataset=dataset), 0, VERIFIER)

        def pairs() -> Pairs:
            for problem in task.stream("train", 0):
                yield problem, problem.answer, str(int(problem.answer) + 1)

        return task, pairs()

    return made


TASKS = {
    "clock": clock,
    "grid": grid,
    "code": code,
    "reasoning-gym chain_sum": gym("chain_sum"),
    "reasoning-gym leg_counting": gym("leg_counting"),
}


def rates(name: str, count: int) -> tuple[int, int]:
    """Right responses refused and wrong ones accepted, of `count` each."""
    task, pairs = TASKS[name]()
    with closing(task) if hasattr(task, "close") else nullcontext():
        refused = accepted = done = 0
        while done < count:
            part = list(islice(pairs, min(500, count - done)))
            done += len(part)
            right = task.judge([Answer(problem, good) for problem, good, _ in part])
            wrong = task.judge([Answer(problem, bad) for problem, _, bad in part])
            refused += sum(each.verdict is not Verdict.RIGHT for each in right)
            accepted += sum(each.verdict is Verdict.RIGHT for each in wrong)
    return refused, accepted


@pytest.mark.parametrize("name", TASKS)
def test_gold_scores_and_perturbed_gold_does_not(name: str) -> None:
    assert rates(name, 30) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_10000_items_of_each_task(name: str) -> None:
    count = 10_000
    refused, accepted = rates(name, count)
    assert (refused, accepted) == (0, 0)
    figure(29, f"{name}: {count:,} of {count:,} right answers accepted, 0 of {count:,} wrong ones")


@pytest.mark.slow
def test_10000_answers_by_both_verifiers_of_mathematics() -> None:
    """The exact matcher and math-verify by itself on the same pairs; truth by Python's fractions."""
    pytest.importorskip("math_verify", reason="needs the math extra")
    rng, count = Random(1), 10_000
    pairs: list[tuple[str, str]] = []
    for answer, truth, value in rational_items(rng, count):
        pairs += [(f"\\boxed{{{answer}}}", truth), (f"\\boxed{{{perturbed(value, rng)}}}", truth)]
    exact = [judge_exactly(*pair).verdict is Verdict.RIGHT for pair in pairs]
    verifier = MathVerifier(VERIFIER)
    requests = [{"answer": answer, "truth": f"\\boxed{{{truth}}}"} for answer, truth in pairs]
    alone = [outcome.value == "right" for outcome in verifier._children.ask_all(requests, 60)]
    both = [judgement.verdict is Verdict.RIGHT for judgement in verifier.judge(pairs)]
    verifier.close()
    told = []
    for name, found in (("exact", exact), ("math-verify alone", alone), ("exact, then math-verify", both)):
        refused, accepted = count - sum(found[::2]), sum(found[1::2])
        told.append(f"{name}: {refused} of {count:,} right answers refused, {accepted} wrong ones accepted")
    refused_forms = [pair for right, pair in zip(alone[::2], pairs[::2], strict=True) if not right]
    mixed = sum(any(MIXED.search(text) for text in pair) for pair in refused_forms)
    stops = sum(any(text.rstrip("}").endswith(".") for text in pair) for pair in refused_forms)
    agreed = sum(a == b for a, b in zip(exact, alone, strict=True))
    figure(
        29,
        f"rational answers by {'; '.join(told)}; they agree on {agreed:,} of {2 * count:,} (of the right answers that"
        f" math-verify refuses, {mixed} have a mixed number and {stops} a final full stop)",
    )
    assert sum(exact[::2]) == sum(both[::2]) == count
    assert sum(exact[1::2]) == sum(both[1::2]) == 0
