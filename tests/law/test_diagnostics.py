"""What speaks against the law is found where it was put, and not found where the law is true."""

import numpy as np
import pytest

from covent.law import diagnose
from covent.law.drift import drift_at_equal_entropy
from covent.law.series import checked_points
from tests.support.tolerances import CENTRED, CORRELATION

FALLING = np.geomspace(0.9, 0.05, 80)
LAW = 0.7 - 0.2 * np.exp(FALLING)
TIME = np.linspace(0, 1, 80)


def noisy(values: np.ndarray, seed: int = 0) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, 0.003, values.size)


def test_the_law_leaves_nothing_over() -> None:
    found = diagnose(FALLING, noisy(LAW), unit="fraction")
    assert found.findings == []
    assert found.noise_correlation == pytest.approx(0.0, abs=3 * CORRELATION)
    assert found.bend is not None and not found.bend.is_clear
    assert found.curvature is not None and not found.curvature.is_clear


def test_a_bend_is_found_where_it_is() -> None:
    kinked = LAW + 0.15 * np.maximum(0.0, np.exp(FALLING) - np.exp(0.4))
    bend = diagnose(FALLING, noisy(kinked), unit="fraction").bend
    assert bend is not None and bend.is_clear
    assert bend.entropy_interval[0] <= 0.4 <= bend.entropy_interval[1]
    assert not bend.entropy_interval[0] <= 0.2 <= bend.entropy_interval[1]
    assert (bend.a_above, bend.a_below) == pytest.approx((0.05, 0.2), abs=0.02)


@pytest.mark.parametrize("sign", [-1, 1])
def test_curvature_is_the_height_of_the_middle(sign: int) -> None:
    place = (np.exp(FALLING) - np.exp(FALLING[-1])) / np.ptp(np.exp(FALLING))
    sag = sign * 0.02 * 4 * place * (1 - place)
    curvature = diagnose(FALLING, noisy(LAW + sag), unit="fraction").curvature
    assert curvature is not None and curvature.is_clear
    assert curvature.sag_interval[0] <= sign * 0.02 <= curvature.sag_interval[1]
    assert not curvature.sag_interval[0] <= -sign * 0.02 <= curvature.sag_interval[1]


def test_drift_is_least_squares_with_time_beside() -> None:
    points = checked_points(FALLING, LAW + 0.05 * TIME, "fraction")
    drift = drift_at_equal_entropy(points)
    assert drift is not None and drift.is_clear
    assert drift.gain == pytest.approx(0.05, abs=CENTRED)
    assert drift.entropy_gain == pytest.approx(0.2 * np.ptp(np.exp(FALLING)), abs=CENTRED)
    assert not drift.outweighs_entropy
    mostly_time = drift_at_equal_entropy(checked_points(FALLING, 0.3 + 0.05 * (LAW - 0.3) + 0.3 * TIME, "fraction"))
    assert mostly_time is not None and mostly_time.outweighs_entropy
    falling = drift_at_equal_entropy(checked_points(FALLING, LAW - 0.05 * TIME, "fraction"))
    assert falling is not None and falling.is_clear and not falling.outweighs_entropy


def test_time_and_entropy_that_are_one_are_not_told_apart() -> None:
    straight = np.log(np.linspace(2.0, 1.1, 30))
    assert drift_at_equal_entropy(checked_points(straight, 0.7 - 0.2 * np.exp(straight), "fraction")) is None


def test_too_few_points_say_nothing() -> None:
    found = diagnose(FALLING[:9], LAW[:9], unit="fraction")
    assert (found.bend, found.curvature, found.drift, found.findings) == (None, None, None, [])


@pytest.mark.parametrize("widest", [15.0, 20.0, 30.0])
def test_entropies_over_a_wide_range_are_judged_or_not_but_never_a_crash(widest: float) -> None:
    """exp(H) then has nearly all points at its lower end: a bend or an arch cannot be told from a line."""
    rng = np.random.default_rng(int(widest))
    for _ in range(20):
        entropy = np.sort(rng.uniform(0, widest, 14))[::-1]
        found = diagnose(entropy, rng.uniform(0, 1, 14), unit="fraction")
        assert found.n == 14
    lonely = diagnose([widest, *np.linspace(0.5, 0.1, 13)], rng.uniform(0, 1, 14), unit="fraction")
    assert (lonely.curvature, lonely.bend) == (None, None)
    usual = diagnose([1.0, *np.linspace(0.5, 0.1, 13)], rng.uniform(0, 1, 14), unit="fraction")
    assert usual.curvature is not None and usual.bend is not None
