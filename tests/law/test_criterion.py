"""Information criteria against their definitions, and what they are for: the extra coefficient must earn its place."""

import math

import numpy as np
import pytest

from covent.law.criterion import aicc, akaike_weights, bic
from tests.support.tolerances import TIGHT


def test_definitions() -> None:
    assert aicc(-7.0, num_coefficients=2, n=20) == pytest.approx(14 + 8 + 40 / 15, abs=TIGHT)
    assert aicc(-7.0, num_coefficients=2, n=20) != pytest.approx(14 + 8, abs=TIGHT)
    assert bic(-7.0, num_coefficients=2, n=20) == pytest.approx(14 + 4 * math.log(20), abs=TIGHT)


def test_no_correction_without_points() -> None:
    assert aicc(0.0, num_coefficients=2, n=5) is None
    assert aicc(0.0, num_coefficients=2, n=6) is not None


def test_weights_are_relative_likelihoods() -> None:
    shares = akaike_weights([10.0, 12.0, 1000.0])
    assert shares[0] / shares[1] == pytest.approx(math.e, abs=TIGHT)
    assert np.sum(shares) == pytest.approx(1.0, abs=TIGHT)
    assert akaike_weights([10.0, 14.0])[1] != pytest.approx(shares[1], abs=TIGHT)
