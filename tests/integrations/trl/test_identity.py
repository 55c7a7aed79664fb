"""Where a control does nothing, covent's trainer is TRL's own: loss and weights bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer

from covent.integrations.trl import CoventGRPOTrainer, CoventRLOOTrainer
from tests.support.tiny_trl import trainer

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

BARE = 1e-9
"""A share of less than one token of any batch here."""

SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "num_iterations": 2,
    "max_steps": 5,
}


def losses_and_weights(kind: type, folder: Path, **settings: Any) -> tuple[list[float], Tensor]:
    made = trainer(kind, folder, **(SETTINGS | settings))
    made.train()
    losses = [row["loss"] for row in made.state.log_history if "loss" in row]
    return losses, torch.cat([weight.detach().flatten() for weight in made.model.parameters()])


@pytest.mark.parametrize("scope", ["window", "rank", "micro"])
@pytest.mark.parametrize(
    ("control", "clip"),
    [
        (None, {}),
        ({"type": "clip_cov", "clip_cov_ratio": BARE}, {"epsilon": 1.0}),
        ({"type": "kl_cov", "kl_cov_ratio": BARE}, {"epsilon": float("inf")}),
        ({"type": "top_entropy", "top_entropy_quantile": 1.0}, {}),
        ({"type": "entropy_bonus", "entropy_coef": 0.0}, {}),
        ({"type": "ppo_clip", "clip_ratio_low": 0.1, "clip_ratio_high": 0.3}, {"epsilon": 0.1, "epsilon_high": 0.3}),
    ],
    ids=["none", "clip_cov", "kl_cov", "top_entropy", "entropy_bonus", "ppo_clip"],
)
def test_fraction_0_is_trl(tmp_path: Path, control: Any, clip: dict[str, float], scope: str) -> None:
    bare, bare_weights = losses_and_weights(GRPOTrainer, tmp_path / "bare", **clip)
    covent = {"control": control, "scope": scope}
    ours, our_weights = losses_and_weights(CoventGRPOTrainer, tmp_path / "covent", covent=covent)
    assert ours == bare
    assert torch.equal(our_weights, bare_weights)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "luspo", "cispo", "sapo", "vespo"])
def test_measuring_alone_changes_no_loss_type(tmp_path: Path, loss_type: str) -> None:
    bare = losses_and_weights(GRPOTrainer, tmp_path / "bare", loss_type=loss_type)
    ours = losses_and_weights(CoventGRPOTrainer, tmp_path / "covent", loss_type=loss_type, covent={})
    assert ours[0] == bare[0] and torch.equal(ours[1], bare[1])


def test_rloo_without_control_is_trls(tmp_path: Path) -> None:
    bare = losses_and_weights(RLOOTrainer, tmp_path / "bare")
    ours = losses_and_weights(CoventRLOOTrainer, tmp_path / "covent", covent={"run_folder": tmp_path / "run"})
    assert ours[0] == bare[0] and torch.equal(ours[1], bare[1])


def test_a_control_that_acts_does_change_it(tmp_path: Path) -> None:
    bare = losses_and_weights(GRPOTrainer, tmp_path / "bare", epsilon=1.0)
    control = {"type": "clip_cov", "clip_cov_ratio": 0.05, "clip_cov_lb": 0.1}
    ours = losses_and_weights(CoventGRPOTrainer, tmp_path / "covent", covent={"control": control})
    assert ours[0] != bare[0] and not torch.equal(ours[1], bare[1])


def test_trls_own_bonus_is_covents(tmp_path: Path) -> None:
    """Over a window of one micro-batch they are one: TRL averages each micro-batch apart, covent the whole step."""
    whole = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 1}
    bare = losses_and_weights(GRPOTrainer, tmp_path / "bare", entropy_coef=0.05, **whole)
    control = {"type": "entropy_bonus", "entropy_coef": 0.05}
    ours = losses_and_weights(CoventGRPOTrainer, tmp_path / "covent", covent={"control": control}, **whole)
    assert ours[0] == pytest.approx(bare[0], abs=1e-6)
    torch.testing.assert_close(ours[1], bare[1], rtol=0, atol=1e-5)
    plain = losses_and_weights(GRPOTrainer, tmp_path / "plain", **whole)
    assert not torch.allclose(plain[1], bare[1], atol=1e-5)


def test_a_run_goes_on_from_a_checkpoint_with_its_controls(tmp_path: Path) -> None:
    control = {"type": "entropy_bonus", "use_adaptive_entropy": True, "entropy_coef": 0.01, "entropy_target": 3.0}
    settings = {**SETTINGS, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}

    def made(part: str) -> Any:
        covent = {"control": control, "run_folder": tmp_path / "run"}
        return trainer(CoventGRPOTrainer, tmp_path / part, covent=covent, **settings)

    whole = made("whole")
    whole.train()
    again = made("again")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert again._covent.states[0].entropy_coef == whole._covent.states[0].entropy_coef == pytest.approx(0.03)
    assert [path.name for path in sorted(tmp_path.glob("run*"))] == ["run", "run-from-1"]
