"""Whole runs: fifty steps with each control on one rank and on two, and the run folders that they leave."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from packaging.version import Version

from covent.cli.main import main as covent
from covent.errors import EngineError
from covent.integrations.trl import CoventGRPOTrainer, CoventRLOOTrainer
from covent.store.reader import Run, read_run
from tests.integrations.launch import launch
from tests.integrations.trl.fifty_steps import CONTROLS, FAILING, STEPS, start_model
from tests.support.tiny_trl import starts_low, trainer

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

WORLDS = (1, 2)


@pytest.fixture(scope="module", params=WORLDS, ids=lambda world: f"{world} ranks")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The run of each control, on so many ranks."""
    folder = tmp_path_factory.mktemp(f"world{request.param}")
    start_model(folder / "model")
    launch("tests.integrations.trl.fifty_steps", str(folder), str(request.param), world=request.param)
    found = {name: read_run(folder / "runs" / name) for name in CONTROLS}
    assert all(run.header.config["engine"]["ranks"] == request.param for run in found.values())
    return found


def test_every_run_is_whole(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert run.status.state == "finished"
        assert [row.update for row in run.updates] == list(range(STEPS))
        assert [row.step for row in run.steps] == list(range(STEPS // 2))
        assert [row.step for row in run.updates] == [update // 2 for update in range(STEPS)]
        assert all(row.num_updates == 2 and row.entropy.value is not None for row in run.steps)


def test_forecasts_are_made_while_it_runs(runs: dict[str, Run]) -> None:
    """From the third point of the law on; a point is five rollouts."""
    assert [row.step for row in runs["none"].forecasts] == [14, 19, 24]
    assert [row.num_points for row in runs["none"].forecasts] == [3, 4, 5]


def test_what_a_reward_function_fails_at_is_kept(runs: dict[str, Run]) -> None:
    """Of the first rank; the prompt of each is that of its group."""
    run = runs[FAILING]
    assert run.verifier_faults and not runs["none"].verifier_faults
    assert all(row.response.startswith("7") and "seven" in row.reason for row in run.verifier_faults)
    prompts = {row.group: row.prompt for row in run.samples}
    assert all(row.prompt == prompts.get(row.group, row.prompt) for row in run.verifier_faults)
    unjudged = [row.num_groups * 4 - row.reward.count for row in run.steps]
    assert sum(unjudged) >= len(run.verifier_faults)


def test_every_control_did_what_it_was_asked(runs: dict[str, Run]) -> None:
    for name in ("clip_cov", "kl_cov", "top_entropy", "stack"):
        rows = runs[name].updates
        asked = rows[0].control.asked_frac
        assert asked is not None
        for row in rows:
            # Fewer where candidates lack, or where all covariances are equal; never more than one above a share.
            assert row.control.num_selected <= math.ceil(asked * row.num_tokens)
            assert row.control.num_tokens == row.num_tokens
        # Of a stack the asked shares add up and the tokens may coincide.
        whole = 0.8 if name == "stack" else 1.0
        assert any(row.control.num_selected >= math.floor(whole * asked * row.num_tokens) > 0 for row in rows)


def test_the_first_update_of_a_rollout_is_on_policy_and_the_second_is_not(runs: dict[str, Run]) -> None:
    for row in runs["none"].updates:
        ratio = row.abs_log_ratio.value
        assert ratio is not None
        assert (ratio < 1e-5) == (row.update % 2 == 0)


def test_entropy_agrees_between_rows(runs: dict[str, Run]) -> None:
    """The first update of a rollout measures all its tokens under the policy that sampled them."""
    run = runs["kl_cov"]
    for step in run.steps:
        first = run.updates[2 * step.step]
        assert first.num_tokens == step.entropy_token.count
        assert first.entropy.sum == pytest.approx(step.entropy_token.sum, rel=1e-5)


def test_controls_leave_different_runs(runs: dict[str, Run]) -> None:
    last = {name: run.updates[-1].loss for name, run in runs.items()}
    assert len(set(last.values())) == len(last)


@pytest.mark.parametrize("command", ["report", "fit", "forecast", "explain"])
def test_covent_reads_the_run(
    runs: dict[str, Run],
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert covent([command, str(runs["clip_cov"].folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_run_with_evaluations(tmp_path: Path) -> None:
    made = trainer(
        CoventGRPOTrainer,
        tmp_path / "trl",
        reward=starts_low,
        covent={"run_folder": tmp_path / "run", "law_every": 2},
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        per_device_eval_batch_size=16,
    )
    made.train()
    run = read_run(tmp_path / "run")
    assert [row.step for row in run.evaluations] == [1, 2, 3, 4, 5, 6]
    for row, log in zip(run.evaluations, (row for row in made.state.log_history if "eval_reward" in row), strict=True):
        assert (row.num_problems, row.num_samples) == (8, 4)
        assert row.avg.value == pytest.approx(log["eval_reward"])
        assert row.entropy.count == 32


def test_a_run_of_rloo(tmp_path: Path) -> None:
    made = trainer(
        CoventRLOOTrainer,
        tmp_path / "trl",
        reward=starts_low,
        covent={"run_folder": tmp_path / "run", "control": CONTROLS["stack"][:2]},
        gradient_accumulation_steps=2,
        num_iterations=2,
        max_steps=6,
    )
    made.train()
    run = read_run(tmp_path / "run")
    assert run.status.state == "finished" and len(run.updates) == 6
    assert all(row.control.num_selected > 0 for row in run.updates)
    names = {name for row in made.state.log_history for name in row}
    assert {"covent/entropy", "covent/covariance/mean", "covent/realised_frac"} <= names


def test_a_bonus_in_rloo_acts_or_is_refused(tmp_path: Path) -> None:
    """TRL before 1.16 gives RLOO's loss entropies without gradient."""

    def last_weights(coef: float) -> torch.Tensor:
        covent = {"control": {"type": "entropy_bonus", "entropy_coef": coef}}
        made = trainer(CoventRLOOTrainer, tmp_path, covent=covent, gradient_accumulation_steps=2)
        made.train()
        return torch.cat([weight.detach().flatten() for weight in made.model.parameters()])

    if Version(version("trl")) < Version("1.16"):
        with pytest.raises(EngineError, match="without gradient"):
            last_weights(0.1)
    else:
        assert not torch.allclose(last_weights(0.0), last_weights(0.1))


def test_a_run_that_breaks_says_so(tmp_path: Path) -> None:
    def breaks(completions: list[str], **_: object) -> list[float]:
        raise RuntimeError("no verdicts today")

    made = trainer(CoventGRPOTrainer, tmp_path / "trl", reward=breaks, covent={"run_folder": tmp_path / "run"})
    with pytest.raises(RuntimeError, match="no verdicts"):
        made.train()
    run = read_run(tmp_path / "run")
    assert (run.status.state, run.status.message) == ("failed", "no verdicts today")
