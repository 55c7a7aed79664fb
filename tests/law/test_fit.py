"""The fit recovers known laws, says plainly when it cannot, and tells the two forms apart only where the data do."""

import json

import numpy as np
import pytest

from covent.law import LawFit, accuracy, fit, fit_line, rivals
from covent.law.criterion import DECISIVE_AICC
from covent.law.fit import HIGH_CORRELATION
from tests.support.tolerances import CENTRED, TIGHT

A, B = 0.209, 0.596
FALLING = np.geomspace(0.55, 0.02, 24)


def noisy(seed: int, entropy: np.ndarray = FALLING, scale: float = 0.004) -> np.ndarray:
    return accuracy(entropy, A, B) + np.random.default_rng(seed).normal(0, scale, entropy.size)


def test_recovers_the_law_from_exact_points() -> None:
    law = fit(FALLING, accuracy(FALLING, A, B), unit="fraction")
    assert (law.a, law.b, law.ceiling) == pytest.approx((A, B, B - A), abs=CENTRED)
    assert law.r2 == pytest.approx(1.0, abs=TIGHT)
    assert law.identified
    assert law.warnings == []
    assert (law.entropy_min, law.entropy_max, law.n) == (FALLING.min(), FALLING.max(), 24)


def test_a_line_in_entropy_does_not_recover_the_law() -> None:
    line = fit_line(FALLING, accuracy(FALLING, A, B), unit="fraction")
    assert line.slope is not None
    assert line.intercept is not None
    assert -line.slope != pytest.approx(A, rel=0.05)
    assert line.intercept != pytest.approx(B, rel=0.05)
    assert line.rmse is not None
    assert line.rmse > 0.001


def test_noisy_points_give_least_squares() -> None:
    observed = noisy(seed=0)
    law, line = fit(FALLING, observed, unit="fraction"), fit_line(FALLING, observed, unit="fraction")
    for x, coefficients in ((np.exp(FALLING), (law.b, -law.a)), (FALLING, (line.intercept, line.slope))):
        truth = np.linalg.lstsq(np.stack([np.ones(24), x], axis=1), observed, rcond=None)[0]
        assert coefficients == pytest.approx(tuple(truth), abs=CENTRED)


def test_intervals_hold_their_estimates_and_the_truth() -> None:
    law = fit(FALLING, noisy(seed=1), unit="fraction")
    for interval, estimate, truth in (
        (law.a_interval, law.a, A),
        (law.b_interval, law.b, B),
        (law.ceiling_interval, law.ceiling, B - A),
    ):
        assert interval[0] < estimate < interval[1]
        assert interval[0] < truth < interval[1]
    assert law.naive_ceiling_interval[0] > law.ceiling_interval[0]
    assert law.naive_ceiling_interval[1] < law.ceiling_interval[1]


def test_percent_is_a_hundred_times_fraction() -> None:
    observed = noisy(seed=2)
    fraction, percent = fit(FALLING, observed, unit="fraction"), fit(FALLING, 100 * observed, unit="percent")
    for field in ("a", "b", "ceiling", "rmse"):
        assert getattr(percent, field) == pytest.approx(100 * getattr(fraction, field), abs=CENTRED)
    assert percent.ceiling_interval == pytest.approx([100 * end for end in fraction.ceiling_interval], abs=CENTRED)
    assert percent.r2 == pytest.approx(fraction.r2, abs=TIGHT)
    assert percent.identified == fraction.identified


def test_order_in_time_matters_to_the_interval_only() -> None:
    observed, order = noisy(seed=3), np.random.default_rng(3).permutation(24)
    law, shuffled = fit(FALLING, observed, unit="fraction"), fit(FALLING[order], observed[order], unit="fraction")
    assert (shuffled.a, shuffled.b) == pytest.approx((law.a, law.b), abs=CENTRED)
    assert shuffled.ceiling_interval != pytest.approx(law.ceiling_interval, abs=CENTRED)


@pytest.mark.parametrize("num_points", [0, 1, 2])
def test_fewer_than_three_points_are_not_identified(num_points: int) -> None:
    law = fit(FALLING[:num_points], noisy(seed=4)[:num_points], unit="fraction")
    assert not law.identified
    said = "1 point;" if num_points == 1 else f"{num_points} points;"
    assert law.warnings[0].startswith(f"Not identified: {said}")
    assert (law.a, law.b, law.ceiling, law.ceiling_interval, law.r2) == (None,) * 5
    assert fit_line(FALLING[:num_points], noisy(seed=4)[:num_points], unit="fraction").intercept is None


