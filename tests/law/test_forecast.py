"""A forecast uses the prefix alone, is right on a run that obeys its models, and never crashes on a short one."""

import json
from typing import Any

import numpy as np
import pytest

from covent.errors import ConfigError, FitError
from covent.law import Forecast, accuracy, fit, forecast
from tests.support.tolerances import CENTRED, DECAY_GRID, DECAY_GRID_ACCURACY, TIGHT

A, B, NUM_STEPS, WINDOW = 0.4, 1.3, 160, 5
ALL_STEPS = np.arange(float(NUM_STEPS))
DECAY = 0.2 * (1 + ALL_STEPS / 9.0) ** -1.1


def run(seed: int = 0, noise: float = 0.0) -> dict[str, Any]:
    """A run of 32 points, each the mean of 5 rollout steps, with both models true up to noise."""
    rng = np.random.default_rng(seed)
    per_step = DECAY * np.exp(rng.normal(0, 10 * noise, NUM_STEPS))
    entropy = per_step.reshape(-1, WINDOW).mean(axis=1)
    return {
        "step": ALL_STEPS[WINDOW - 1 :: WINDOW],
        "entropy": entropy,
        "accuracy": accuracy(entropy, A, B) + rng.normal(0, noise, entropy.size),
        "entropy_series": (ALL_STEPS, per_step),
    }


def forecast_of(points: dict[str, Any], fraction: float = 0.3, **changed: Any) -> Forecast:
    settings = {"num_steps": NUM_STEPS, "fraction": fraction, "unit": "fraction", **changed}
    return forecast(**{**points, **settings})


def test_a_run_that_obeys_both_models_is_forecast() -> None:
    ahead = forecast_of(run())
    assert ahead.num_prefix == 9
    assert ahead.later_steps == [float(s) for s in range(49, 160, 5)]
    assert ahead.identified
    assert ahead.ceiling == pytest.approx(B - A, abs=CENTRED)
    assert ahead.conditional.rmse == pytest.approx(0.0, abs=CENTRED)
    assert ahead.unconditional.entropy == pytest.approx(DECAY.reshape(-1, WINDOW).mean(axis=1)[9:], rel=DECAY_GRID)
    assert ahead.unconditional.rmse == pytest.approx(0.0, abs=DECAY_GRID_ACCURACY)
    assert ahead.unchanged.rmse is not None
    assert ahead.unchanged.rmse > 0.005


def test_errors_are_those_of_the_predictions_shown() -> None:
    points = run(seed=1, noise=0.01)
    ahead = forecast_of(points)
    law = fit(points["entropy"][:9], points["accuracy"][:9], unit="fraction")
    assert ahead.law == law
    observed = points["accuracy"][9:]
    assert ahead.observed == observed.tolist()
    assert ahead.end_steps == [149.0, 154.0, 159.0]
    assert ahead.conditional.accuracy == pytest.approx(
        [law.b - law.a * np.exp(h) for h in points["entropy"][9:]], abs=TIGHT
    )
    for prediction in (ahead.conditional, ahead.unconditional, ahead.unchanged):
        misses = [p - o for p, o in zip(prediction.accuracy, observed, strict=True)]
        assert prediction.end_error == pytest.approx(sum(misses[-3:]) / 3, abs=TIGHT)
        assert prediction.rmse == pytest.approx((sum(m * m for m in misses) / len(misses)) ** 0.5, abs=TIGHT)
        assert prediction.end_error != pytest.approx(-sum(misses[-3:]) / 3, abs=TIGHT)
    assert ahead.unchanged.accuracy == [points["accuracy"][8]] * 23


def test_nothing_after_the_cut_reaches_the_forecast() -> None:
    points = run(seed=2, noise=0.01)
    ahead = forecast_of(points)
    later = points["step"] >= ahead.cut
    steps, per_step = points["entropy_series"]
    other = {
        "step": points["step"],
        "entropy": np.where(later, 0.3, points["entropy"]),
        "accuracy": np.where(later, 0.1, points["accuracy"]),
        "entropy_series": (steps, np.where(steps >= ahead.cut, 2.0, per_step)),
    }
    after = forecast_of(other)
    assert (after.law, after.decay, after.ceiling) == (ahead.law, ahead.decay, ahead.ceiling)
    assert after.unconditional.entropy == ahead.unconditional.entropy
    assert after.unconditional.accuracy == ahead.unconditional.accuracy
    assert (after.unconditional.low, after.unconditional.high) == (ahead.unconditional.low, ahead.unconditional.high)
    assert after.final == ahead.final
    assert after.warnings == ahead.warnings
    assert after.unconditional.rmse != ahead.unconditional.rmse
    assert after.conditional.accuracy != ahead.conditional.accuracy


def test_the_last_value_before_the_cut_does_reach_the_forecast() -> None:
    points = run(seed=2, noise=0.01)
    ahead = forecast_of(points)
    for name in ("entropy", "accuracy"):
        changed = points[name].copy()
        changed[ahead.num_prefix - 1] *= 1.01
        assert forecast_of({**points, name: changed}).unconditional.accuracy != ahead.unconditional.accuracy


def test_a_point_is_known_only_when_its_step_lies_before_the_cut() -> None:
    points = run()
    assert forecast_of(points, fraction=49 / 160).num_prefix == 9
    assert forecast_of(points, fraction=49.5 / 160).num_prefix == 10


def test_without_a_finer_series_the_decay_is_that_of_the_points() -> None:
    points = run()
    ahead = forecast_of({**points, "entropy_series": None})
    assert ahead.decay is not None
    assert ahead.decay.n == 9
    assert ahead.unconditional.entropy == pytest.approx(ahead.decay.at(ahead.later_steps), abs=TIGHT)


