"""TRL's loss under a plan is the core's loss of that plan, token by token, for each of TRL's ways to divide."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from torch import Tensor

from covent.controls import ClipCov, EntropyBonus, KLCov, PPOClip, TopEntropy
from covent.core.loss import cispo, gspo, surrogate
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Plan
from covent.integrations.trl.batch import Columns
from covent.integrations.trl.weights import token_weights
from tests.integrations.trl.made_up import (
    LENGTH,
    ROWS,
    CoventFixedGRPO,
    CoventFixedRLOO,
    FixedGRPO,
    FixedRLOO,
    loss_and_gradients,
    made,
    micro_batch,
)
from tests.support.tolerances import TIGHT

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

MAX_TOKENS, ACCUMULATION = 16, 2
CONTROLS = {
    "ppo_clip": PPOClip(clip_ratio_low=0.3, clip_ratio_high=0.1),
    "dual_clip": PPOClip(clip_ratio_c=1.5),
    "clip_cov": ClipCov(clip_cov_ratio=0.2, clip_cov_lb=0.1, clip_cov_ub=9),
    "kl_cov": KLCov(kl_cov_ratio=0.2),
    "kl_cov_k3": KLCov(kl_cov_ratio=0.2, kl_form="k3", ppo_kl_coef=0.3),
    "top_entropy": (TopEntropy(top_entropy_quantile=0.4), PPOClip()),
    "stack": (KLCov(kl_cov_ratio=0.1), TopEntropy(top_entropy_quantile=0.5), EntropyBonus(entropy_coef=0.02)),
}


def plain_weights(loss_type: str, mask: Tensor) -> Tensor:
    """What each token's term is multiplied by, written out from TRL's documentation of its loss types."""
    lengths = mask.sum(dim=1, keepdim=True).double()
    one = mask.double()
    return {
        "grpo": one / lengths / ROWS / ACCUMULATION,
        "sapo": one / lengths / ROWS / ACCUMULATION,
        "bnpo": one / mask.sum() / ACCUMULATION,
        "dr_grpo": one / (ROWS * MAX_TOKENS) / ACCUMULATION,
        "dapo": one / (2 * mask.sum()),
        "cispo": one / (2 * mask.sum()),
        "vespo": one / (2 * mask.sum()),
        "luspo": one / ROWS / ACCUMULATION,
        "rloo": one / ROWS,
    }[loss_type]


def trl_weights(trainer: Any, inputs: dict[str, Any], like: Tensor) -> Tensor:
    """What TRL says of it."""
    kind = type(trainer)
    return token_weights(trainer, lambda twin, inputs: kind._compute_loss(twin, None, inputs), inputs, like)


def core_loss(plan: Plan, inputs: dict[str, Any], scores: Any, weights: Tensor, policy_loss: Any = surrogate) -> Tensor:
    """The same by covent's core."""
    columns = Columns.of(inputs)
    terms = policy_loss(
        scores.logprobs,
        columns.old_logprobs,
        columns.advantages,
        columns.mask,
        plan,
        PenaltyInputs(scores.entropies),
    )
    bonus = (terms.bonus / (columns.mask.sum() * ACCUMULATION)).sum()
    return (weights * terms.aggregated).sum() + bonus


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_weights_asked_of_trl_are_the_documented_ones(tmp_path: Path, loss_type: str, level: str) -> None:
    inputs, scores = micro_batch(1)
    trainer = made(FixedGRPO, tmp_path, loss_type=loss_type, importance_sampling_level=level)
    before = dict(trainer._metrics["train"])
    weights = trl_weights(trainer, inputs, scores.logprobs)
    torch.testing.assert_close(weights, plain_weights(loss_type, inputs["completion_mask"]), rtol=TIGHT, atol=TIGHT)
    assert trainer._metrics["train"] == before
    wrong = plain_weights("bnpo" if loss_type == "grpo" else "grpo", inputs["completion_mask"])
    assert not torch.allclose(weights, wrong) or loss_type == "sapo"


