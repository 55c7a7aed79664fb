"""A backtest is the forecasts from its origins; over runs, each run is one observation."""

import numpy as np
import pytest
from scipy import stats

from covent.errors import FitError
from covent.law import Backtest, backtest, forecast, pooled
from tests.support.tolerances import CENTRED, TIGHT

STEPS = np.arange(40.0)


def run(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    entropy = 0.5 * (1 + STEPS / 6) ** -1.0 * np.exp(rng.normal(0, 0.05, 40))
    return STEPS, entropy, 0.6 - 0.2 * np.exp(entropy) + rng.normal(0, 0.005, 40)


def scored(seed: int) -> Backtest:
    return backtest(*run(seed), num_steps=40, unit="fraction", fractions=(0.3, 0.6))


def test_each_origin_is_its_forecast() -> None:
    found = scored(0)
    for origin, fraction in zip(found.origins, (0.3, 0.6), strict=True):
        ahead = forecast(*run(0), num_steps=40, fraction=fraction, unit="fraction")
        for score, prediction in (
            (origin.forecast, ahead.unconditional),
            (origin.conditional, ahead.conditional),
            (origin.unchanged, ahead.unchanged),
        ):
            assert (score.rmse, score.end_error, score.covered) == (
                prediction.rmse,
                prediction.end_error,
                prediction.covered,
            )
        assert origin.num_later == len(ahead.later_steps)
    assert found.origins[0].forecast != found.origins[1].forecast


def with_coverage(run: Backtest, covered: float) -> Backtest:
    """The same backtest with another share of points inside the bands of its first forecast."""
    first, *others = run.origins
    score = first.forecast.model_copy(update={"covered": covered})
    return run.model_copy(update={"origins": [first.model_copy(update={"forecast": score}), *others]})


def test_over_runs_each_run_counts_once() -> None:
    covered = np.array([1.0, 0.9, 0.95, 0.6, 0.85, 0.98])
    runs = [with_coverage(scored(seed), share) for seed, share in enumerate(covered)]
    (origin, _) = pooled(runs)
    assert origin.forecast.coverage == pytest.approx(covered.mean(), abs=TIGHT)
    rmses = [run.origins[0].forecast.rmse for run in runs]
    assert origin.forecast.median_rmse == pytest.approx(np.median(rmses), abs=TIGHT)
    reach = stats.t.ppf(0.975, 5) * covered.std(ddof=1) / np.sqrt(6)
    expected = (covered.mean() - reach, min(1, covered.mean() + reach))
    assert origin.forecast.coverage_interval == pytest.approx(expected, abs=CENTRED)
    num_points = sum(run.origins[0].num_later for run in runs)
    by_point = 1.96 * np.sqrt(covered.mean() * (1 - covered.mean()) / num_points)
    assert origin.forecast.coverage_interval[0] < covered.mean() - 1.5 * by_point
    assert origin.unchanged.coverage is None
    alike, _ = pooled([with_coverage(run, 1.0) for run in runs])
    assert (alike.forecast.coverage, alike.forecast.coverage_interval) == (1.0, None)


def test_what_cannot_be_summed_up() -> None:
    with pytest.raises(FitError, match="No runs"):
        pooled([])
    other = backtest(*run(1), num_steps=40, unit="fraction", fractions=(0.5,))
    with pytest.raises(FitError, match=r"backtests\[1\] has other origins"):
        pooled([scored(0), other])


def test_the_result_is_plain_json_and_comes_back() -> None:
    assert Backtest.model_validate_json(scored(2).model_dump_json()) == scored(2)
