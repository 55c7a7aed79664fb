"""avg@k, maj@k and means over sources against enumeration, plain loops, and the paper's own averages."""

from __future__ import annotations

from collections import Counter
from itertools import product
from statistics import fmean

import pytest

from covent.readings import EntropyReading, Mean
from covent.store.estimates import pass_at_k, wilson
from covent.store.scores import ProblemResult, Score, SourceScores, majority_vote, scores, source_scores
from tests.support.tolerances import TIGHT

NOTHING = Mean(sum=0, count=1)
ENTROPY = EntropyReading(
    sum=1.0,
    count=1,
    estimator="exact",
    temperature=1.0,
    policy="sampler",
    weighting="response",
    tokens="all responses",
)

PAPER_WEIGHTS = {
    "AIME24": (30, 32),
    "AIME25": (30, 32),
    "AMC": (83, 32),
    "MATH500": (500, 1),
    "OMNI": (2821, 1),
    "Olympiad": (675, 1),
    "Minerva": (272, 1),
}
PAPER_ROWS = [
    ((21.2, 9.6, 58.7, 78.8, 27.9, 40.7, 36.7), 38.6),
    ((18.1, 11.5, 56.6, 79.2, 29.8, 43.3, 40.4), 38.8),
    ((22.1, 15.8, 58.2, 80.4, 30.5, 44.1, 41.1), 40.4),
    ((22.6, 12.9, 61.4, 80.8, 29.1, 42.6, 38.2), 40.6),
    ((21.8, 16.2, 69.7, 84.2, 35.2, 43.6, 45.5), 45.8),
    ((35.6, 22.3, 69.5, 77.2, 35.1, 42.5, 43.0), 47.2),
    ((32.3, 22.7, 67.2, 87.0, 42.0, 57.2, 46.0), 50.3),
    ((36.8, 30.8, 74.5, 84.6, 39.1, 49.0, 46.3), 52.2),
]
"""Table 2 of arXiv 2505.22617: accuracies of 7B and 32B models in percent, and the column Avg."""
PRINTED_TO = 0.11
"""One decimal in the table, and the counts of problems are inferred from it."""


def source(name: str, num_problems: int, num_samples: int, avg: float) -> SourceScores:
    return SourceScores(
        source=name,
        num_problems=num_problems,
        num_samples=num_samples,
        temperature=1.0,
        avg=Score(value=avg),
        maj=None,
        pass_at={},
        unparsable=NOTHING,
        truncated=NOTHING,
        error=NOTHING,
        entropy=ENTROPY,
    )


@pytest.mark.parametrize(("columns", "average"), PAPER_ROWS)
def test_the_papers_average_is_the_mean_over_samples(columns: tuple[float, ...], average: float) -> None:
    pairs = zip(PAPER_WEIGHTS.items(), columns, strict=True)
    found = scores([source(name, *counts, value / 100) for (name, counts), value in pairs])
    assert found.sample_weighted and found.plain_mean
    assert 100 * found.sample_weighted.avg.value == pytest.approx(average, abs=PRINTED_TO)
    assert 100 * found.plain_mean.avg.value == pytest.approx(fmean(columns), abs=TIGHT)
    # The negative control: the plain mean is not what the paper prints.
    assert 100 * found.plain_mean.avg.value != pytest.approx(average, abs=PRINTED_TO)
    assert found.sample_weighted.avg.low is None, "problems of different weight have no Wilson interval"


def votes(answers: tuple[str | None, ...], truth: str) -> float | None:
    """By another route: draw the winner uniformly from all who have the most votes."""
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return None
    winners = [answer for answer, count in counts.items() if count == max(counts.values())]
    return sum(winner == truth for winner in winners) / len(winners)


def test_every_vote_of_four() -> None:
    for answers in product(("a", "b", "c", None), repeat=4):
        found = majority_vote(answers, [answer == "a" for answer in answers])
        assert found == pytest.approx(votes(answers, "a"))
    assert majority_vote(["a", "b", "b"], [True, False, False]) != votes(("a", "b", "a"), "a")


def scored(results: list[ProblemResult], *, num_samples: int = 4, can_vote: bool = True) -> SourceScores:
    return source_scores(
        "s",
        results,
        num_samples=num_samples,
        temperature=1.0,
        can_vote=can_vote,
        unparsable=NOTHING,
        truncated=NOTHING,
        error=NOTHING,
        entropy=ENTROPY,
    )


def test_scores_of_one_source() -> None:
    results = [ProblemResult(4, 4, 1.0), ProblemResult(4, 1, 0.5), ProblemResult(3, 0, None), ProblemResult(0, 0, None)]
    found = scored(results)
    assert found.avg and found.maj
    assert found.num_problems == 4
    # The last problem could not be judged and is in no mean.
    assert found.avg.value == pytest.approx((1 + 1 / 4 + 0) / 3, abs=TIGHT)
    assert found.maj.value == pytest.approx((1 + 0.5 + 0) / 3, abs=TIGHT)
    assert (found.avg.low, found.avg.high) == (wilson([1, 0.25, 0]).low, wilson([1, 0.25, 0]).high)
    assert {k: score.value for k, score in found.pass_at.items()} == pytest.approx(
        {
            "1": (1 + 1 / 4 + 0) / 3,
            "2": (1 + pass_at_k(4, 1, 2) + 0) / 3,
            # Of three judged samples pass@4 is unknown.
            "4": (1 + 1) / 2,
        }
    )
    assert scored(results, can_vote=False).maj is None
    nothing = scored([ProblemResult(0, 0, None)])
    assert nothing.avg is None and scores([nothing]).sample_weighted is None


def test_equal_weights_have_an_interval() -> None:
    found = scores([source("a", 10, 4, 0.2), source("b", 10, 4, 0.6)])
    assert found.sample_weighted and found.plain_mean
    truth = wilson([0.2] * 10 + [0.6] * 10)
    for mean in (found.sample_weighted.avg, found.plain_mean.avg):
        assert (mean.value, mean.low, mean.high) == pytest.approx((truth.value, truth.low, truth.high))
    uneven = scores([source("a", 30, 4, 0.2), source("b", 10, 4, 0.6)])
    assert uneven.sample_weighted and uneven.plain_mean
    assert uneven.sample_weighted.avg.value == pytest.approx(0.3, abs=TIGHT)
    assert uneven.sample_weighted.avg.low is not None, "every problem still counts the same"
    assert uneven.plain_mean.avg.value == pytest.approx(0.4, abs=TIGHT)
    assert uneven.plain_mean.avg.low is None