@pytest.mark.parametrize(
    "settings",
    [
        {"beta": 0.1},
        {"entropy_coef": 0.1},
        {"use_adaptive_entropy": True},
        {"top_entropy_quantile": 0.3},
        {"delta": 1.5},
        {"epsilon_high": 0.01},
    ],
    ids=str,
)
def test_other_terms_of_trl_do_not_enter_the_weights(tmp_path: Path, settings: dict[str, Any]) -> None:
    inputs, scores = micro_batch(2)
    inputs["ref_per_token_logps"] = scores.logprobs.detach() - 1
    beta = settings.get("beta", 0.0)
    trainer = made(FixedGRPO, tmp_path, loss_type="dapo", **{**settings, "beta": 0.0})
    trainer.beta = beta
    state = {name: value for name, value in vars(trainer).items() if name != "_metrics"}
    weights = trl_weights(trainer, inputs, scores.logprobs)
    torch.testing.assert_close(weights, plain_weights("dapo", inputs["completion_mask"]), rtol=TIGHT, atol=TIGHT)
    assert {name: value for name, value in vars(trainer).items() if name != "_metrics"} == state


def test_the_weights_of_rloo(tmp_path: Path) -> None:
    inputs, scores = micro_batch(3, rloo=True)
    trainer = made(FixedRLOO, tmp_path)
    weights = trl_weights(trainer, inputs, scores.logprobs)
    torch.testing.assert_close(weights, plain_weights("rloo", inputs["completion_mask"]), rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "luspo"])
@pytest.mark.parametrize("control", CONTROLS)
def test_trl_under_a_plan_is_the_core_under_it(tmp_path: Path, control: str, loss_type: str) -> None:
    inputs, scores = micro_batch(4)
    settings = {"control": CONTROLS[control], "scope": "micro"}
    trainer = made(CoventFixedGRPO, tmp_path, loss_type=loss_type, covent=settings)
    value, by_logprob, by_entropy = loss_and_gradients(trainer, inputs, scores)
    plan = trainer._covent.window.passed[0].plan
    weights = plain_weights(loss_type, inputs["completion_mask"])
    plan = within_trl_clip(plan)
    expected = core_loss(plan, inputs, scores, weights)
    found = torch.autograd.grad(expected, [scores.logprobs, scores.entropies], allow_unused=True)
    assert math.isclose(value, expected.item(), rel_tol=TIGHT, abs_tol=TIGHT)
    torch.testing.assert_close(by_logprob, found[0], rtol=TIGHT, atol=TIGHT)
    torch.testing.assert_close(by_entropy, torch.zeros_like(by_entropy) if found[1] is None else found[1])
    # The wrong plan, which acts on other tokens, gives another gradient.
    wrong = core_loss(rolled(plan), inputs, scores, weights)
    if control not in ("ppo_clip", "dual_clip"):
        assert not torch.allclose(torch.autograd.grad(wrong, scores.logprobs)[0], by_logprob, rtol=1e-3, atol=1e-6)


def within_trl_clip(plan: Plan) -> Plan:
    """A plan that says nothing of the clip has TRL's, 0.2 on both sides."""
    return plan if plan.sets_clip else replace(plan, clip_low=0.2, clip_high=0.2)


def rolled(plan: Plan) -> Plan:
    """The plan given to other responses."""
    columns = {name: getattr(plan, name) for name in ("keeps_gradient", "kl_weight", "factor", "entropy_weight")}
    return replace(plan, **{name: None if each is None else each.roll(3, dims=0) for name, each in columns.items()})


def test_a_plan_of_cispo_is_the_cores(tmp_path: Path) -> None:
    """TRL's cispo multiplies by the log-prob itself, clipped from above alone."""
    inputs, scores = micro_batch(5)
    control = ClipCov(clip_cov_ratio=0.2, clip_cov_lb=0.1, clip_cov_ub=9, clip_ratio_high=0.3)
    trainer = made(CoventFixedGRPO, tmp_path, loss_type="cispo", covent={"control": control, "scope": "micro"})
    _, by_logprob, _ = loss_and_gradients(trainer, inputs, scores)
    plan = trainer._covent.window.passed[0].plan
    weights = plain_weights("cispo", inputs["completion_mask"])

    def gradient(plan: Plan) -> Tensor:
        return torch.autograd.grad(core_loss(plan, inputs, scores, weights, cispo), scores.logprobs)[0]

    torch.testing.assert_close(by_logprob, gradient(plan), rtol=TIGHT, atol=TIGHT)
    assert not torch.allclose(gradient(replace(plan, clip_high=0.2)), by_logprob)


