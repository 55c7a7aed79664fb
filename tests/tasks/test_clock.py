"""The clock's verdicts against counting on fingers, every route, hostile answers, and the corpus' documented errors."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from covent.tasks import ClockSettings, ClockTask, Problem, Verdict
from tests.support.tolerances import CORPUS_RATE, STANDARD_ERRORS

TASK = ClockTask(ClockSettings(), corpus_seed=0)
DIGITS = "0123456789"


def counted(value: int, operator: str, operand: int) -> int:
    """One step by moving a hand on a clock face of ten hours, one hour at a time."""
    if operator == "*":
        total = 0
        for _ in range(operand):
            total = counted(total, "+", value)
        return total
    for _ in range(operand):
        value = (0 if value == 9 else value + 1) if operator == "+" else (9 if value == 0 else value - 1)
    return value


def steps_of(prompt: str) -> tuple[int, list[tuple[str, int]]]:
    first, *rest = prompt.removeprefix("Q ").removesuffix(" A").split()
    return int(first), [(operator, int(word)) for operator, word in zip(rest[::2], rest[1::2], strict=True)]


def routes(prompt: str) -> list[str]:
    """Every right response: each + or - step taken forward or as its complement back."""
    value, steps = steps_of(prompt)
    choices = [
        [(operator, b)] if operator == "*" or b == 0 else [(operator, b), ("+-".replace(operator, ""), 10 - b)]
        for operator, b in steps
    ]
    texts = []
    for route in product(*choices):
        at, words = value, []
        for operator, operand in route:
            result = counted(at, operator, operand)
            words += [str(at), operator, str(operand), "is", str(result)]
            at = result
        texts.append(" ".join([*words, "answer", str(at)]))
    return texts


def drawn(count: int, seed: int = 0) -> list[Problem]:
    rng = Random(seed)
    return [TASK.draw(rng) for _ in range(count)]


def test_the_example_of_the_documentation() -> None:
    problem = Problem(prompt="Q 4 * 5 - 8 + 7 A", answer="9")
    assert "4 * 5 is 0 0 + 2 is 2 2 + 7 is 9 answer 9" in routes(problem.prompt)
    assert TASK.verdict(problem, "4 * 5 is 0 0 + 2 is 2 2 + 7 is 9 answer 9") is Verdict.RIGHT


def test_answers_by_counting_and_every_route_is_accepted() -> None:
    num_routes = Counter()
    for problem in drawn(300):
        texts = routes(problem.prompt)
        num_routes[len(texts)] += 1
        assert {text.split()[-1] for text in texts} == {problem.answer}
        assert {TASK.verdict(problem, text) for text in texts} == {Verdict.RIGHT}
        for wrong in set(DIGITS) - {problem.answer}:
            assert TASK.verdict(problem, f"{texts[0][:-1]}{wrong}") is Verdict.WRONG
    assert max(num_routes) == 16 and min(num_routes) == 1, "both choices and none occur"


def test_problems_have_two_to_four_operations_of_every_kind() -> None:
    steps = [steps_of(problem.prompt)[1] for problem in drawn(500)]
    assert {len(each) for each in steps} == {2, 3, 4}
    assert Counter(operator for each in steps for operator, _ in each).keys() == {"+", "-", "*"}
    assert {operand for each in steps for _, operand in each} == set(range(10))


def test_demonstrations_follow_the_problem_by_either_route() -> None:
    rng, taken = Random(1), Counter()
    for problem in drawn(400, seed=1):
        at, steps = steps_of(problem.prompt)
        words = TASK.demonstration(problem, rng).split()
        assert words[-2] == "answer" and len(words) == 5 * len(steps) + 2
        for index, (operator, operand) in enumerate(steps):
            left, shown, right, verb, result = words[5 * index : 5 * index + 5]
            assert (left, verb) == (str(at), "is")
            complement = shown != operator
            assert counted(at, shown, int(right)) == counted(at, operator, operand), "the same step by another route"
            taken[operator != "*" and operand != 0, complement] += 1
            at = int(result)
        assert words[-1] == str(at)
    assert taken[False, True] == 0
    share = taken[True, True] / (taken[True, True] + taken[True, False])
    assert abs(share - 0.5) < STANDARD_ERRORS * 0.5 / taken.total() ** 0.5


@pytest.mark.parametrize(
    "response",
    [
        "",
        " \n\t ",
        "9",
        "answer",
        "answer 9 .",
        "answer nine",
        "answer 09",
        "answer 89",
        "answer 0123456789",
        "answer 9.0",
        "answer -1",
        "answer ²",
        "answer ٣",
        "answer ９",
        "Answer 9",
        "answer 9 answer",
        "answer 9 9",
        "\x00answer 9",
        "answer\u200b 9",
        "answer " + "9" * 5000,
        "answer " * 50_000,
    ],
    ids=lambda response: repr(response[:20]),
)
def test_what_is_no_answer(response: str) -> None:
    assert TASK.verdict(Problem(prompt="Q 4 + 5 A", answer="9"), response) is Verdict.UNPARSABLE


def test_only_the_last_two_words_are_judged() -> None:
    problem = Problem(prompt="Q 4 + 5 A", answer="9")
    assert TASK.verdict(problem, "answer 3 no answer 9") is Verdict.RIGHT
    assert TASK.verdict(problem, "answer 9 no answer 3") is Verdict.WRONG
    assert TASK.verdict(problem, "  answer \n 9  ") is Verdict.RIGHT


@given(
    st.text(alphabet="answer 0123456789²٣\x00\n")
    | st.lists(st.sampled_from([*TASK.vocabulary, "²", "٣", ""]), max_size=30).map(" ".join)
)
def test_any_text_has_a_verdict(response: str) -> None:
    problem = Problem(prompt="Q 4 + 5 A", answer="9")
    right = response.split()[-2:] == ["answer", "9"]
    assert (TASK.verdict(problem, response) is Verdict.RIGHT) == right


def fact_rates(preset: str, seeds: range, num_problems: int = 9000) -> list[tuple[int, Counter[int]]]:
    """For each fact of each corpus that is seen often: the right result and how often each result is given."""
    found = []
    for seed in seeds:
        task, rng = ClockTask(ClockSettings(preset=preset), corpus_seed=seed), Random(seed)
        results: dict[tuple[int, str, int], Counter[int]] = defaultdict(Counter)
        for _ in range(num_problems):
            words = task.demonstration(task.draw(rng), rng).split()
            for at in range(0, len(words) - 2, 5):
                results[int(words[at]), words[at + 1], int(words[at + 2])][int(words[at + 4])] += 1
        found += [(counted(*fact), given_results) for fact, given_results in results.items()]
    return [(right, given_results) for right, given_results in found if given_results.total() >= 40]


@pytest.mark.parametrize(
    ("preset", "hard_share", "rates"),
    [("default", 0.20, (0.10, 0.60, 0.95)), ("hard", 0.35, (0.07, 0.55, 0.95))],
)
def test_the_corpus_is_wrong_as_documented(preset: str, hard_share: float, rates: tuple[float, float, float]) -> None:
    facts = fact_rates(preset, range(3))
    assert len(facts) > 700
    kinds: dict[str, list[tuple[int, Counter[int]]]] = {"hard": [], "middling": [], "easy": []}
    for right, results in facts:
        rate = results[right] / results.total()
        kinds["hard" if rate < 0.3 else "middling" if rate < 0.8 else "easy"].append((right, results))

    def is_share(found: float, expected: float, count: int) -> bool:
        return abs(found - expected) < STANDARD_ERRORS * (expected * (1 - expected) / count) ** 0.5

    other_share = {0.20: 0.35, 0.35: 0.20}[hard_share]
    assert is_share(len(kinds["hard"]) / len(facts), hard_share, len(facts))
    assert not is_share(len(kinds["hard"]) / len(facts), other_share, len(facts))
    assert is_share(len(kinds["middling"]) / len(facts), 0.25, len(facts))
    # Hard facts have rates of their own, so facts and not demonstrations are the sample.
    for (_, group), rate in zip(kinds.items(), rates, strict=True):
        shown = [results[right] / results.total() for right, results in group]
        assert abs(sum(shown) / len(shown) - rate) < CORPUS_RATE
        assert abs(sum(shown) / len(shown) - (rate - 2 * CORPUS_RATE)) > CORPUS_RATE

    misled = [results.most_common(1)[0][0] != right for right, results in kinds["hard"]]
    assert sum(misled) / len(misled) == 1.0, "the most common result of a hard fact is wrong"
    wrong = [sorted((n for r, n in results.items() if r != right), reverse=True) for right, results in kinds["hard"]]
    total = sum(map(sum, wrong))
    for rank, share in enumerate((0.75, 0.15, 0.10)):
        assert abs(sum(counts[rank] for counts in wrong if len(counts) > rank) / total - share) < CORPUS_RATE
    assert all(len(counts) <= 3 for counts in wrong)


@pytest.mark.parametrize(
    "wrong", [{"min_operations": 5}, {"min_operations": 0}, {"max_operations": 9}, {"preset": "e"}, {"operations": 2}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClockSettings.model_validate(wrong)
