"""One whole tiny training run, looked at from all sides, and runs that end early."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covent.errors import MissingPathError, NonFiniteError, RunExistsError
from covent.store.reader import Run, read_run
from covent.tasks import Problem
from covent.train.config import TrainConfig
from covent.train.config_file import load_config
from covent.train.run import train
from covent.train.step import learner_scores
from tests.support.tiny import CONTROLS, SETTINGS, tiny_config, tiny_run
from tests.support.tolerances import FLOAT32


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("run") / "clip_cov", control=CONTROLS["clip_cov"].model_dump())


def test_every_step_and_every_update_leaves_its_row(run: Run) -> None:
    assert run.status.state == "finished"
    assert [row.step for row in run.steps] == list(range(SETTINGS["steps"]))
    assert [row.update for row in run.updates] == list(range(len(run.updates)))
    for step in run.steps:
        assert step.num_updates == sum(update.step == step.step for update in run.updates)
        assert step.num_all_right + step.num_all_wrong + step.num_kept_groups == step.num_groups
        assert step.reward.count == step.entropy.count == 8 * 4


def test_readings_lie_where_their_definition_puts_them(run: Run) -> None:
    num_words = 19
    for step in run.steps:
        assert step.entropy.value is not None
        assert 0 < step.entropy.value < math.log(num_words)
        assert step.entropy.weighting == "response"
        assert step.entropy_token.weighting == "token"
        assert step.entropy_token.count == step.response_length.sum
        if step.num_kept_groups:
            assert step.sampler_gap is not None and step.sampler_gap < FLOAT32
        else:
            assert step.sampler_gap is None, "the learner reads nothing that the sampler wrote"
    for update in run.updates:
        assert update.num_tokens == update.control.num_tokens == update.clip_low.count
        assert update.covariance.quantiles["min"] <= update.covariance.mean <= update.covariance.quantiles["max"]
        assert update.control.num_selected <= update.control.num_tokens * CONTROLS["clip_cov"].clip_cov_ratio
    assert any(update.control.num_selected for update in run.updates)


def test_a_learner_that_reads_otherwise_shows_in_the_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the bound above: a temperature that is wrong by one percent."""

    def warmer(*given: Any, temperature: float, **more: Any) -> Any:
        return learner_scores(*given, temperature=1.01 * temperature, **more)

    monkeypatch.setattr("covent.train.loop.learner_scores", warmer)
    gaps = [step.sampler_gap for step in tiny_run(tmp_path / "run").steps if step.num_kept_groups]
    assert gaps and all(gap is not None and gap > 100 * FLOAT32 for gap in gaps)


def test_the_same_policy_has_the_same_entropy_at_the_test_and_at_the_first_rollout_only_by_chance(run: Run) -> None:
    """Both are of the start policy on different problems: near, not equal."""
    test = next(row for row in run.evaluations if row.split == "test" and row.step == 0)
    assert test.entropy.value == pytest.approx(run.steps[0].entropy.value, rel=0.5)
    assert test.entropy.value != run.steps[0].entropy.value


def test_evaluations_come_before_in_the_middle_and_after(run: Run) -> None:
    assert [row.step for row in run.evaluations if row.split == "test"] == [0, SETTINGS["steps"]]
    assert [row.step for row in run.evaluations if row.split == "validation"] == [1, 3, 5]
    for row in run.evaluations:
        assert row.avg.value == pytest.approx(sum(row.num_right) / (row.num_problems * row.num_samples))
        assert row.pass_at["1"].value == pytest.approx(row.avg.value)
        assert row.avg.low <= row.avg.value <= row.avg.high
    assert len(run.verdicts) == 2 * SETTINGS["evaluation"]["test_problems"]
    assert all(sum(row.verdicts.values()) == SETTINGS["evaluation"]["test_samples"] for row in run.verdicts)


def test_held_out_problems_are_of_their_split(run: Run) -> None:
    for row in run.verdicts:
        assert Problem(row.prompt, row.answer).split == "test"
        assert Problem(row.prompt, row.answer).key == row.problem
    for sample in run.samples:
        assert Problem(sample.prompt, sample.answer).split == "train"


