"""The forecast during a run is the forecast that a finished run's prefix gives, and knows nothing of what comes."""

import numpy as np
import pytest

from covent.law import Forecast, Forecaster, forecast
from tests.support.tolerances import TIGHT

NUM_STEPS, EVERY = 60, 5


def _run(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Entropy of every rollout step, and accuracy in the middle of every block, along a noisy law."""
    rng = np.random.default_rng(seed)
    entropy = 0.5 * (1 + np.arange(NUM_STEPS) / 8) ** -1.2 * np.exp(rng.normal(0, 0.05, NUM_STEPS))
    block_means = entropy.reshape(-1, EVERY).mean(axis=1)
    return entropy, 0.9 - 0.4 * (np.exp(block_means) - 1) + rng.normal(0, 0.003, len(block_means))


def _live(entropy: np.ndarray, accuracy: np.ndarray, forecaster: Forecaster | None = None) -> dict[int, Forecast]:
    forecaster = forecaster or Forecaster(NUM_STEPS, every=EVERY)
    found = {}
    for step, value in enumerate(entropy):
        if step % EVERY == EVERY // 2:
            forecaster.evaluated(accuracy[step // EVERY])
        ahead = forecaster.stepped(step, value)
        if ahead is not None:
            found[step] = ahead
    return found


def test_it_is_the_forecast_of_the_finished_runs_prefix() -> None:
    entropy, accuracy = _run()
    live = _live(entropy, accuracy)
    assert sorted(live) == list(range(3 * EVERY - 1, NUM_STEPS - 1, EVERY))
    points = np.arange(EVERY - 1, NUM_STEPS, EVERY)
    for step, ahead in live.items():
        whole = forecast(
            points,
            entropy.reshape(-1, EVERY).mean(axis=1),
            accuracy,
            num_steps=NUM_STEPS,
            fraction=(step + 1) / NUM_STEPS,
            unit="fraction",
            entropy_series=(np.arange(NUM_STEPS), entropy),
            window=EVERY,
        )
        assert ahead.ceiling == pytest.approx(whole.ceiling, abs=TIGHT)
        assert ahead.law.ceiling_interval == pytest.approx(whole.law.ceiling_interval, abs=TIGHT)
        assert ahead.final is not None and whole.final is not None
        assert ahead.final.accuracy == pytest.approx(whole.final.accuracy, abs=TIGHT)
    early, late = live[3 * EVERY - 1], live[NUM_STEPS - EVERY - 1]
    assert early.ceiling != pytest.approx(late.ceiling, abs=TIGHT)


@pytest.mark.parametrize("stop", [3 * EVERY + 1, 4 * EVERY + EVERY // 2])
def test_one_that_recalls_what_was_recorded_goes_on_the_same(stop: int) -> None:
    """Stopped after so many steps, the second time after the coming step's evaluation; one step left no row."""
    entropy, accuracy = _run()
    steps = [step for step in range(NUM_STEPS) if step != EVERY - 1]
    whole, second = Forecaster(NUM_STEPS, every=EVERY), Forecaster(NUM_STEPS, every=EVERY)
    evaluated = {step: accuracy[step // EVERY] for step in range(EVERY // 2, NUM_STEPS, EVERY)}
    second.recall(
        [(step, entropy[step]) for step in steps if step < stop],
        {step: value for step, value in evaluated.items() if step <= stop},
    )
    for step in steps:
        for forecaster in [whole] if step < stop else [whole, second]:
            if step in evaluated and not (forecaster is second and step == stop):
                forecaster.evaluated(evaluated[step])
        once = whole.stepped(step, entropy[step])
        if step >= stop:
            assert second.stepped(step, entropy[step]) == once
    assert second.num_points == whole.num_points == NUM_STEPS // EVERY - 1


def test_a_block_without_an_accuracy_is_no_point() -> None:
    entropy, accuracy = _run()
    forecaster = Forecaster(NUM_STEPS, every=EVERY)
    for step in range(4 * EVERY):
        if step % EVERY == EVERY // 2 and step // EVERY != 1:
            forecaster.evaluated(accuracy[step // EVERY])
        forecaster.stepped(step, entropy[step])
    assert forecaster.num_points == 3


def test_the_gain_left_shrinks_to_nothing_where_the_run_is_exhausted() -> None:
    entropy, accuracy = _run()
    forecaster = Forecaster(NUM_STEPS, every=EVERY)
    live = _live(entropy, accuracy, forecaster)
    gain = forecaster.gain_left(live[NUM_STEPS - EVERY - 1])
    assert gain is not None and 0 < gain < 0.05
    entropy[:] = 0.3
    flat = Forecaster(NUM_STEPS, every=EVERY)
    unknown = _live(entropy, accuracy, flat)
    assert all(flat.gain_left(ahead) is None for ahead in unknown.values())
