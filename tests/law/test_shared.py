"""Groups that share a curve are left together, others are told apart, and a seed is not called an algorithm."""

import numpy as np
import pytest
from scipy import stats

from covent.errors import FitError
from covent.law import shared_curve
from covent.law.shared import _by_point, _Run

A, B = 0.2, 0.6


def run(seed: int, a: float = A, b: float = B, shift: float = 0.0, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    entropy = np.geomspace(rng.uniform(0.7, 0.9), rng.uniform(0.04, 0.08), n)
    return entropy, b - a * np.exp(entropy) + shift + rng.normal(0, 0.005, n)


def runs(first_seed: int, count: int = 4, **changed: float) -> list[tuple[np.ndarray, np.ndarray]]:
    return [run(first_seed + index, **changed) for index in range(count)]


def test_one_curve_is_recognised_and_found() -> None:
    found = shared_curve({"GRPO": runs(0), "RLOO": runs(10), "PRIME": runs(20)}, unit="fraction")
    assert found.p_by_point > 0.05
    assert found.p_by_run > 0.05
    assert "One curve fits all runs" in found.sentence
    assert (found.a, found.b) == pytest.approx((A, B), abs=0.005)
    assert [group.num_runs for group in found.groups.values()] == [4, 4, 4]


def test_different_curves_are_told_apart() -> None:
    found = shared_curve({"GRPO": runs(0), "other": runs(10, a=0.24, b=0.66)}, unit="fraction")
    assert found.p_by_point < 0.001
    assert found.p_by_run < 0.05
    assert "different curves" in found.sentence
    assert found.rmse_separate < 0.8 * found.rmse_shared
    for group, top in (("GRPO", B - A), ("other", 0.42)):
        low, high = found.groups[group].ceiling_interval
        assert low <= top <= high


def test_seeds_that_differ_are_not_called_algorithms() -> None:
    shifts = [-0.03, 0.02, 0.04, -0.01, 0.03, -0.04, 0.01, -0.02]
    mixed = [run(seed, shift=shift) for seed, shift in enumerate(shifts)]
    found = shared_curve({"one": mixed[:4], "other": mixed[4:]}, unit="fraction")
    assert found.p_by_run > 0.05
    single = shared_curve({"one": mixed[:1], "other": mixed[1:2]}, unit="fraction")
    assert single.p_by_point < 0.05
    assert single.p_by_run is None
    assert "may be its seed" in single.sentence


def test_without_correlation_it_is_the_chow_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covent.law.shared.COARSE_CORRELATIONS", np.zeros(1))
    groups = [_Run(group, np.exp(h), r) for group, (h, r) in enumerate((run(0), run(10, a=0.205), run(20)))]
    x, y = np.concatenate([one.x for one in groups]), np.concatenate([one.y for one in groups])
    _, p_value, _ = _by_point(["one", "two", "three"], groups, x, y)

    def squares(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.linalg.lstsq(np.stack([np.ones(x.size), x], axis=1), y, rcond=None)[1][0])

    separate = sum(squares(one.x, one.y) for one in groups)
    f = (squares(x, y) - separate) / 4 / (separate / (x.size - 6))
    assert p_value == pytest.approx(stats.f.sf(f, 4, x.size - 6), rel=1e-6)
    assert p_value != pytest.approx(stats.f.sf(f, 2, x.size - 6), rel=1e-6)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(FitError, match="1 groups"):
        shared_curve({"one": runs(0)}, unit="fraction")
    with pytest.raises(FitError, match="'other' has no runs"):
        shared_curve({"one": runs(0), "other": []}, unit="fraction")
    with pytest.raises(FitError, match="Run 1 of 'other' has 2 points"):
        shared_curve({"one": runs(0), "other": [run(1), ([0.2, 0.1], [0.3, 0.4])]}, unit="fraction")
