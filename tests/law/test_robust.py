"""A few broken points do not move the robust fit; they do move least squares, and without them both agree."""

import contextlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from covent.errors import CoventError
from covent.law import accuracy, diagnose, fit, fit_robust, rivals
from tests.support.tolerances import TIGHT

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


@pytest.mark.parametrize("places", [[7], [7, 30]])
def test_a_constant_with_a_few_spikes_is_fitted_without_them(places: list[int]) -> None:
    """The weights leave a response without any variance."""
    spiked = np.full(60, 0.5)
    spiked[places] = 0.6
    robust = fit_robust(FALLING, spiked, unit="fraction")
    assert robust.outliers == places
    assert (robust.a, robust.b) == pytest.approx((0.0, 0.5), abs=TIGHT)


SHAPES = {
    "any": lambda n: st.lists(st.floats(0, 1), min_size=n, max_size=n),
    "constant": lambda n: st.just([0.5] * n),
    "spike": lambda n: st.integers(0, n - 1).map(lambda place: [0.1 * (i == place) for i in range(n)]),
    "right or wrong": lambda n: st.lists(st.sampled_from([0.0, 1.0]), min_size=n, max_size=n),
}
ENTROPIES = {
    "any": lambda n: st.lists(st.floats(0, 2), min_size=n, max_size=n),
    "wide": lambda n: st.lists(st.floats(0, 30), min_size=n, max_size=n),
    "tiny": lambda n: st.lists(st.floats(0, 1e-9), min_size=n, max_size=n),
    "nearly constant": lambda n: st.just([0.5] * (n - 1) + [0.4]),
}


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(data=st.data(), n=st.integers(3, 12))
def test_a_tiny_series_is_fitted_or_refused(data: st.DataObject, n: int) -> None:
    entropy = data.draw(st.sampled_from(sorted(ENTROPIES)).flatmap(lambda kind: ENTROPIES[kind](n)))
    values = data.draw(st.sampled_from(sorted(SHAPES)).flatmap(lambda kind: SHAPES[kind](n)))
    for judge in (fit, fit_robust, rivals, diagnose):
        with contextlib.suppress(CoventError):
            judge(entropy, values, unit="fraction")
