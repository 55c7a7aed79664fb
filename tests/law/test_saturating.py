"""The saturating curve recovers itself, says when it has not begun to saturate, and stands beside the law."""

import numpy as np
import pytest

from covent.errors import FitError
from covent.law import fit, fit_saturating, two_ceilings
from tests.support.tolerances import SHAPE_GRID

COMPUTE = np.arange(1.0, 61.0)


def curve(top: float = 0.6, middle: float = 9.0, sharpness: float = 1.7, start: float = 0.2) -> np.ndarray:
    return start + (top - start) / (1 + (middle / COMPUTE) ** sharpness)


def noisy(values: np.ndarray, seed: int = 0) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, 0.004, values.size)


def test_recovers_its_own_curve() -> None:
    found = fit_saturating(COMPUTE, curve(), unit="fraction")
    assert found.identified
    assert found.ceiling == pytest.approx(0.6, rel=SHAPE_GRID)
    assert found.midpoint == pytest.approx(9.0, rel=3 * SHAPE_GRID)
    assert found.sharpness == pytest.approx(1.7, rel=3 * SHAPE_GRID)
    assert found.start == pytest.approx(0.2, abs=SHAPE_GRID)
    other = fit_saturating(COMPUTE, curve(sharpness=3.0), unit="fraction")
    assert other.sharpness != pytest.approx(1.7, rel=3 * SHAPE_GRID)


def test_interval_holds_the_ceiling_and_is_open_to_the_unseen() -> None:
    seen = fit_saturating(COMPUTE, noisy(curve()), unit="fraction")
    assert seen.ceiling_interval[0] <= 0.6 <= seen.ceiling_interval[1]
    assert not seen.ceiling_interval[0] <= curve()[-1] - 0.05 <= seen.ceiling_interval[1]
    unseen = fit_saturating(COMPUTE[:30], noisy(0.2 + 0.005 * COMPUTE)[:30], unit="fraction")
    assert not unseen.identified
    assert "has not begun to saturate" in unseen.warnings[0]


def test_unit_of_compute_does_not_matter() -> None:
    hours, tokens = (fit_saturating(scale * COMPUTE, noisy(curve()), unit="fraction") for scale in (1.0, 1e9))
    assert hours.ceiling == pytest.approx(tokens.ceiling, rel=SHAPE_GRID)
    assert 1e9 * hours.midpoint == pytest.approx(tokens.midpoint, rel=SHAPE_GRID)
    assert hours.midpoint != pytest.approx(tokens.midpoint, rel=SHAPE_GRID)


def test_what_cannot_be_fitted() -> None:
    assert "7 points" in fit_saturating(COMPUTE[:7], curve()[:7], unit="fraction").warnings[0]
    assert "does not rise" in fit_saturating(COMPUTE, curve()[::-1], unit="fraction").warnings[0]
    with pytest.raises(FitError, match=r"compute\[0\] = 0"):
        fit_saturating(COMPUTE - 1, curve(), unit="fraction")


def entropy_for(accuracies: np.ndarray, a: float, b: float) -> np.ndarray:
    return np.log((b - accuracies) / a)


def test_two_ceilings_agree_on_one_story_and_differ_on_two() -> None:
    values = noisy(curve())
    second = fit_saturating(COMPUTE, values, unit="fraction")
    same = two_ceilings(fit(entropy_for(curve(), 0.4, 1.0), values, unit="fraction"), second)
    assert same.agree
    assert "agree" in same.sentence
    above = two_ceilings(fit(entropy_for(curve(), 0.4, 1.1), values, unit="fraction"), second)
    assert above.agree is False
    assert above.difference > 0
    assert "levels off before entropy is spent" in above.sentence
    late = curve(middle=25.0) + np.random.default_rng(1).normal(0, 0.001, 60)
    spent = fit(entropy_for(curve(middle=25.0), 0.4, 0.93), late, unit="fraction")
    below = two_ceilings(spent, fit_saturating(COMPUTE, late, unit="fraction"))
    assert below.agree is False
    assert "below the saturating curve's" in below.sentence


def test_no_second_opinion_without_two_ceilings() -> None:
    second = fit_saturating(COMPUTE[:7], curve()[:7], unit="fraction")
    law = fit(np.linspace(0.5, 0.1, 8), np.linspace(0.2, 0.5, 8), unit="fraction")
    opinion = two_ceilings(law, second)
    assert (opinion.agree, opinion.difference) == (None, None)
    assert "the law and the saturating curve are not identified" in opinion.sentence
    sound = fit(entropy_for(curve(), 0.4, 1.0), noisy(curve()), unit="fraction")
    assert "the saturating curve is not identified" in two_ceilings(sound, second).sentence
