"""Lines over model sizes against numpy's polynomial fit, prediction intervals against the textbook formula."""

import numpy as np
import pytest
from scipy import stats

from covent.errors import FitError, ShapeError
from covent.law import fit_sizes
from tests.support.tolerances import CENTRED

SIZES = np.array([0.36e9, 1.31e9, 2.77e9, 6.53e9])
A = np.array([5.0, 9.5, 17.5, 20.9])
B = np.array([25.0, 35.0, 47.9, 59.6])


def test_lines_are_polyfits_in_the_logarithm() -> None:
    lines = fit_sizes(SIZES, A, B, unit="percent")
    larger = lines.at(31e9)
    for values, slope, predicted in ((A, lines.a_slope, larger.a), (B, lines.b_slope, larger.b)):
        truth = np.polyfit(np.log(SIZES), values, 1)
        assert slope == pytest.approx(truth[0], abs=CENTRED)
        assert predicted == pytest.approx(np.polyval(truth, np.log(31e9)), abs=CENTRED)
        assert predicted != pytest.approx(np.polyval(np.polyfit(SIZES, values, 1), 31e9), abs=CENTRED)
    assert larger.ceiling == pytest.approx(larger.b - larger.a, abs=CENTRED)


def test_interval_is_the_textbook_prediction_interval() -> None:
    x, place = np.log(SIZES), np.log(31e9)
    residuals = B - np.polyval(np.polyfit(x, B, 1), x)
    spread = np.sqrt(residuals @ residuals / 2 * (1 + 1 / 4 + (place - x.mean()) ** 2 / np.sum((x - x.mean()) ** 2)))
    predicted = fit_sizes(SIZES, A, B, unit="percent").at(31e9)
    reach = stats.t.ppf(0.975, 2) * spread
    assert predicted.b_interval == pytest.approx((predicted.b - reach, predicted.b + reach), abs=CENTRED)
    assert predicted.b_interval != pytest.approx(
        (predicted.b - 1.96 * spread, predicted.b + 1.96 * spread), abs=CENTRED
    )
    assert predicted.extrapolated == pytest.approx((place - x[-1]) / (x[-1] - x[0]), abs=CENTRED)
    assert fit_sizes(SIZES, A, B, unit="percent").at(2e9).extrapolated == 0.0


def test_few_sizes_say_so() -> None:
    two = fit_sizes(SIZES[:2], A[:2], B[:2], unit="percent")
    assert two.at(4e9).ceiling_interval is None
    assert "Two sizes" in two.warnings[0]
    three = fit_sizes(SIZES[:3], A[:3], B[:3], unit="percent")
    assert three.at(4e9).ceiling_interval is not None
    assert "one degree of freedom" in three.warnings[0]
    assert fit_sizes(SIZES, A, B, unit="percent").warnings == []


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(FitError, match="1 different sizes"):
        fit_sizes([1e9, 1e9], [1, 2], [3, 4], unit="percent")
    with pytest.raises(FitError, match=r"num_parameters\[1\] = 0 is not positive"):
        fit_sizes([1e9, 0], [1, 2], [3, 4], unit="percent")
    with pytest.raises(ShapeError):
        fit_sizes(SIZES, A[:3], B, unit="percent")
    with pytest.raises(FitError, match="num_parameters is 0"):
        fit_sizes(SIZES, A, B, unit="percent").at(0)
