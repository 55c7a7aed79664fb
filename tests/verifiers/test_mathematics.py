"""math-verify in children: it decides what the exact matcher cannot, and no answer holds it up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest

from covent.errors import MissingExtraError, VerifierError
from covent.verifiers import mathematics
from covent.verifiers.exact import judge_exactly
from covent.verifiers.mathematics import MathVerifier
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Verdict
from tests.support.figures import figure
from tests.verifiers.hostile_answers import RIGHT, TRUTH, hostile_answers
from tests.verifiers.rational_items import perturbed, rational_items

pytest.importorskip("math_verify", reason="needs the math extra")

TIMEOUT_S = 0.3
GRACE_S = 0.5
MOST_STARVED = 100
Ask = Callable[[MathVerifier, str], tuple[Judgement, float]]
ENDS = {Verdict.WRONG, Verdict.UNPARSABLE, Verdict.TIME_OUT, Verdict.CRASH}


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    made = MathVerifier(VerifierSettings(timeout_s=30, memory_mb=1024))
    made.warm()
    yield made
    made.close()


def boxed(answer: str) -> str:
    return f"so it is \\boxed{{{answer}}}."


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}"),
        (r"x^2 - 1", "(x-1)(x+1)"),
        (r"\{1, 2\}", r"\{2, 1\}"),
        (r"x = 3", "3"),
        (r"2^{10}", "1024"),
        (r"\pi/2", r"$\frac{\pi}{2}$"),
        ("0.5", "#### 1/2"),
        (r"\text{Monday}", "Monday"),
    ],
)
def test_equal_answers_are_right(verifier: MathVerifier, answer: str, truth: str) -> None:
    assert verifier.judge([(boxed(answer), truth)]) == [Judgement.of(Verdict.RIGHT)]


@pytest.mark.parametrize(
    ("answer", "truth"),
    [(r"\frac{\sqrt{2}}{3}", r"\frac{1}{\sqrt{2}}"), ("x^2 + 1", "(x-1)(x+1)"), ("(1, 2)", "(2, 1)"), ("3", "4")],
)
def test_unequal_answers_are_wrong(verifier: MathVerifier, answer: str, truth: str) -> None:
    assert verifier.judge([(boxed(answer), truth)]) == [Judgement.of(Verdict.WRONG)]


def test_an_answer_has_to_be_marked_unless_it_is_looked_for_anywhere(verifier: MathVerifier) -> None:
    anywhere = MathVerifier(VerifierSettings(timeout_s=30), marked=False)
    pairs = [("The final answer is $2^{10}$.", "1024"), ("", "1024")]
    assert [judgement.verdict for judgement in verifier.judge(pairs)] == [Verdict.UNPARSABLE] * 2
    assert [judgement.verdict for judgement in anywhere.judge(pairs)] == [Verdict.RIGHT, Verdict.UNPARSABLE]
    anywhere.close()


def test_what_the_exact_matcher_knows_needs_no_child() -> None:
    never_started = MathVerifier(VerifierSettings())
    assert never_started.judge([(boxed("1/2"), "0.5"), ("no mark", "1")]) == [
        Judgement.of(Verdict.RIGHT),
        Judgement.of(Verdict.UNPARSABLE),
    ]
    assert never_started._children._state.server is None


def test_children_that_cannot_start_are_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "_TARGET", "covent.verifiers.mathematics:absent")
    with pytest.raises(VerifierError, match="absent"):
        MathVerifier(VerifierSettings()).judge([(boxed("x"), "y")])


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"covent\[math\]"):
        MathVerifier(VerifierSettings())


def seconds_of(verifier: MathVerifier, answer: str) -> tuple[Judgement, float]:
    start = time.monotonic()
    (judgement,) = verifier.judge([(boxed(answer), TRUTH)])
    return judgement, time.monotonic() - start


def in_another_thread(verifier: MathVerifier, answer: str) -> tuple[Judgement, float]:
    found: list[tuple[Judgement, float]] = []
    thread = threading.Thread(target=lambda: found.append(seconds_of(verifier, answer)))
    thread.start()
    thread.join()
    return found[0]


def as_it_stands(verifier: MathVerifier, response: str) -> tuple[Judgement, float]:
    return verifier.judge([(response, TRUTH)])[0], 0.0


def until_it_had_time(ask: Ask, verifier: MathVerifier, answer: str) -> tuple[Judgement, float, int]:
    """Where the machine had no time for the child, that says nothing of the answer, which is asked again.

    Returns: the judgement, the longest time, and how often it was asked again.
    """
    judgement, worst_s = ask(verifier, answer)
    again = 0
    while "starved" in judgement.reason and again < MOST_STARVED:
        again += 1
        judgement, seconds = ask(verifier, answer)
        worst_s = max(worst_s, seconds)
    return judgement, worst_s, again


@pytest.mark.parametrize("ask", [seconds_of, in_another_thread])
def test_hostile_answers_end_and_the_next_right_one_scores(ask: Ask) -> None:
    """B5 row 24, short form: every 37th answer."""
    hostile = MathVerifier(VerifierSettings(timeout_s=TIMEOUT_S, memory_mb=512, processes=1), marked=ask is seconds_of)
    hostile.warm()
    for answer in hostile_answers()[::37]:
        judgement, *_ = until_it_had_time(ask, hostile, answer)
        assert judgement.verdict in ENDS, (answer[:60], judgement)
        judgement, *_ = until_it_had_time(as_it_stands, hostile, RIGHT)
        assert judgement == Judgement.of(Verdict.RIGHT)
    hostile.close()


@pytest.mark.slow
def test_300_hostile_answers() -> None:
    """B5 row 24: 150 from the main thread and 150 from others, whole responses and marked answers."""
    settings = VerifierSettings(timeout_s=1.0, memory_mb=512, processes=1)
    verifiers = [MathVerifier(settings), MathVerifier(settings, marked=False)]
    for each in verifiers:
        each.warm()
    worst_s = recovery_s = 0.0
    starved = 0
    counts = dict.fromkeys(Verdict, 0)
    for i, answer in enumerate(hostile_answers()):
        ask = (seconds_of, in_another_thread)[i % 2]
        hostile = verifiers[i // 2 % 2]
        judgement, seconds, again = until_it_had_time(ask, hostile, answer)
        starved += again
        counts[judgement.verdict] += 1
        assert judgement.verdict in ENDS, (answer[:60], judgement)
        worst_s = max(worst_s, seconds)
        start = time.monotonic()
        assert hostile.judge([(RIGHT, TRUTH)]) == [Judgement.of(Verdict.RIGHT)]
        recovery_s = max(recovery_s, time.monotonic() - start)
    for each in verifiers:
        each.close()
    told = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
    told += f"; {starved} asked again for want of processor time" if starved else ""
    assert worst_s <= settings.timeout_s + GRACE_S
    figure(
        24,
        f"300 of 300 ended ({told}), deadline 1 s, after {worst_s:.2f} s at most; the next right answer scored 300 of"
        f" 300 times, after {recovery_s:.2f} s at most",
    )


_IN_PROCESS = """
import sys, threading
from math_verify import parse, verify
def judge(answer):
    verify(parse("$42$", parsing_timeout=None), parse(answer, parsing_timeout=None), timeout_seconds=None)
