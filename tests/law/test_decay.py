"""The decay recovers its own curve and both of its limits, whatever the unit and origin of the steps."""

import numpy as np
import pytest

from covent.errors import FitError, ShapeError
from covent.law import fit_decay
from covent.law.decay import TAU_GRID
from tests.support.tolerances import CENTRED, DECAY_GRID, TIGHT

STEPS = np.arange(48.0)


def power_law(step: np.ndarray, start: float = 0.2, tau: float = 9.0, power: float = 1.1) -> np.ndarray:
    return start * (1 + step / tau) ** -power


def test_recovers_the_curve_as_well_as_the_grid_allows() -> None:
    decay = fit_decay(STEPS, power_law(STEPS))
    assert decay.tau == pytest.approx(9.0, rel=DECAY_GRID)
    assert decay.power == pytest.approx(1.1, rel=DECAY_GRID)
    assert decay.initial_entropy == pytest.approx(0.2, rel=DECAY_GRID)
    later = np.arange(48.0, 160.0)
    assert decay.at(later) == pytest.approx(power_law(later), rel=DECAY_GRID)
    straight_in_log = np.exp(np.polyval(np.polyfit(STEPS, np.log(power_law(STEPS)), 1), later))
    assert straight_in_log != pytest.approx(power_law(later), rel=DECAY_GRID)


def test_takes_the_best_of_the_grid() -> None:
    """Every τ by numpy's least squares: the one chosen has the least error, and its curve is that fit."""
    rng = np.random.default_rng(0)
    entropy = power_law(STEPS) * np.exp(rng.normal(0, 0.1, 48))
    decay = fit_decay(STEPS, entropy)
    fits = []
    for tau in 47.0 * TAU_GRID:
        design = np.stack([np.ones(48), -np.log1p(STEPS / tau)], axis=1)
        (log_start, power), squares, *_ = np.linalg.lstsq(design, np.log(entropy), rcond=None)
        fits.append((float(squares[0]), tau, log_start, power))
    squares, tau, log_start, power = min(fits)
    assert decay.tau == pytest.approx(tau, abs=CENTRED)
    assert np.log(decay.initial_entropy) == pytest.approx(log_start, abs=CENTRED)
    assert decay.power == pytest.approx(power, abs=CENTRED)
    assert decay.rmse_log == pytest.approx(np.sqrt(squares / 48), abs=CENTRED)


def plateau(step: np.ndarray, start: float = 0.5, floor: float = 0.08, tau: float = 7.0) -> np.ndarray:
    return floor * (start / floor) ** np.exp(-step / tau)


def test_a_plateau_is_recovered_and_extrapolated_as_one() -> None:
    entropy = plateau(STEPS) * np.exp(np.random.default_rng(2).normal(0, 0.03, 48))
    decay = fit_decay(STEPS, entropy)
    assert decay.form == "plateau"
    assert decay.plateau_gain is not None and decay.plateau_gain >= 4
    assert (decay.initial_entropy, decay.floor) == pytest.approx((0.5, 0.08), rel=DECAY_GRID)
    later = np.arange(48.0, 480.0)
    assert decay.at(later) == pytest.approx(plateau(later), rel=DECAY_GRID)
    assert "settles at about 0.08" in decay.warnings[0]
    by_power = fit_decay(STEPS[:7], entropy[:7])
    assert by_power.form == "power"
    assert by_power.at(later) != pytest.approx(plateau(later), rel=DECAY_GRID)


def test_a_power_law_is_not_called_a_plateau() -> None:
    entropy = power_law(STEPS) * np.exp(np.random.default_rng(3).normal(0, 0.03, 48))
    decay = fit_decay(STEPS, entropy)
    assert (decay.form, decay.floor) == ("power", None)
    assert decay.plateau_gain is not None and decay.plateau_gain < 4


def test_exponential_decay_is_the_far_limit_and_is_said() -> None:
    decay = fit_decay(STEPS, 0.2 * np.exp(-STEPS / 20))
    assert decay.at([60.0, 100.0]) == pytest.approx(0.2 * np.exp([-3.0, -5.0]), rel=DECAY_GRID)
    assert any("exponential" in warning for warning in decay.warnings)
    assert not any("exponential" in warning for warning in fit_decay(STEPS, power_law(STEPS)).warnings)


def test_rising_entropy_is_extrapolated_as_constant() -> None:
    entropy = 0.1 * np.exp(STEPS / 40)
    decay = fit_decay(STEPS, entropy)
    assert decay.power == 0.0
    assert decay.at([100.0, 1000.0]) == pytest.approx(np.exp(np.mean(np.log(entropy))), abs=TIGHT)
    assert "does not fall" in decay.warnings[0]
    assert fit_decay(STEPS, np.full(48, 0.1)).at(99.0) == pytest.approx(0.1, abs=TIGHT)


def test_unit_and_origin_of_steps_do_not_matter() -> None:
    entropy = power_law(STEPS) * np.exp(np.random.default_rng(1).normal(0, 0.1, 48))
    decay, moved = fit_decay(STEPS, entropy), fit_decay(500 + 8 * STEPS, entropy)
    later = np.array([50.0, 150.0])
    assert moved.at(500 + 8 * later) == pytest.approx(decay.at(later), abs=TIGHT)
    assert moved.tau == pytest.approx(8 * decay.tau, rel=TIGHT)
    assert moved.at(8 * later + 900) != pytest.approx(decay.at(later), abs=TIGHT)


def test_what_cannot_be_fitted_is_named() -> None:
    with pytest.raises(FitError, match="2 points of entropy"):
        fit_decay([0, 1], [0.2, 0.1])
    with pytest.raises(FitError, match=r"entropy\[2\] = 0 at step 20"):
        fit_decay([0, 10, 20, 30], [0.2, 0.1, 0.0, 0.1])
    with pytest.raises(FitError, match=r"entropy\[1\] = -0.1 is negative"):
        fit_decay([0, 10, 20], [0.2, -0.1, 0.1])
    with pytest.raises(FitError, match=r"step\[1\] = 0 is not after"):
        fit_decay([0, 0, 20], [0.2, 0.1, 0.1])
    with pytest.raises(ShapeError, match="no partner"):
        fit_decay([0, 1, 2], [0.2, 0.1])
    with pytest.raises(FitError, match="lies before 10"):
        fit_decay([10, 20, 30], [0.2, 0.1, 0.05]).at([9.0])
