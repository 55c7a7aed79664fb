"""Every control, loss and aggregation through the trainer: it runs, it acts, and it is recorded for what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from covent import controls
from covent.controls import EntropyBonus, KLCov, ReferenceKL, plan
from covent.core.loss import POLICY_LOSSES
from covent.core.reduce import AGGREGATIONS
from covent.report.summary import method
from covent.rollout.batch import Responses, response_logits
from covent.rollout.sampler import sample
from covent.train.anchors import Anchors
from covent.train.config import TrainConfig
from covent.train.config_file import config_yaml, load_config
from covent.train.step import LossChoice, OptimizerBatch, accumulate, learner_scores, measure
from tests.support.small_model import fresh_model
from tests.support.tiny import final_weights, tiny_config, tiny_run
from tests.support.tolerances import FINITE_DIFFERENCE, TIGHT

QUICK: dict[str, Any] = {"steps": 2, "evaluation": {"test_problems": 0}, "probe_prompts": 0}
SEVERAL = [
    {"type": "clip_cov", "clip_cov_ratio": 0.05, "clip_cov_lb": 0.2},
    {"type": "top_entropy", "top_entropy_quantile": 0.7},
    {"type": "entropy_bonus", "entropy_coef": 0.01, "use_adaptive_entropy": True, "entropy_target": 5.0},
    {"type": "reference_kl", "kl_loss_coef": 0.05},
    {"type": "truncated_importance"},
]


def responses_and_batch(model: Any) -> tuple[Responses, OptimizerBatch]:
    responses = sample(
        model.network,
        [model.encode_prompt(prompt) for prompt in ("Q 1 + 2 A", "Q 3 * 4 - 5 A")],
        groups=[0, 1],
        num_samples=6,
        max_tokens=8,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=3,
    )
    advantages = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    old, _ = learner_scores(model.network, responses, temperature=0.8, at_once=5)
    return responses, OptimizerBatch(responses, advantages, old, 1.0, right=advantages > 0)


def moved(model: Any, seed: int) -> None:
    """Another policy than the one that sampled."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def test_several_controls_make_one_run(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", control=SEVERAL, **QUICK)
    assert run.status.state == "finished"
    name = "clip_cov + top_entropy + entropy_bonus + reference_kl + truncated_importance"
    assert {update.control.name for update in run.updates} == {name}
    assert run.header.name == method(run) == name
    assert all(update.control.num_selected > 0 for update in run.updates)
    assert load_config(run.folder / "config.yaml", []) == TrainConfig.model_validate(run.header.config)
    alone = tiny_run(tmp_path / "alone", control=SEVERAL[0], **QUICK)
    weights = final_weights(alone)
    assert not all(torch.equal(tensor, weights[name]) for name, tensor in final_weights(run).items())


def test_a_list_of_one_control_is_that_control(tmp_path: Path) -> None:
    listed, single = (
        tiny_run(tmp_path / name, control=control, **QUICK)
        for name, control in (("listed", SEVERAL[:1]), ("single", SEVERAL[0]))
    )
    weights = final_weights(single)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in final_weights(listed).items())


def test_settings_of_several_controls_survive_yaml(tmp_path: Path) -> None:
    config = tiny_config(control=SEVERAL, loss_mode="gspo", loss_agg_mode="seq-mean-token-mean")
    (tmp_path / "config.yaml").write_text(config_yaml(config))
    assert load_config(tmp_path / "config.yaml", []) == config
    assert isinstance(config.controls[2], EntropyBonus)


def test_losses_and_aggregations_are_different_runs(tmp_path: Path) -> None:
    choices = [("vanilla", "token-mean"), ("gspo", "seq-mean-token-mean"), ("cispo", "seq-mean-token-sum-norm")]
    seen = []
    for loss_mode, loss_agg_mode in choices:
        run = tiny_run(tmp_path / loss_mode, loss_mode=loss_mode, loss_agg_mode=loss_agg_mode, **QUICK)
        seen.append([update.loss for update in run.updates])
    assert len({tuple(losses) for losses in seen}) == len(choices)