thread = threading.Thread(target=judge, args=(sys.argv[1],), daemon=True)
thread.start()
thread.join(20)
print("alive" if thread.is_alive() else "done")
"""


def test_in_this_process_a_thread_would_hang() -> None:
    """Negative control: the same answers without a child to kill hold their thread, and the process, up."""
    answer = r"\boxed{2^{2^{2^{2^{2^{2}}}}}}"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", _IN_PROCESS, answer], timeout=3, capture_output=True)


def agreement(verifier: MathVerifier, count: int) -> tuple[int, int, int]:
    """Gold refused, perturbed gold accepted, and verdicts on which the two verifiers differ."""
    rng = Random(1)
    pairs, expected = [], []
    for answer, truth, value in rational_items(rng, count):
        pairs += [(boxed(answer), truth), (boxed(perturbed(value, rng)), truth)]
        expected += [True, False]
    found = [judgement.verdict is Verdict.RIGHT for judgement in verifier.judge(pairs)]
    exact = [judge_exactly(*pair).verdict is Verdict.RIGHT for pair in pairs]
    refused = sum(wanted and not got for wanted, got in zip(expected, found, strict=True))
    accepted = sum(got and not wanted for wanted, got in zip(expected, found, strict=True))
    return refused, accepted, sum(a != b for a, b in zip(found, exact, strict=True))


def test_gold_scores_and_perturbed_gold_does_not(verifier: MathVerifier) -> None:
    """B5 row 29, short form."""
    assert agreement(verifier, 100) == (0, 0, 0)
