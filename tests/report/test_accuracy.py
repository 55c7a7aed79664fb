"""Paired differences and pass@k per problem against enumeration, and what may not be compared."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from covent.report.accuracy import accuracy_changes, last_test, measures, paired_difference, problem_scores
from covent.store.reader import Run, read_run
from covent.store.schema import EvaluationRow
from tests.support.synthetic import write_run
from tests.support.tolerances import TIGHT


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("accuracy") / "run", num_steps=10))


def evaluation(run: Run, num_right: list[int], num_samples: int = 5) -> EvaluationRow:
    row = last_test(run)
    assert row is not None
    return row.model_copy(update={"num_right": num_right, "num_samples": num_samples, "num_problems": len(num_right)})


def test_pass_at_k_of_each_problem_is_the_share_of_subsets_with_a_right_one(run: Run) -> None:
    scores = problem_scores(evaluation(run, [0, 1, 3, 5]), "pass@2")
    assert scores is not None
    for score, right in zip(scores, [0, 1, 3, 5], strict=True):
        subsets = list(combinations([True] * right + [False] * (5 - right), 2))
        assert score == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets), abs=TIGHT)
    # The control: the biased estimate 1 - (1 - p)^k is another number.
    assert scores[2] != pytest.approx(1 - (2 / 5) ** 2, abs=1e-3)
    assert problem_scores(evaluation(run, [0, 5]), "greedy") is None
    assert problem_scores(evaluation(run, [0, 5]), "pass@8") is None


def test_pairing_narrows_the_interval_only_when_problems_agree(run: Run) -> None:
    rng = np.random.default_rng(0)
    before = rng.integers(0, 5, 40)
    row = evaluation(run, before.tolist())
    after = evaluation(run, (before + 1).tolist())
    name = f"avg@{row.num_samples}"
    same = paired_difference(after, row, name)
    assert same is not None
    assert same.value == pytest.approx(1 / 5, abs=TIGHT) and same.high - same.low == pytest.approx(0, abs=TIGHT)
    shuffled = paired_difference(evaluation(run, rng.permutation(before + 1).tolist()), row, name)
    assert shuffled is not None
    d = (np.array(evaluation(run, (before + 1).tolist()).num_right) - before) / 5
    assert shuffled.value == pytest.approx(d.mean(), abs=TIGHT)
    assert shuffled.high - shuffled.low > 0.1
    assert paired_difference(row, after, name).value == pytest.approx(-same.value, abs=TIGHT)  # type: ignore[union-attr]  # it is there


def test_interval_covers_the_truth_about_as_often_as_it_says(run: Run) -> None:
    rng = np.random.default_rng(1)
    chance = rng.random(200)
    truth = float(np.mean(0.1 * (1 - chance)))
    hits = 0
    for _ in range(200):
        pick = rng.integers(0, 200, 60)
        before = rng.binomial(5, chance[pick])
        after = rng.binomial(5, chance[pick] + 0.1 * (1 - chance[pick]))
        found = paired_difference(evaluation(run, after.tolist()), evaluation(run, before.tolist()), "avg@5")
        # The row's own avg@k keeps its key, so that the measure is known.
        assert found is not None
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_other_problems_are_not_compared(run: Run) -> None:
    row = evaluation(run, [1, 2, 3])
    assert paired_difference(row, evaluation(run, [1, 2]), "avg@5") is None
    assert paired_difference(row, row.model_copy(update={"split": "validation"}), "avg@5") is None
    assert paired_difference(row, row, "avg@7") is None
    assert paired_difference(row, row, "greedy") is None


def test_changes_pair_first_and_last_evaluation(run: Run) -> None:
    found = {(change.split, change.measure): change for change in accuracy_changes(run)}
    last = last_test(run)
    assert last is not None and last.step == 10
    assert found[("test", "greedy")].end == last.greedy
    assert list(measures(last)) == ["greedy", "avg@32", "pass@4", "pass@8", "pass@32"]
    assert found[("validation", "avg@4")].end_step == 7
    later = replace(run, evaluations=[row for row in run.evaluations if row.step > 0])
    assert all(change.start is None and change.difference is None for change in accuracy_changes(later))
    assert accuracy_changes(replace(run, evaluations=[])) == []
    # The start alone is shown, and is no change.
    early = accuracy_changes(replace(run, evaluations=[row for row in run.evaluations if row.step == 0]))
    assert {change.split for change in early} == {"test", "validation"}
    assert all(change.start and change.end is None and change.difference is None for change in early)
