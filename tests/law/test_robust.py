"""A few broken points do not move the robust fit; they do move least squares, and without them both agree."""

import numpy as np
import pytest

from covent.law import accuracy, fit, fit_robust

A, B = 0.2, 0.6
FALLING = np.geomspace(0.9, 0.05, 60)


def broken(places: list[int]) -> np.ndarray:
    values = accuracy(FALLING, A, B) + np.random.default_rng(0).normal(0, 0.003, 60)
    values[places] = 0.0
    return values


@pytest.mark.parametrize("places", [[0], [0, 1, 2], [5, 20, 40, 59], list(range(0, 60, 5))])
def test_outliers_are_named_and_do_not_count(places: list[int]) -> None:
    robust, plain = fit_robust(FALLING, broken(places), unit="fraction"), fit(FALLING, broken(places), unit="fraction")
    assert set(places) <= set(robust.outliers)
    assert len(robust.outliers) <= len(places) + 2
    assert (robust.a, robust.b) == pytest.approx((A, B), abs=0.005)
    assert (plain.a, plain.b) != pytest.approx((A, B), abs=0.005)
    assert robust.ceiling_interval is not None
    assert robust.ceiling_interval[0] <= B - A <= robust.ceiling_interval[1]


def test_without_outliers_it_is_nearly_least_squares() -> None:
    robust, plain = fit_robust(FALLING, broken([]), unit="fraction"), fit(FALLING, broken([]), unit="fraction")
    assert robust.outliers == []
    assert (robust.a, robust.b) == pytest.approx((plain.a, plain.b), abs=0.002)
    assert robust.ceiling_interval == plain.ceiling_interval


def test_exact_points_have_no_outliers() -> None:
    assert fit_robust(FALLING, accuracy(FALLING, A, B), unit="fraction").outliers == []


def test_too_little_gives_nothing() -> None:
    assert fit_robust(FALLING[:5], broken([])[:5], unit="fraction").a is None
    assert fit_robust([0.2] * 8, [0.3] * 8, unit="fraction").a is None
