"""The curve against plain arithmetic, its inverse as a round trip, and the points where no inverse exists."""

import math

import numpy as np
import pytest

from covent.errors import FitError
from covent.law import accuracy, ceiling, entropy_at
from tests.support.tolerances import TIGHT

A, B = 0.21, 0.6


def test_accuracy_is_the_formula() -> None:
    entropies = [0.0, 0.02, 0.55, 3.0]
    truth = [-A * math.exp(h) + B for h in entropies]
    wrong_sign = [A * math.exp(h) + B for h in entropies]
    assert accuracy(entropies, A, B) == pytest.approx(truth, abs=TIGHT)
    assert accuracy(entropies, A, B) != pytest.approx(wrong_sign, abs=TIGHT)


def test_ceiling_is_the_accuracy_at_zero_entropy() -> None:
    assert ceiling(A, B) == pytest.approx(float(accuracy(0.0, A, B)), abs=TIGHT)
    assert ceiling(A, B) != pytest.approx(B, abs=TIGHT)


def test_entropy_at_inverts_accuracy_in_every_shape() -> None:
    entropies = np.linspace(0.0, 2.0, 12).reshape(3, 4)
    there_and_back = entropy_at(accuracy(entropies, A, B), A, B)
    assert there_and_back.shape == (3, 4)
    assert there_and_back == pytest.approx(entropies, abs=TIGHT)
    assert entropy_at(accuracy(entropies, A, B), A, B + 0.1) != pytest.approx(entropies, abs=TIGHT)


def test_no_entropy_gives_more_than_the_ceiling() -> None:
    with pytest.raises(FitError, match=r"accuracy\[1\] = 0\.4 .* ceiling 0\.39"):
        entropy_at([0.38, 0.40], A, B)
    with pytest.raises(FitError, match="ceiling"):
        entropy_at(math.nan, A, B)
    with pytest.raises(FitError, match="a > 0"):
        entropy_at(0.3, -A, B)
