"""Correlation, slope and the removed trend against plain loops, with controls that must differ."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from covent.report.agreement import agreements, correlation, slope, sum_by_step, trend_removed
from tests.support.tolerances import CENTRED, TIGHT


def test_correlation_and_slope_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 1e-4, 50)
    y = 0.7 * x + rng.normal(0, 1e-4, 50)
    truth = stats.linregress(x, y)
    assert correlation(x, y) == pytest.approx(truth.rvalue, rel=CENTRED)
    assert slope(x, y) == pytest.approx(truth.slope, rel=CENTRED)
    # The controls: the slope is of y on x, not of x on y, and it is not through the origin.
    assert slope(y, x) != pytest.approx(truth.slope, rel=0.05)
    assert float(x @ y / (x @ x)) != pytest.approx(truth.slope, rel=0.05)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_scale_does_not_matter(scale: float) -> None:
    x = np.array([1.0, 2.0, 4.0, 3.0])
    y = np.array([2.0, 1.0, 5.0, 4.0])
    assert correlation(x * scale, y * scale) == pytest.approx(np.corrcoef(x, y)[0, 1], rel=TIGHT)
    assert slope(x * scale, y) == pytest.approx(slope(x, y) / scale, rel=TIGHT)  # type: ignore[operator]  # it is there


def test_without_spread_or_points_there_is_no_number() -> None:
    flat, rising = np.full(5, 0.1), np.arange(5.0)
    assert correlation(flat, rising) is None and correlation(rising, flat) is None
    assert slope(flat, rising) is None and slope(rising, flat) == 0.0
    assert correlation(rising[:2], rising[:2]) is None and slope(rising[:2], rising[:2]) is None
    assert correlation(rising[:0], rising[:0]) is None


def test_trend_removed_is_the_centred_window_of_steps() -> None:
    rng = np.random.default_rng(1)
    step = np.sort(np.repeat(np.arange(40), 3)[rng.random(120) < 0.8])
    values = rng.normal(100.0, 1.0, len(step))
    residual, inside = trend_removed(step, values, window=7)
    for i, at in enumerate(step):
        window = [value for s, value in zip(step, values, strict=True) if abs(int(s) - int(at)) <= 3]
        assert residual[i] == pytest.approx(values[i] - sum(window) / len(window), abs=CENTRED)
        assert inside[i] == (step[0] <= at - 3 and at + 3 <= step[-1])
    straight, inside = trend_removed(np.arange(40), np.arange(40.0), window=7)
    assert np.abs(straight[inside]).max() < CENTRED
    # The control: at the ends a straight line would be left over, which is why they are not inside.
    assert np.abs(straight[~inside]).min() > 0.1


def test_sums_by_step() -> None:
    steps, sums = sum_by_step(np.array([0, 0, 3, 3, 3]), np.array([1.0, 2.0, 10.0, 20.0, 30.0]))
    assert steps.tolist() == [0, 3] and sums.tolist() == [3.0, 60.0]


def test_a_shared_trend_alone_agrees_only_until_it_is_removed() -> None:
    rng = np.random.default_rng(2)
    step = np.repeat(np.arange(120), 4)
    trend = -np.exp(-step / 30)
    shared = agreements("theorem 1", step, trend + rng.normal(0, 0.05, 480), trend + rng.normal(0, 0.05, 480))
    by_key = {(row.per, row.trend): row for row in shared}
    for per in ("optimizer step", "rollout step"):
        raw, removed = by_key[(per, "kept")].correlation, by_key[(per, "removed")].correlation
        assert raw is not None and removed is not None
        assert raw > 0.9 and abs(removed) < 0.25
    # The control: where the steps themselves agree, removing the trend leaves the agreement.
    wiggle = rng.normal(0, 0.05, 480)
    alike = agreements("theorem 1", step, trend + wiggle, 2 * (trend + wiggle))
    for row in alike:
        assert row.correlation is not None and row.slope is not None
        assert row.correlation > 0.9
        assert row.slope == pytest.approx(2.0, rel=CENTRED)
    assert [row.num_points for row in alike] == [480, (120 - 14) * 4, 120, 120 - 14]