@pytest.mark.parametrize(
    ("loss", "mode"),
    [("vanilla", "token-mean"), ("gspo", "seq-mean-token-mean"), ("cispo", "seq-mean-token-sum-norm")],
)
def test_micro_batches_give_the_models_gradient(loss: str, mode: str) -> None:
    model = fresh_model(1)
    _, batch = responses_and_batch(model)
    settings = [KLCov(kl_cov_ratio=0.3, kl_form="exact"), ReferenceKL(kl_loss_coef=0.1, kl_loss_type="exact")]
    bonus = EntropyBonus(entropy_coef=0.1)
    anchors = Anchors.of(model.network, settings)
    moved(model, 2)
    measured = measure(model, batch, temperature=0.8, at_once=5, anchors=anchors)
    made = plan(measured, [*settings, bonus], 0)
    choice = LossChoice(POLICY_LOSSES[loss], AGGREGATIONS[mode], 8)
    found = []
    for at_once in (12, 5, 1):
        model.network.zero_grad(set_to_none=True)
        accumulate(model, batch, measured, made, temperature=0.8, at_once=at_once, choice=choice, anchors=anchors)
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.network.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=TIGHT)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=TIGHT)


def test_the_exact_kls_are_sums_over_the_vocabulary() -> None:
    """The two KL terms of the loss, by the log-probs of whole vocabularies of the three policies."""
    model = fresh_model(3)
    responses, batch = responses_and_batch(model)
    settings = [KLCov(kl_cov_ratio=0.3, kl_form="exact", ppo_kl_coef=0.7), ReferenceKL(kl_loss_type="exact")]
    anchors = Anchors.of(model.network, settings)
    with torch.no_grad():
        before = (response_logits(model.network, responses) / 0.8).log_softmax(-1)
    moved(model, 4)
    with torch.no_grad():
        after = (response_logits(model.network, responses) / 0.8).log_softmax(-1)
    measured = measure(model, batch, temperature=0.8, at_once=12, anchors=anchors)
    made = plan(measured, settings, 0)
    bare = replace(made, kl_weight=torch.zeros_like(made.kl_weight), reference_weight=None)

    def loss(executed: controls.Plan) -> float:
        model.network.zero_grad(set_to_none=True)
        return accumulate(model, batch, measured, executed, temperature=0.8, at_once=12, anchors=anchors)[0]

    forward = (before.exp() * (before - after)).sum(-1)
    backward = (after.exp() * (after - before)).sum(-1)
    truth = (made.kl_weight * forward + 0.001 * backward)[responses.mask].sum() / measured.num_tokens
    assert loss(made) - loss(bare) == pytest.approx(float(truth), abs=TIGHT)
    swapped = (made.kl_weight * backward + 0.001 * forward)[responses.mask].sum() / measured.num_tokens
    assert float(swapped) != pytest.approx(float(truth), abs=TIGHT)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    model = fresh_model(5)
    _, batch = responses_and_batch(model)
    settings = [ReferenceKL(kl_loss_coef=0.3), EntropyBonus(entropy_coef=0.2)]
    anchors = Anchors.of(model.network, settings)
    moved(model, 6)
    measured = measure(model, batch, temperature=0.8, at_once=12, anchors=anchors)
    made = plan(measured, settings, 0)

    def loss() -> float:
        model.network.zero_grad(set_to_none=True)
        return accumulate(model, batch, measured, made, temperature=0.8, at_once=12, anchors=anchors)[0]

    loss()
    weight = model.network.get_output_embeddings().weight
    slope = float(weight.grad[3, 5])
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[3, 5] += sign * step
        ends.append(loss())
        with torch.no_grad():
            weight[3, 5] -= sign * step
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, abs=FINITE_DIFFERENCE)
    assert abs(slope) > 100 * FINITE_DIFFERENCE


def test_the_reference_stays_and_the_sampling_policy_moves_on() -> None:
    model = fresh_model(7)
    anchors = Anchors.of(model.network, [KLCov(kl_form="exact"), ReferenceKL()])
    assert anchors.old is not None and anchors.reference is not None
    start = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    moved(model, 8)
    anchors.renew_old(model.network)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(anchors.old.state_dict()[name], tensor)
        assert torch.equal(anchors.reference.state_dict()[name], start[name])
    assert not any(parameter.requires_grad for parameter in anchors.reference.parameters())
    none = Anchors.of(model.network, [KLCov(), EntropyBonus()])
    assert none.old is none.reference is None