def test_what_a_step_accounts_for_is_what_is_observed(run: Run) -> None:
    accounted = np.array([update.probe.accounted for update in run.updates if update.probe])
    observed = np.array([update.probe.observed for update in run.updates if update.probe])
    assert len(accounted) == len(run.updates)
    assert np.corrcoef(accounted, observed)[0, 1] > 0.9
    # Negative control: accounted-for changes of other steps say nothing of this one.
    assert np.corrcoef(np.roll(accounted, 3), observed)[0, 1] < 0.9


def test_config_yaml_is_the_run_again(run: Run) -> None:
    assert load_config(run.folder / "config.yaml", []) == TrainConfig.model_validate(run.header.config)


def test_the_model_it_leaves_can_be_trained_on(run: Run, tmp_path: Path) -> None:
    again = tiny_run(tmp_path / "again", model={"path": str(run.folder / "model")}, warm_start={"steps": 0}, steps=2)
    last = next(row for row in run.evaluations if row.split == "test" and row.step == SETTINGS["steps"])
    first = next(row for row in again.evaluations if row.split == "test" and row.step == 0)
    assert first.greedy == last.greedy
    assert again.status.state == "finished"


def test_a_taken_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(RunExistsError, match="not empty"):
        train(tiny_config(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (None, "is not a folder"),
        ([], "no config.json"),
        (["config.json"], r"no \*.safetensors"),
        (["config.json", "model.safetensors"], "no tokenizer.json"),
        (["config.json", "model.safetensors", "tokenizer.json"], "has no causal LM"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, files: list[str] | None, complaint: str) -> None:
    model = tmp_path / "model"
    if files is not None:
        model.mkdir()
        for name in files:
            (model / name).write_text("{}")
    with pytest.raises(MissingPathError, match=complaint):
        train(tiny_config(model={"path": str(model)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ctrl_c_leaves_a_readable_folder(tmp_path: Path) -> None:
    def interrupt(phase: str, done: int, total: int) -> None:
        if phase == "rl" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), tmp_path / "run", progress=interrupt)
    run = read_run(tmp_path / "run")
    assert run.status.state == "interrupted"
    assert run.status.step == len(run.steps) == 3


def test_a_gradient_that_is_not_finite_is_never_applied(tmp_path: Path) -> None:
    """A learning rate that overflows float32 breaks the weights in the first update; the second must refuse."""
    config = tiny_config()
    # No setting allows such a rate; the copy is not validated.
    config = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 1e38})})
    with pytest.raises(NonFiniteError):
        train(config, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.status.state == "failed"
    assert run.status.message


def test_refill_fills_the_batch_and_none_keeps_all(tmp_path: Path) -> None:
    settings = {"steps": 2, "evaluation": {"test_problems": 0}, "probe_prompts": 0}
    refilled = tiny_run(tmp_path / "refill", rollout={"group_filter": "refill"}, **settings)
    for row in refilled.steps:
        assert row.num_kept_groups == 8 or row.num_generations == 10
        assert row.reward.count == row.num_groups * 4 == row.num_generations * 8 * 4
    assert any(row.num_generations > 1 for row in refilled.steps)
    everything = tiny_run(tmp_path / "none", rollout={"group_filter": "none"}, **settings)
    assert all(row.num_kept_groups == 8 for row in everything.steps)
    assert all(update.probe is None for update in everything.updates)


def test_the_forecast_goes_along_and_can_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 12, "evaluation": {"test_problems": 4}, "probe_prompts": 0}
    whole = tiny_run(tmp_path / "whole", **settings)
    assert [row.step for row in whole.forecasts] == [5, 7, 9]
    assert [row.num_points for row in whole.forecasts] == [3, 4, 5]
    # The rule is off by default, and asks for an identified law; here every forecast leaves nothing to win.
    monkeypatch.setattr("covent.law.live.Forecaster.gain_left", lambda self, ahead: 0.0)
    assert tiny_run(tmp_path / "default", **settings).status.step == 12
    stopped = tiny_run(tmp_path / "stopped", stop_when_gain_below=0.01, **settings)
    assert (stopped.status.state, stopped.status.step) == ("finished", 6)
    assert "stopped early" in stopped.status.message
    assert [row.step for row in stopped.evaluations if row.split == "test"] == [0, 6]
