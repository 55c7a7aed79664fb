"""The points of the law against a plain recomputation from the rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from covent.errors import StoreError
from covent.store.reader import Run, read_run
from covent.store.series import law_series
from tests.support.synthetic import EVERY, write_run

STEPS = 23
"""Four whole blocks of five, and three steps over."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("series") / "run", num_steps=STEPS))


def test_validation_points_are_block_mean_and_middle_evaluation(run: Run) -> None:
    series = law_series(run, "validation")
    entropies, accuracies = [], []
    for first in (0, 5, 10, 15):
        entropies.append(sum(run.steps[first + i].entropy.value or 0.0 for i in range(5)) / 5)
        (row,) = [row for row in run.evaluations if row.split == "validation" and row.step == first + 2]
        accuracies.append(row.avg.value)
    assert series.step.tolist() == [4, 9, 14, 19]
    assert series.window == EVERY
    np.testing.assert_allclose(series.entropy, entropies, rtol=1e-14)
    assert series.accuracy.tolist() == accuracies
    # The control: the evaluation of the untrained policy at step 0 is there, and is not the first point.
    (start,) = [row for row in run.evaluations if row.split == "validation" and row.step == 0]
    assert start.avg.value != series.accuracy[0]


def test_training_points_merge_sums_and_counts(run: Run) -> None:
    # Steps of different size tell a merged mean from a mean of means.
    first = run.steps[0]
    small = first.model_copy(update={"reward": type(first.reward)(sum=1.0, count=2)})
    changed = replace(run, steps=[small, *run.steps[1:]])
    rows = changed.steps[:5]
    merged = sum(row.reward.sum for row in rows) / sum(row.reward.count for row in rows)
    mean_of_means = sum(row.reward.value or 0.0 for row in rows) / 5
    accuracy = law_series(changed, "training").accuracy
    assert accuracy[0] == pytest.approx(merged, rel=1e-14)
    assert accuracy[0] != pytest.approx(mean_of_means, rel=1e-6)
    assert len(accuracy) == 4


def test_incomplete_blocks_are_left_out(run: Run) -> None:
    gap = replace(run, steps=[row for row in run.steps if row.step != 7])
    assert law_series(gap, "validation").step.tolist() == [4, 14, 19]
    silent = replace(run, evaluations=[row for row in run.evaluations if row.step != 12])
    assert law_series(silent, "validation").step.tolist() == [4, 9, 19]
    assert law_series(silent, "training").step.tolist() == [4, 9, 14, 19]
    assert len(law_series(replace(run, steps=run.steps[:4]), "training")) == 0


def test_the_window_comes_from_the_settings_or_is_given(run: Run) -> None:
    assert law_series(run, "training", window=10).step.tolist() == [9, 19]
    for section in ({}, {"evaluation": {"every": 0}}, {"evaluation": {"every": "5"}}):
        header = run.header.model_copy(update={"config": section})
        with pytest.raises(StoreError, match=r"evaluation\.every"):
            law_series(replace(run, header=header), "training")
        assert len(law_series(replace(run, header=header), "training", window=5)) == 4
    with pytest.raises(StoreError, match="at least 1"):
        law_series(run, "training", window=0)
