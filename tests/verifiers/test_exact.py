"""The exact matcher against Python's own fractions, hand-written pairs, and text of any kind."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covent.verifiers.exact import (
    MAX_ANSWER_CHARS,
    bare_truth,
    equal_answers,
    judge_exactly,
    marked_answer,
    normal_form,
    rational,
)
from covent.verifiers.verdict import Verdict
from tests.verifiers.hostile_answers import TRUTH, hostile_answers
from tests.verifiers.rational_items import perturbed, rational_items


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}", "7"),
        (r"first \boxed{7}, then \boxed{8}.", "8"),
        (r"\boxed {7}", "7"),
        (r"\boxed{\frac{1}{\sqrt{2}}} done", r"\frac{1}{\sqrt{2}}"),
        (r"\fbox{7}", "7"),
        ("<answer> 7 </answer>", "7"),
        ("#### 7\nthat is it", "7"),
        (r"#### 7 \boxed{8}", "8"),
        ("it is 7", None),
        ("", None),
        (r"\boxed{7", None),
        (r"\boxed{}", None),
        (r"\boxed 7", None),
        ("<answer>7", None),
        ("####", None),
        (r"\boxed{7} and \boxed{8", None),
    ],
)
def test_the_last_mark_counts(text: str, answer: str | None) -> None:
    assert marked_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "1/2"),
        (r"\dfrac12", r"\tfrac{2}{4}"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"1\frac{1}{2}", "1.5"),
        ("1,234", "1234"),
        ("+3", "3.0"),
        ("−3", "-3"),
        (".5", "0.50"),
        (r"$ 7 $", r"\(7\)"),
        (r"\text{Monday}", "Monday"),
        ("x + 1", "x+1"),
        (r"\left(1, 2\right)", "(1,2)"),
        ("(0.5, x)", r"(\frac12,x)"),
        ("1, 2, 3", "1,2,3"),
        ("7.", "7"),
    ],
)
def test_equal_answers(answer: str, truth: str) -> None:
    assert equal_answers(answer, truth)
    assert equal_answers(truth, answer)


@pytest.mark.parametrize(
    ("answer", "truth"),
    [
        ("1/2", "1/3"),
        ("0.333", "1/3"),
        ("1/0", "0"),
        ("1/0", "1/1"),
        ("", "0"),
        ("", ""),
        ("Monday", "monday"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("(1,2)", "1,2"),
        ("(1,2,3)", "(1,2)"),
        ("1234", "12,34"),
        ("50%", "50"),
        ("2^3", "8"),
        ("x", "1"),
        ("１", "1"),
        ("1e3", "1000"),
        ("0x10", "16"),
        ("1_000", "1000"),
        ("--3", "3"),
    ],
)
def test_unequal_answers(answer: str, truth: str) -> None:
    assert not equal_answers(answer, truth)
    assert not equal_answers(truth, answer)


@given(st.fractions(max_denominator=10**6), st.integers(0, 5))
def test_written_fractions_are_read_as_they_are(value: Fraction, style: int) -> None:
    written = [
        f"{value.numerator}/{value.denominator}",
        rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
        rf"{'-' if value < 0 else ''}\dfrac{{{abs(value.numerator)}}}{{{value.denominator}}}",
        rf"$\frac{{{3 * value.numerator}}}{{{3 * value.denominator}}}$",
        f" {value.numerator} / {value.denominator} .",
        str(value),
    ][style]
    assert rational(normal_form(written)) == value
    wrong = Fraction(value.numerator + 1, value.denominator)
    assert not equal_answers(written, str(wrong))


@given(st.text(max_size=300), st.text(max_size=50))
def test_any_text_is_judged(response: str, truth: str) -> None:
    verdict = judge_exactly(response, truth).verdict
    assert verdict in (Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE)


def test_hostile_answers_are_wrong_or_no_answers() -> None:
    verdicts = {judge_exactly(f"\\boxed{{{answer}}}", TRUTH).verdict for answer in hostile_answers()}
    assert verdicts == {Verdict.WRONG, Verdict.UNPARSABLE}
    assert judge_exactly(r"\boxed{84/2}", TRUTH).verdict is Verdict.RIGHT


def test_long_answers_are_never_compared() -> None:
    long = "7" * (MAX_ANSWER_CHARS + 1)
    assert not equal_answers(long, long)
    assert equal_answers(long[1:], long[1:])


def test_the_truth_may_be_a_worked_solution() -> None:
    assert bare_truth("2 + 2 = 4, so\n#### 4") == "4"
    assert bare_truth(r"It is $\boxed{\frac{1}{2}}$.") == r"\frac{1}{2}"
    assert bare_truth(" 12 ") == "12"


def test_gold_scores_and_perturbed_gold_does_not() -> None:
    rng = Random(0)
    for answer, truth, value in rational_items(rng, 500):
        assert judge_exactly(f"\\boxed{{{answer}}}", truth).verdict is Verdict.RIGHT, (answer, truth)
        other = perturbed(value, rng)
        assert judge_exactly(f"\\boxed{{{other}}}", truth).verdict is Verdict.WRONG, (other, truth)
