"""Statistics over seeds against scipy and against worlds of known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from covent.report.methods import method_summary, methods
from covent.report.seeds import curve_over_seeds, interquartile_mean, over_seeds, stratified_draws
from covent.report.subject import subjects
from covent.store.reader import read_run
from tests.support.synthetic import write_run
from tests.support.tolerances import TIGHT


@pytest.mark.parametrize("n", [1, 3, 4, 7, 8, 33])
def test_interquartile_mean_is_scipys_trimmed_mean(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(5, n))
    assert interquartile_mean(values).tolist() == pytest.approx(stats.trim_mean(values, 0.25, axis=1), abs=TIGHT)
    assert n < 4 or float(interquartile_mean(values[0])) != pytest.approx(values[0].mean(), abs=TIGHT)


def test_draws_stay_within_their_task() -> None:
    drawn = stratified_draws([3, 5])
    assert set(np.unique(drawn[:, :3])) == {0, 1, 2} and set(np.unique(drawn[:, 3:])) == {3, 4, 5, 6, 7}


def test_two_tasks_of_different_height_do_not_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    low, high = rng.normal(0.2, 0.01, 10).tolist(), rng.normal(0.8, 0.01, 10).tolist()
    apart, joined = over_seeds([low, high]), over_seeds([low + high])
    assert apart is not None and joined is not None and apart.value == joined.value
    assert None not in (apart.low, apart.high, joined.low, joined.high)
    assert (apart.high - apart.low) < (joined.high - joined.low) / 2  # type: ignore[operator]  # it is there


def test_the_interval_covers_about_as_often_as_it_says() -> None:
    rng, inside = np.random.default_rng(2), 0
    for _ in range(300):
        found = over_seeds([rng.normal(0, 1, 20).tolist()])
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low <= 0 <= found.high
    assert 0.88 <= inside / 300 <= 0.98


def test_fewer_than_three_runs_have_no_interval_and_none_has_no_value() -> None:
    one, two, three = over_seeds([[0.5]]), over_seeds([[0.2, 0.6]]), over_seeds([[0.2, 0.6, 0.4]])
    assert one is not None and two is not None and three is not None
    assert (one.value, one.low, one.high, one.values) == (0.5, None, None, [0.5])
    assert (two.value, two.low, two.high, two.values) == (0.4, None, None, [0.2, 0.6])
    assert (three.low, three.high) == pytest.approx((0.2, 0.6), abs=TIGHT)
    assert over_seeds([[], []]) is None


def test_an_interval_of_two_runs_would_miss_every_second_time() -> None:
    """What a bootstrap of two values gives is these two values, which is why it is not shown."""
    rng = np.random.default_rng(5)
    pairs = rng.normal(size=(4000, 2))
    inside = (pairs.min(axis=1) <= 0) & (pairs.max(axis=1) >= 0)
    assert inside.mean() == pytest.approx(0.5, abs=0.03)
    drawn = interquartile_mean(pairs[0][stratified_draws([2])])
    assert np.quantile(drawn, [0.025, 0.975]).tolist() == sorted(pairs[0].tolist())


def test_a_curve_is_each_step_by_itself() -> None:
    curves = np.random.default_rng(3).normal(size=(6, 4))
    middle, low, high = curve_over_seeds(curves)
    for step in range(4):
        single = over_seeds([curves[:, step].tolist()])
        assert single is not None
        assert (middle[step], low[step], high[step]) == pytest.approx(
            (single.value, single.low, single.high), abs=TIGHT
        )


def test_methods_of_several_seeds_are_summed_up_from_the_folders(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / f"{name}{seed}", name, seed, 20) for name in ("grpo", "kl_cov") for seed in range(3)
    ]
    shown = subjects([read_run(folder) for folder in folders])
    found = methods(shown)
    assert found is not None and [row[0] for row in found.rows] == ["grpo", "kl_cov"]
    assert "too narrow" in found.intro and len(found.charts) == 4
    summary = method_summary("grpo", shown[:3])
    gains = []
    for folder in folders[:3]:
        tests = [row for row in read_run(folder).evaluations if row.split == "test"]
        gains.append(sum(tests[1].num_right) / (128 * 32) - sum(tests[0].num_right) / (128 * 32))
    assert summary.gain is not None and summary.gain.value == pytest.approx(np.mean(gains), abs=TIGHT)
    assert summary.responses is not None and summary.responses.value == 20 * 256
    assert methods(shown[::3]) is None, "one run of each method is no comparison over seeds"