def test_a_plan_of_gspo_is_the_cores(tmp_path: Path) -> None:
    """A token that loses its gradient loses that of the response's ratio through it, and nothing else changes."""
    inputs, scores = micro_batch(6)
    control = ClipCov(clip_cov_ratio=0.2, clip_cov_lb=0.1, clip_cov_ub=9)
    settings = {"loss_type": "grpo", "importance_sampling_level": "sequence"}
    trainer = made(CoventFixedGRPO, tmp_path, covent={"control": control, "scope": "micro"}, **settings)
    plain = made(FixedGRPO, tmp_path, epsilon=1.0, epsilon_high=1.0, **settings)
    value, by_logprob, _ = loss_and_gradients(trainer, inputs, scores)
    plan = trainer._covent.window.passed[0].plan
    weights = plain_weights("grpo", inputs["completion_mask"])
    expected = torch.autograd.grad(core_loss(plan, inputs, scores, weights, gspo), scores.logprobs)[0]
    torch.testing.assert_close(by_logprob, expected, rtol=TIGHT, atol=TIGHT)
    assert plan.chosen.any() and bool((by_logprob[plan.chosen] == 0).all())
    assert value == loss_and_gradients(plain, inputs, scores)[0]
    assert not torch.allclose(loss_and_gradients(plain, inputs, scores)[1], by_logprob)


@pytest.mark.parametrize("control", ["clip_cov", "kl_cov", "top_entropy"])
def test_rloo_under_a_plan(tmp_path: Path, control: str) -> None:
    """By plain loops: gradient ratio A / rows at each token that keeps it, and the KL summed over each response."""
    inputs, scores = micro_batch(7, rloo=True)
    trainer = made(CoventFixedRLOO, tmp_path, covent={"control": CONTROLS[control], "scope": "micro"})
    _, by_logprob, _ = loss_and_gradients(trainer, inputs, scores)
    plan = within_trl_clip(trainer._covent.window.passed[0].plan)
    assert plan.chosen.any()
    old, mask = inputs["covent_old_logprobs"], inputs["completion_mask"].bool()
    expected = torch.zeros(ROWS, LENGTH, dtype=torch.float64)
    for row in range(ROWS):
        advantage = inputs["advantages"][row].item()
        log_ratio = (scores.logprobs - old)[row].detach()
        ratio = math.exp(log_ratio[mask[row]].sum().item())
        low = -math.inf if plan.clip_low is None else 1 - plan.clip_low
        high = math.inf if plan.clip_high is None else 1 + plan.clip_high
        cut = (ratio > high and advantage > 0) or (ratio < low and advantage < 0)
        for column in mask[row].nonzero().flatten().tolist():
            if plan.keeps_gradient[row, column] and not cut:
                expected[row, column] = -ratio * advantage / ROWS
            weight = plan.kl_weight[row, column].item()
            expected[row, column] += weight * math.copysign(1, log_ratio[column].item()) / ROWS
    torch.testing.assert_close(by_logprob, expected, rtol=TIGHT, atol=TIGHT)


@pytest.mark.parametrize(
    ("loss_type", "control", "word"),
    [
        ("sapo", PPOClip(), "sapo"),
        ("vespo", ClipCov(), "vespo"),
        ("cispo", PPOClip(clip_ratio_low=0.2), "lower bound"),
        ("cispo", ClipCov(), ""),
        ("dapo", KLCov(), ""),
        ("sapo", TopEntropy(), ""),
    ],
)
def test_a_clip_that_trl_cannot_honour_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, loss_type: str, control: Any, word: str
) -> None:
    inputs, scores = micro_batch(8)
    trainer = made(CoventFixedGRPO, tmp_path, loss_type=loss_type, covent={"control": control, "scope": "micro"})
    for _ in range(2):
        loss_and_gradients(trainer, inputs, scores)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("covent")]
    assert len(said) == (1 if word else 0)
    assert all(word in sentence and "does not act" in sentence for sentence in said)
    honoured = trainer._metrics["train"].get("covent/clip_honoured")
    assert honoured == ([0.0 if word else 1.0] if control.type != "top_entropy" else None)


def test_trl_has_its_own_settings_back_after_the_loss(tmp_path: Path) -> None:
    inputs, scores = micro_batch(9)
    control = PPOClip(clip_ratio_low=0.7, clip_ratio_high=0.9, clip_ratio_c=4)
    trainer = made(CoventFixedGRPO, tmp_path, loss_type="dapo", covent={"control": control}, epsilon=0.15, delta=3.0)
    loss_and_gradients(trainer, inputs, scores)
    assert (trainer.epsilon_low, trainer.epsilon_high, trainer.args.delta) == (0.15, 0.15, 3.0)
