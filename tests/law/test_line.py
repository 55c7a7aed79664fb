"""The closed form against numpy's singular value decomposition."""

import numpy as np
import pytest

from covent.law.line import is_flat, least_squares
from tests.support.tolerances import CENTRED, TIGHT


def test_least_squares_is_lstsq() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.uniform(1.0, 1.2, 40), rng.normal(0, 0.1, 40)
    y = 3.0 - 2.0 * x + noise
    line = least_squares(x, y)
    truth, squares, *_ = np.linalg.lstsq(np.stack([np.ones(40), x], axis=1), y, rcond=None)
    assert [line.intercept, line.slope] == pytest.approx(truth, abs=CENTRED)
    assert line.rmse == pytest.approx(float(np.sqrt(squares[0] / 40)), abs=TIGHT)
    assert line.r2 == pytest.approx(1 - squares[0] / np.sum((y - y.mean()) ** 2), abs=TIGHT)
    assert line(1.1) == pytest.approx(truth @ [1.0, 1.1], abs=CENTRED)
    through_origin = float(x @ y / (x @ x))
    assert line.slope != pytest.approx(through_origin, abs=CENTRED)


def test_r2_of_a_constant_response_is_unknown() -> None:
    assert least_squares(np.array([0.0, 1.0, 2.0]), np.full(3, 0.4)).r2 is None


def test_r2_is_unknown_where_the_points_that_count_are_constant() -> None:
    x, y = np.array([0.0, 1.0, 2.0, 3.0]), np.array([0.4, 0.4, 0.4, 0.9])
    assert least_squares(x, y, np.array([1.0, 1.0, 1.0, 0.0])).r2 is None
    assert least_squares(x, y, np.array([1.0, 1.0, 1.0, 0.1])).r2 is not None


def test_flat_up_to_rounding() -> None:
    assert is_flat(np.full(5, 0.1) + np.array([0, 1, 0, 1, 0]) * 1e-17)
    assert is_flat(np.empty(0))
    assert not is_flat(np.array([0.1, 0.1, 0.1 + 1e-9]))


def test_weights_are_repeated_points() -> None:
    rng = np.random.default_rng(1)
    x, y, times = rng.uniform(1.0, 1.2, 15), rng.normal(0, 1, 15), rng.integers(1, 5, 15)
    line, repeated = least_squares(x, y, times.astype(float)), least_squares(np.repeat(x, times), np.repeat(y, times))
    assert (line.intercept, line.slope) == pytest.approx((repeated.intercept, repeated.slope), abs=CENTRED)
    assert line.r2 == pytest.approx(repeated.r2, abs=CENTRED)
    assert line.slope != pytest.approx(least_squares(x, y).slope, abs=CENTRED)