def test_constant_entropy_is_not_identified() -> None:
    law = fit([0.08] * 10, np.linspace(0.5, 0.6, 10), unit="fraction")
    assert not law.identified
    assert "entropy stays at 0.08 nats" in law.warnings[0]
    assert law.a is None


def test_nearly_flat_entropy_is_not_identified_but_shown() -> None:
    """Entropy under control moves by half a percent while accuracy has its noise: the sign of a is chance."""
    held, falling = 0.08 + 0.0004 * np.sin(np.arange(20)), np.geomspace(0.4, 0.02, 20)
    flat = [fit(held, noisy(seed, held, scale=0.01), unit="fraction") for seed in range(40)]
    moved = [fit(falling, noisy(seed, falling, scale=0.01), unit="fraction") for seed in range(40)]
    assert sum(law.identified for law in flat) <= 4
    assert all(law.identified for law in moved)
    reasons = {law.warnings[0].split(",")[-1] for law in flat if not law.identified and law.a is not None and law.a > 0}
    assert reasons == {" includes 0."}
    assert all(law.a is not None for law in flat)


def test_accuracy_that_falls_with_entropy_is_not_the_law() -> None:
    law = fit(FALLING, noisy(seed=6)[::-1], unit="fraction")
    assert law.a is not None
    assert law.a < 0
    assert not law.identified
    assert "a = -" in law.warnings[0]
    assert "not positive" in law.warnings[0]


@pytest.mark.parametrize(("unit", "scale"), [("fraction", 1.0), ("percent", 100.0)])
def test_impossible_ceiling_is_said(unit: str, scale: float) -> None:
    entropy = np.linspace(0.15, 0.07, 16)
    impossible = fit(entropy, scale * (1.02 - 3.0 * (np.exp(entropy) - 1)), unit=unit)  # type: ignore[arg-type]  # a parametrized unit
    possible = fit(entropy, scale * (0.98 - 3.0 * (np.exp(entropy) - 1)), unit=unit)  # type: ignore[arg-type]  # a parametrized unit
    assert impossible.ceiling == pytest.approx(1.02 * scale, abs=CENTRED)
    assert not impossible.identified and possible.identified
    assert "102.0 %, is no possible accuracy" in impossible.warnings[0], "in percent, whatever the unit"
    assert not any("possible accuracy" in warning for warning in possible.warnings)


def test_an_impossible_ceiling_whose_interval_reaches_below_is_not_fixed_by_the_points() -> None:
    entropy = np.linspace(0.15, 0.07, 16)
    noise = 0.02 * np.random.default_rng(0).standard_normal(16)
    law = fit(entropy, 1.06 - 3.0 * (np.exp(entropy) - 1) + noise, unit="fraction")
    assert law.ceiling is not None and law.ceiling_interval is not None
    assert law.ceiling_interval[0] < 1 < law.ceiling
    assert law.identified
    (said,) = (warning for warning in law.warnings if "Impossible accuracy" in warning)
    assert "the points do not fix it" in said


def test_a_far_ceiling_and_a_doubtful_unit_are_said() -> None:
    entropy = np.linspace(0.5, 0.4, 12)
    law = fit(entropy, accuracy(entropy, A, B), unit="percent")
    assert any("far from the data" in warning for warning in law.warnings)
    assert any("are these fractions?" in warning for warning in law.warnings)


def line_behind_law(entropy: np.ndarray, observed: np.ndarray) -> float:
    """AICc of the straight line minus that of the law: positive speaks for the exponential."""
    law, line = (form(entropy, observed, unit="fraction") for form in (fit, fit_line))
    assert law.aicc is not None and line.aicc is not None
    return line.aicc - law.aicc


def test_forms_are_told_apart_over_a_wide_range_only() -> None:
    wide, narrow = np.linspace(2.0, 0.0, 40), np.linspace(0.15, 0.01, 40)
    noise = np.random.default_rng(7).normal(0, 0.01, 40)
    assert line_behind_law(wide, 0.9 - 0.1 * (np.exp(wide) - 1) + noise) > DECISIVE_AICC
    assert line_behind_law(wide, 0.9 - 0.3 * wide + noise) < -DECISIVE_AICC
    either = 0.9 - 2.5 * (np.exp(narrow) - 1) + noise
    assert abs(line_behind_law(narrow, either)) < DECISIVE_AICC
    assert "do not tell them apart" in rivals(narrow, either, unit="fraction").sentence