def test_the_window_is_averaged_as_the_points_were() -> None:
    points = run()
    ahead, given = forecast_of(points), forecast_of(points, window=WINDOW)
    assert ahead.decay is not None
    by_hand = [float(np.mean(ahead.decay.at(np.arange(s - WINDOW + 1, s + 1)))) for s in ahead.later_steps]
    assert ahead.unconditional.entropy == pytest.approx(by_hand, abs=TIGHT)
    assert given.unconditional.entropy == pytest.approx(by_hand, abs=TIGHT)
    single = forecast_of(points, window=1)
    assert single.unconditional.entropy == pytest.approx(ahead.decay.at(ahead.later_steps), abs=TIGHT)
    assert single.unconditional.entropy != pytest.approx(by_hand, abs=TIGHT)


@pytest.mark.parametrize("num_points", [0, 1, 2, 3, 8])
def test_a_prefix_that_is_too_short_gives_none_and_says_so(num_points: int) -> None:
    points = {name: values[:num_points] for name, values in run().items() if name != "entropy_series"}
    ahead = forecast_of(points, fraction=0.05)
    assert ahead.num_prefix == min(num_points, 1)
    assert not ahead.identified
    assert ahead.ceiling is None
    for prediction in (ahead.conditional, ahead.unconditional):
        assert set(prediction.model_dump().values()) == {None}
    assert ahead.final is None
    assert any("Not identified" in warning for warning in ahead.warnings)


def test_a_run_that_has_not_gone_on_is_forecast_without_a_score() -> None:
    points = {name: values[:9] for name, values in run().items() if name != "entropy_series"}
    ahead = forecast_of(points)
    assert ahead.ceiling == pytest.approx(B - A, abs=CENTRED)
    assert (ahead.later_steps, ahead.observed, ahead.end_steps) == ([], [], [])
    assert ahead.unconditional.accuracy == []
    assert (ahead.unconditional.end_error, ahead.unconditional.rmse) == (None, None)


def test_entropy_of_zero_stops_the_forecast_but_not_the_conditional_prediction() -> None:
    points = run()
    entropy = points["entropy"].copy()
    entropy[4] = 0.0
    ahead = forecast_of({**points, "entropy": entropy, "entropy_series": None})
    assert ahead.decay is None
    assert ahead.unconditional.accuracy is None
    assert ahead.conditional.accuracy is not None
    assert any("No forecast: entropy[4] = 0 at step 24" in warning for warning in ahead.warnings)


def test_impossible_predictions_are_shown_raw_and_said() -> None:
    entropy = np.linspace(0.2, 0.0, 32)
    points = {
        "step": ALL_STEPS[WINDOW - 1 :: WINDOW],
        "entropy": entropy,
        "accuracy": np.minimum(1.1 - 4.0 * (np.exp(entropy) - 1), 1.0),
    }
    ahead = forecast_of(points)
    assert ahead.conditional.accuracy is not None
    assert max(ahead.conditional.accuracy) > 1.05
    assert any("conditional prediction leaves 0 to 100 % (from " in warning for warning in ahead.warnings)
    assert not any("leaves" in warning for warning in forecast_of(run()).warnings)


def test_an_impossible_end_beyond_the_last_point_is_said() -> None:
    """A bent run whose law, fitted to the whole of it, gives 102 % once entropy has decayed further."""
    step = np.arange(4, 164, 4)
    entropy = 0.2 * (1 + step / 20) ** -1.0
    points = {"step": step, "entropy": entropy, "accuracy": 1.02 - 3.0 * (np.exp(entropy) - 1)}
    ahead = forecast(**points, num_steps=1600, fraction=0.11, unit="fraction")
    assert ahead.unconditional.accuracy == [] and ahead.final is not None
    assert ahead.final.accuracy > 1
    assert any(warning.startswith("The forecast leaves") for warning in ahead.warnings)
    lower = forecast(**{**points, "accuracy": points["accuracy"] - 0.1}, num_steps=1600, fraction=0.11, unit="fraction")
    assert not any("leaves" in warning for warning in lower.warnings)


def test_settings_and_rows_are_checked() -> None:
    points = run()
    with pytest.raises(ConfigError, match="fraction is 30"):
        forecast_of(points, fraction=30)
    with pytest.raises(ConfigError, match="num_steps is 0"):
        forecast_of(points, num_steps=0)
    with pytest.raises(ConfigError, match="window is 0"):
        forecast_of(points, window=0)
    repeated = points["step"].copy()
    repeated[20] = repeated[19]
    with pytest.raises(FitError, match=r"step\[20\] = 99 is not after"):
        forecast_of({**points, "step": repeated})


def test_the_result_is_plain_json_and_comes_back() -> None:
    ahead = forecast_of(run(seed=3, noise=0.01))
    assert Forecast.model_validate_json(ahead.model_dump_json()) == ahead
    json.loads(ahead.model_dump_json())


def test_the_end_is_forecast_before_it_has_happened() -> None:
    whole = run(seed=4, noise=0.01)
    begun = {name: values[:9] for name, values in whole.items() if name != "entropy_series"}
    final = forecast_of(begun).final
    assert final is not None
    assert final.step == NUM_STEPS
    assert final.accuracy == pytest.approx(B - A * np.exp(final.entropy), abs=0.05)
    assert final.low is not None and final.high is not None
    assert final.low < whole["accuracy"][-1] < final.high
    assert not final.low < 0.1 < final.high
    assert forecast_of({name: values[:4] for name, values in begun.items()}).final.low is None
