"""Bands: noise goes on from the last residual, draws follow the decay, and about 95 % of later points lie inside."""

import numpy as np
import pytest

from covent.errors import FitError
from covent.law import forecast
from covent.law.bands import NUM_DRAWS, AccuracyBands, continued_noise, drawn_entropies
from covent.law.correlated import Draws
from covent.law.decay import DecayMixture
from covent.law.series import checked_points
from tests.support.tolerances import TIGHT

STEPS = np.arange(60.0)
A, B = 0.2, 0.6


def correlated(rng: np.random.Generator, n: int, rho: float, scale: float) -> np.ndarray:
    noise = np.empty(n)
    noise[0] = rng.normal(0, scale)
    for t in range(1, n):
        noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * rng.normal(0, scale)
    return noise


@pytest.mark.parametrize("rho", [-0.5, 0.8])
def test_noise_continues_from_the_last_residual(rho: float) -> None:
    """Mean and spread after each gap are those of the stationary process given where it was."""
    count, scale, last, gaps = 40_000, 2.0, 3.0, np.array([1.0, 2.0, 0.5])
    draws = Draws(np.zeros(count, np.intp), np.full(count, rho), np.zeros((count, 2)), np.full(count, scale))
    noise = continued_noise(np.random.default_rng(0), draws, np.full(count, last), gaps)
    phi = np.cumprod(np.sign(rho) * np.abs(rho) ** gaps)
    assert noise.mean(axis=0) == pytest.approx(phi * last, abs=0.05)
    assert noise.std(axis=0) == pytest.approx(scale * np.sqrt(1 - phi**2), abs=0.05)
    assert noise.std(axis=0) != pytest.approx(np.full(3, scale), abs=0.05)


def test_drawn_entropies_surround_the_truth_and_settle_where_it_settles() -> None:
    rng = np.random.default_rng(1)
    plateau = 0.05 * 10 ** np.exp(-STEPS / 8) * np.exp(correlated(rng, 60, 0.3, 0.05))
    decay = DecayMixture(STEPS, plateau)
    later = drawn_entropies(decay, [(t, t) for t in np.arange(60.0, 120.0)])
    assert later.shape == (NUM_DRAWS, 60)
    low, high = np.quantile(later[:, -1], [0.025, 0.975])
    assert low < 0.05 < high
    assert high < 0.08
    shares = decay.fit.member_weights
    assert shares[24:].sum() > 0.9
    falling = DecayMixture(STEPS, 0.5 * (1 + STEPS / 5) ** -1.0 * np.exp(correlated(rng, 60, 0.3, 0.05)))
    assert falling.fit.member_weights[:24].sum() > 0.9


def test_windows_average_and_rises_are_held() -> None:
    rng = np.random.default_rng(2)
    noisy = 0.2 * np.exp(correlated(rng, 60, 0.0, 0.3))
    decay = DecayMixture(STEPS, noisy)
    single, windowed = drawn_entropies(decay, [(90, 90)]), drawn_entropies(decay, [(83, 90)])
    assert windowed.std() < 0.6 * single.std()
    rising = DecayMixture(STEPS, 0.1 * np.exp(STEPS / 60 + correlated(rng, 60, 0.0, 0.05)))
    far = drawn_entropies(rising, [(1000, 1000)])
    assert np.median(far) == pytest.approx(0.1 * np.exp(0.5), rel=0.1)
    assert np.quantile(far, 0.975) < 0.4


def test_a_band_needs_points() -> None:
    with pytest.raises(FitError, match="4 points of entropy"):
        DecayMixture(STEPS[:4], [0.4, 0.3, 0.2, 0.1])
    assert not AccuracyBands.can_be_drawn(checked_points([0.3, 0.2, 0.1], [0.1, 0.2, 0.3], "fraction"))
    assert AccuracyBands.can_be_drawn(checked_points([0.3, 0.2, 0.1, 0.05], [0.1, 0.2, 0.3, 0.3], "fraction"))


def test_later_points_lie_inside_and_without_noise_of_the_law_they_would_not() -> None:
    """40 runs, each one observation: the mean share inside, and inside a band half as wide."""
    shares, halved = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        entropy = 0.5 * (1 + STEPS / 10) ** -1.0 * np.exp(correlated(rng, 60, 0.5, 0.1))
        accuracy = B - A * np.exp(entropy) + correlated(rng, 60, 0.5, 0.005)
        ahead = forecast(STEPS, entropy, accuracy, num_steps=60, fraction=0.4, unit="fraction")
        for prediction in (ahead.unconditional, ahead.conditional):
            low, high, observed = (np.array(v) for v in (prediction.low, prediction.high, ahead.observed))
            assert prediction.covered == pytest.approx(np.mean((low <= observed) & (observed <= high)), abs=TIGHT)
            shares.append(prediction.covered)
            halved.append(np.mean(np.abs(observed - (low + high) / 2) <= (high - low) / 4))
    assert 0.9 <= np.mean(shares) <= 0.995
    assert np.mean(halved) < 0.85