def test_correlated_noise_is_less_evidence_than_independent_noise_would_be() -> None:
    """The AICc difference under AR(1) noise against the one that takes residuals as independent."""
    entropy = np.linspace(1.0, 0.0, 60)
    noise = np.convolve(np.random.default_rng(8).normal(0, 0.01, 79), np.ones(20) / 4, mode="valid")
    observed = 0.7 - 0.2 * (np.exp(entropy) - 1) + noise
    law, line = (form(entropy, observed, unit="fraction").rmse for form in (fit, fit_line))
    assert law is not None and line is not None
    independent = 60 * 2 * np.log(line / law)
    assert abs(line_behind_law(entropy, observed)) < abs(independent)


def test_the_result_is_plain_json_and_comes_back() -> None:
    law = fit(FALLING, noisy(seed=9), unit="fraction")
    assert LawFit.model_validate_json(law.model_dump_json()) == law
    assert set(json.loads(law.model_dump_json())) >= {
        *("a", "b", "ceiling", "ceiling_interval", "r2", "rmse", "n", "identified", "unit", "warnings")
    }


def test_far_points_count_as_less_alike() -> None:
    """Correlated noise, seen in bursts of three: told the steps, the noise model explains the points better."""
    rng, n = np.random.default_rng(5), 240
    noise = np.zeros(n)
    for t in range(1, n):
        noise[t] = 0.9 * noise[t - 1] + rng.normal(0, 0.004)
    entropy = np.geomspace(0.55, 0.02, n)
    observed = accuracy(entropy, A, B) + noise
    kept = np.flatnonzero(np.arange(n) % 12 < 3)
    told = fit(entropy[kept], observed[kept], unit="fraction", step=kept)
    untold = fit(entropy[kept], observed[kept], unit="fraction")
    assert told.aicc < untold.aicc - DECISIVE_AICC
    assert (told.a, told.b) == pytest.approx((untold.a, untold.b), abs=TIGHT)
    assert fit(entropy, observed, unit="fraction", step=7 * np.arange(n)) == fit(entropy, observed, unit="fraction")


def test_weights_pull_the_law_towards_heavy_points() -> None:
    observed = noisy(seed=6)
    observed[0] -= 0.05
    weights = np.ones(24)
    weights[0] = 1e-6
    light = fit(FALLING, observed, unit="fraction", weights=weights)
    without = fit(FALLING[1:], observed[1:], unit="fraction")
    assert (light.a, light.b) == pytest.approx((without.a, without.b), abs=1e-3 * A)
    assert fit(FALLING, observed, unit="fraction").a != pytest.approx(without.a, rel=0.05)


def test_held_entropy_is_said_and_falling_entropy_is_not() -> None:
    rng, t = np.random.default_rng(7), np.arange(40)
    held = 0.3 + 0.02 * rng.normal(size=40)
    rising = 0.3 + 0.2 * (1 - np.exp(-t / 15)) + 0.01 * rng.normal(size=40)
    law = fit(held, rising, unit="fraction")
    assert not law.identified
    assert any("something besides entropy drives this run" in warning for warning in law.warnings)
    falls_first = np.maximum(0.3, 0.9 - 0.2 * t) + 0.002 * rng.normal(size=40)
    law = fit(
        falls_first, accuracy(falls_first, 0.02, 0.3) + 0.3 * (t / 40) + 0.005 * rng.normal(size=40), unit="fraction"
    )
    assert not law.identified
    assert any("something besides entropy drives this run" in warning for warning in law.warnings)
    assert not any("besides entropy" in warning for warning in fit(FALLING, noisy(seed=8), unit="fraction").warnings)


def test_entropies_that_float32_cannot_tell_apart_identify_nothing() -> None:
    rising = np.linspace(0.2, 0.4, FALLING.size)
    law = fit(1e-9 * FALLING[::-1] / FALLING.max(), rising[::-1], unit="fraction")
    assert law.a is not None and law.a > 1e6
    assert not law.identified
    assert "float32" in law.warnings[0]
    assert "float32" not in fit(FALLING, noisy(0), unit="fraction").warnings


def test_noise_that_remembers_for_long_is_said_to_make_the_interval_too_narrow() -> None:
    rng = np.random.default_rng(3)
    entropy = np.geomspace(0.8, 0.02, 200)
    for rho, said in ((0.97, True), (0.3, False)):
        noise = np.zeros(200)
        for t in range(1, 200):
            noise[t] = rho * noise[t - 1] + np.sqrt(1 - rho**2) * rng.standard_normal()
        law = fit(entropy, accuracy(entropy, A, B) + 0.004 * noise, unit="fraction")
        assert law.identified
        assert law.noise_correlation is not None
        assert (law.noise_correlation >= HIGH_CORRELATION) == said
        assert any("too narrow" in warning for warning in law.warnings) == said
