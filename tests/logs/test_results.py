"""The law of a log against numpy's own least squares; several logs pooled where their entropies are one quantity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covent.errors import ConfigError
from covent.law import fit
from covent.logs import Choice, all_series, comparison, fit_result, forecast_result, pooled_result
from covent.logs.definitions import EntropyDefinition
from covent.logs.results import definition_warnings, one_curve
from covent.logs.series import LogSeries
from tests.logs.logfiles import GOLDEN, json_lines, law_rows, series_of
from tests.support.synthetic import write_run
from tests.support.tolerances import CENTRED, CHANCE, TIGHT


@pytest.fixture
def exact(tmp_path: Path) -> LogSeries:
    return series_of(json_lines(tmp_path / "exact.jsonl", law_rows(60, every=2)))


def test_a_log_on_the_law_gives_its_coefficients(exact: LogSeries) -> None:
    result = fit_result(exact)
    assert (result.a, result.b, result.ceiling) == pytest.approx((0.3, 1.1, 0.8), rel=CENTRED)
    assert result.identified
    assert (result.n, result.unit, result.metric) == (30, "fraction", "accuracy")


@pytest.mark.parametrize("file", ["verl_console.log", "trl_trainer_state.json"])
def test_the_fit_is_least_squares_on_exp_of_entropy(file: str) -> None:
    series = series_of(GOLDEN / file)
    result = fit_result(series)
    slope, intercept = np.polyfit(np.exp(series.entropy), series.accuracy, 1)
    assert (result.a, result.b) == pytest.approx((-slope, intercept), rel=CENTRED)
    wrong, _ = np.polyfit(series.entropy, series.accuracy, 1)
    assert result.a != pytest.approx(-wrong, rel=0.01)


def test_what_speaks_against_the_law_is_said(exact: LogSeries) -> None:
    rng = np.random.default_rng(7)
    noisy = exact.accuracy + 0.003 * rng.standard_normal(len(exact))
    straight = fit_result(replace(exact, accuracy=noisy))
    assert straight.diagnostics == []
    assert straight.rivals[0].name == "law"
    assert sum(rival.weight for rival in straight.rivals) == pytest.approx(1.0, rel=TIGHT)
    middle = float(np.median(np.exp(exact.entropy)))
    bent = fit_result(replace(exact, accuracy=noisy + 0.3 * np.maximum(0, np.exp(exact.entropy) - middle)))
    assert any("bends" in finding for finding in bent.diagnostics)
    spoiled = noisy.copy()
    spoiled[3] = 0.0
    assert fit_result(replace(exact, accuracy=spoiled)).outlier_steps == [exact.step[3]]


def test_pooled_is_the_fit_of_all_points_as_fractions(exact: LogSeries, tmp_path: Path) -> None:
    rows = [{k: 100 * v if k == "accuracy" else v for k, v in row.items()} for row in law_rows(30, every=3)]
    percent = series_of(json_lines(tmp_path / "percent.jsonl", rows))
    pooled = pooled_result([exact, percent])
    assert (pooled.a, pooled.b) == pytest.approx((0.3, 1.1), rel=CENTRED)
    assert pooled.n == 40
    assert pooled.unit == "fraction"
    assert any("divided by 100" in warning for warning in pooled.warnings)


def test_entropies_of_two_definitions_are_not_pooled(exact: LogSeries) -> None:
    token = replace(exact, name="token", definition=EntropyDefinition(weighting="token"))
    response = replace(exact, name="response", definition=EntropyDefinition(weighting="response"))
    pooled = pooled_result([token, response])
    assert (pooled.a, pooled.ceiling, pooled.n, pooled.identified) == (None, None, 0, False)
    assert pooled.warnings[0].startswith("Not pooled")
    assert "Entropies of token and response differ: weighting token / response." in pooled.warnings
    assert pooled_result([token, token]).n == 60


def test_unknown_definitions_are_said_to_be_assumed_equal(exact: LogSeries) -> None:
    (warning,) = definition_warnings([exact, replace(exact, name="other")])
    assert "temperature" in warning
    known = EntropyDefinition(estimator="exact", temperature=1, policy="old", weighting="token", tokens="all responses")
    sure = replace(exact, definition=known)
    assert definition_warnings([sure, sure]) == []


def test_run_folders_are_logs_too(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", "grpo", seed=1, num_steps=60)
    (series,) = all_series([folder], Choice())
    assert series.format == "covent run folder"
    assert series.definition.unknown == []
    assert fit_result(series).identified
    (training,) = all_series([folder], Choice(metric="training"))
    assert training.kind == "training"
    assert training.accuracy.tolist() != series.accuracy.tolist()


def test_a_run_under_control_is_said_to_be_outside_the_law(tmp_path: Path) -> None:
    (free,) = all_series([write_run(tmp_path / "free", "grpo", num_steps=40)], Choice())
    (held,) = all_series([write_run(tmp_path / "held", "kl_cov", num_steps=40)], Choice())
    assert any("under control" in warning for warning in fit_result(held).warnings)
    assert any("under control" in sentence for sentence in fit_result(held).verdict)
    assert not any("under control" in warning for warning in fit_result(free).warnings)


def test_runs_of_one_name_are_labelled_by_the_part_of_the_path_that_differs(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"seed-{seed}" / "grpo", "grpo", seed) for seed in (1, 2)]
    paths.append(write_run(tmp_path / "kl_cov", "kl_cov"))
    results = [fit_result(one) for one in all_series(paths, Choice())]
    assert [result.label for result in results] == ["grpo · seed-1", "grpo · seed-2", "kl_cov"]
    assert [result.name for result in results] == ["grpo", "grpo", "kl_cov"], "names stay: they make the groups"
    (alone,) = all_series(paths[:1], Choice())
    assert fit_result(alone).label == "grpo"


def test_one_curve_or_several(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    log = series_of(json_lines(tmp_path / "log.jsonl", law_rows(60, every=2)))
    one, other = (
        replace(log, name=name, accuracy=log.accuracy + 0.01 * rng.standard_normal(len(log)))
        for name in ("one", "other")
    )
    same = comparison([one, other]).shared
    apart = comparison([one, replace(other, accuracy=other.accuracy - 0.2)]).shared
    assert same is not None and apart is not None
    assert same.p_by_point > 0.05
    assert apart.p_by_point < CHANCE
    assert apart.rmse_shared == pytest.approx(0.1, rel=0.05), "half of the distance"
    assert list(same.groups) == ["one", "other"]


def test_runs_of_one_name_are_one_group(exact: LogSeries) -> None:
    rng = np.random.default_rng(6)
    runs = [
        replace(exact, name=name, accuracy=exact.accuracy + 0.01 * rng.standard_normal(len(exact)))
        for name in ("grpo", "grpo", "rloo", "rloo")
    ]
    shared = comparison(runs).shared
    assert shared is not None
    assert {name: group.num_runs for name, group in shared.groups.items()} == {"grpo": 2, "rloo": 2}
    assert shared.p_by_run is not None


def test_what_cannot_be_tested_is_said(exact: LogSeries) -> None:
    short = replace(exact, name="short", entropy=exact.entropy[:2], accuracy=exact.accuracy[:2], step=exact.step[:2])
    result = comparison([exact, short])
    assert result.shared is None
    assert "not tested" in result.sentences[-1]


def test_laws_are_compared_at_an_entropy_that_all_logs_reach(exact: LogSeries) -> None:
    lower = replace(exact, name="lower", accuracy=exact.accuracy - 0.2)
    result = comparison([exact, lower])
    assert result.common_entropy is not None
    levels = result.accuracy_at_common
    assert levels[0] == pytest.approx(1.1 - 0.3 * np.exp(result.common_entropy), rel=CENTRED)
    assert levels[1] == pytest.approx((levels[0] or 0) - 0.2, rel=CENTRED)
    far = replace(exact, name="far", entropy=exact.entropy + 5)
    assert comparison([exact, far]).common_entropy is None


def test_a_forecast_from_the_first_part_uses_nothing_later(exact: LogSeries) -> None:
    forecast = forecast_result(exact, until=0.3)
    later = exact.step > 0.3 * 60 + 1
    changed = replace(
        exact,
        accuracy=np.where(later, 0.1, exact.accuracy),
        entropies=np.where(exact.entropy_steps > 0.3 * 60 + 1, 0.5, exact.entropies),
    )
    other = forecast_result(changed, until=0.3)
    assert forecast.backtest is not None and other.backtest is not None
    assert (forecast.a, forecast.ceiling, forecast.n) == (other.a, other.ceiling, other.n)
    assert forecast.backtest.unconditional.accuracy == other.backtest.unconditional.accuracy
    assert forecast.backtest.unconditional.rmse != other.backtest.unconditional.rmse
    assert forecast.a == pytest.approx(0.3, rel=CENTRED)
    assert forecast.backtest.conditional.rmse == pytest.approx(0.0, abs=CENTRED)


def test_steps_may_begin_late(exact: LogSeries) -> None:
    late = replace(exact, step=exact.step + 500, entropy_steps=exact.entropy_steps + 500)
    first, second = forecast_result(exact, until=0.3), forecast_result(late, until=0.3)
    assert first.n == second.n
    assert first.ceiling == pytest.approx(second.ceiling, rel=TIGHT)
    assert any("begins at step 501" in warning for warning in second.warnings)


def test_the_steps_to_come(exact: LogSeries) -> None:
    result = forecast_result(exact)
    assert result.backtest is None and result.outlook is not None
    assert result.outlook.step == 120
    assert result.outlook.entropy is not None and result.outlook.entropy < exact.entropies[-1]
    assert result.outlook.accuracy == pytest.approx(1.1 - 0.3 * np.exp(result.outlook.entropy), rel=CENTRED)
    assert result.outlook.low is None or result.outlook.low <= result.outlook.accuracy
    assert result.second_opinion is not None
    with pytest.raises(ConfigError, match=r"--to and --until"):
        forecast_result(exact, until=0.3, to=100)
    with pytest.raises(ConfigError, match=r"--to is 60.*reaches step 60"):
        forecast_result(exact, to=60)


def test_pooled_logs_do_not_lend_each_other_their_noise(exact: LogSeries, tmp_path: Path) -> None:
    """Two logs on one law, the second far above it: between them lies no neighbour, but the end of a log."""
    rng = np.random.default_rng(0)
    noisy = [
        replace(exact, accuracy=np.clip(exact.accuracy + shift + 0.01 * rng.standard_normal(len(exact)), 0, 1))
        for shift in (0.0, 0.1)
    ]
    apart = pooled_result(noisy)
    assert apart.ceiling_interval is not None and apart.ceiling is not None
    assert apart.ceiling_interval[0] <= apart.ceiling <= apart.ceiling_interval[1]
    swapped = pooled_result(noisy[::-1])
    assert swapped.ceiling_interval == pytest.approx(apart.ceiling_interval, abs=CENTRED), "no order between logs"


def test_a_pooled_ceiling_outside_its_own_interval_is_not_identified(exact: LogSeries) -> None:
    rng = np.random.default_rng(1)
    law = fit(exact.entropy, exact.accuracy + 0.003 * rng.standard_normal(len(exact)), unit="fraction")
    assert law.identified and law.ceiling_interval is not None
    low, high = law.ceiling_interval
    assert one_curve(law) == law
    for outside in (low - 0.01, high + 0.01):
        judged = one_curve(law.model_copy(update={"ceiling": outside}))
        assert not judged.identified
        assert "do not follow one curve" in judged.warnings[0] and judged.warnings[1:] == law.warnings


@pytest.mark.parametrize("constant", ["entropy", "accuracy"])
def test_a_straight_line_has_no_r2_where_either_is_constant(constant: str, exact: LogSeries) -> None:
    flat = replace(exact, **{constant: np.full(len(exact), 0.5)})
    assert fit_result(flat).line_r2 is None
    assert fit_result(exact).line_r2 == pytest.approx(np.corrcoef(exact.entropy, exact.accuracy)[0, 1] ** 2, rel=TIGHT)
