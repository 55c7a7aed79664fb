"""Attribution of real optimizer steps on a small network: the parts add up, and the run is the run without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from covent import controls
from covent.controls import ClipCov, EntropyBonus, KLCov, PPOClip, ReferenceKL, TruncatedImportance
from covent.core.attribution import MOMENTUM, state_entropy_changes
from covent.core.causes import RATIO_CLIP
from covent.core.dynamics import entropy_of_logits
from covent.core.loss import POLICY_LOSSES
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS
from covent.errors import ConfigError, StoreError
from covent.readings import ProbeReading
from covent.rollout.sampler import sample
from covent.store.reader import Run, read_run
from covent.store.schema import AttributionRow
from covent.train.anchors import Anchors
from covent.train.attribution import RIGHT, WEIGHT_DECAY, WRONG, StepAttribution, gradients_by_cause
from covent.train.config_file import parse_config
from covent.train.model import LanguageModel
from covent.train.probes import Probes
from covent.train.step import (
    LossChoice,
    OptimizerBatch,
    accumulate,
    execute,
    grad_clip_factor,
    learner_scores,
    measure,
)
from tests.support.small_model import exact_model
from tests.support.tiny import CONTROLS, final_weights, tiny_config, tiny_run
from tests.support.tolerances import ATTRIBUTION, ATTRIBUTION_FLOAT32, FINITE_DIFFERENCE, TIGHT

LR, GRAD_CLIP = 1e-3, 0.5
Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=LR, momentum=0.8, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=LR, betas=(0.9, 0.99)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=LR, betas=(0.9, 0.99), weight_decay=0.1),
}
SETTINGS = {
    "sgd": ClipCov(clip_cov_ratio=0.1, clip_cov_lb=0.05, clip_ratio_low=0.3, clip_ratio_high=0.3),
    "adam": KLCov(kl_cov_ratio=0.2),
    "adamw": PPOClip(),
}
CAUSES = {
    "sgd": {RIGHT, WRONG, RATIO_CLIP, "clip_cov: removed tokens", MOMENTUM, WEIGHT_DECAY},
    "adam": {RIGHT, WRONG, "kl_cov: kl", MOMENTUM},
    "adamw": {RIGHT, WRONG, RATIO_CLIP, MOMENTUM, WEIGHT_DECAY},
}


def responses_of(model: LanguageModel, key: int) -> object:
    return sample(
        model.network,
        [model.encode_prompt("Q 1 + 2 A"), model.encode_prompt("Q 7 * 3 - 2 A")],
        groups=[0, 1],
        num_samples=4,
        max_tokens=6,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=key,
    )


def batch_of(model: LanguageModel, *, drift: float) -> OptimizerBatch:
    """Eight responses, half of them right, sampled by a policy `drift` nats away."""
    generator = torch.Generator().manual_seed(5)
    responses = responses_of(model, key=11)
    logprobs, _ = learner_scores(model.network, responses, temperature=1.0, at_once=8)
    noise = drift * torch.randn(logprobs.shape, generator=generator, dtype=torch.float64)
    right = torch.arange(8) % 2 == 0
    advantages = torch.where(right, 1.0, -1.0) * torch.rand(8, generator=generator, dtype=torch.float64)
    return OptimizerBatch(responses, advantages, (logprobs + noise).masked_fill(~responses.mask, 0.0), 1.0, right)


def prepared(batch: OptimizerBatch, model: LanguageModel, control: object) -> tuple[Measured, Plan]:
    measured = measure(model, batch, temperature=1.0, at_once=8)
    return measured, controls.plan(measured, control, key=1)


def attributed_step(
    model: LanguageModel, optimizer: torch.optim.Optimizer, probes: Probes, batch: OptimizerBatch, control: object
) -> tuple[StepAttribution, float, ProbeReading]:
    """What was kept before the step, the factor of the gradient's clip, and what the probes read."""
    measured, plan = prepared(batch, model, control)
    kept = StepAttribution.before(model, optimizer, probes, batch, measured, plan, temperature=1.0, at_once=8)
    outcomes = []

    def take_step() -> None:
        outcome = execute(model, optimizer, batch, measured, plan, temperature=1.0, at_once=3, grad_clip=GRAD_CLIP)
        outcomes.append(outcome)

    reading = probes.change(take_step, (0.0, 0.0))
    return kept, grad_clip_factor(outcomes[0].grad_norm, GRAD_CLIP), reading


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_parts_add_up_to_lemma_1_linearised(name: str) -> None:
    model = exact_model(seed=3)
    probes = Probes(model, responses_of(model, key=12))
    batch, control = batch_of(model, drift=0.4), SETTINGS[name]
    optimizer = OPTIMIZERS[name](list(model.network.parameters()))
    attributed_step(model, optimizer, probes, batch, control)
    kept, grad_factor, reading = attributed_step(model, optimizer, probes, batch, control)
    assert grad_factor < 1, "the gradient's norm was clipped"
    directions = kept.directions(grad_factor)
    assert set(directions) == CAUSES[name]

    # By state: a Jacobian-vector product of each cause, and one of the step that the weights really took.
    step = {n: p.detach() - kept.weights[n] for n, p in model.network.named_parameters()}
    changes = state_entropy_changes(probes.logits_of, kept.weights, {**directions, "step": step})
    whole = changes.pop("step")
    assert float((sum(changes.values()) - whole).abs().max()) <= ATTRIBUTION
    for cause in (RIGHT, MOMENTUM):
        rest = sum(change for other, change in changes.items() if other != cause)
        assert float((rest - whole).abs().max()) > ATTRIBUTION
    unclipped = state_entropy_changes(probes.logits_of, kept.weights, kept.directions(1.0))
    assert float((sum(unclipped.values()) - whole).abs().max()) > ATTRIBUTION

    # The whole by another route: central differences of the entropy along the step.
    ends = [
        entropy_of_logits(probes.logits_of({n: w + size * step[n] for n, w in kept.weights.items()})).detach()
        for size in (1e-4, -1e-4)
    ]
    assert whole.tolist() == pytest.approx(((ends[0] - ends[1]) / 2e-4).tolist(), abs=FINITE_DIFFERENCE)

    row = kept.row(0, 0, reading, grad_factor)
    assert row.parts == pytest.approx({cause: float(c.mean()) for cause, c in changes.items()}, abs=ATTRIBUTION)
    assert abs(row.unattributed) <= ATTRIBUTION
    assert row.second_order_logits == pytest.approx(reading.accounted - float(whole.mean()), abs=ATTRIBUTION)
    assert adds_up(row)


def adds_up(row: AttributionRow) -> bool:
    left = row.unattributed + row.second_order_logits + row.second_order_entropy
    return abs(sum(row.parts.values()) + left - row.observed) <= TIGHT


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_removing_a_cause_removes_its_part(name: str) -> None:
    """The wrong answers' terms are taken out of the loss, and the optimizer's preconditioner is left as it was."""
    model = exact_model(seed=3)
    probes = Probes(model, responses_of(model, key=12))
    batch = batch_of(model, drift=0.0)
    make: Make = {"sgd": lambda p: torch.optim.SGD(p, lr=LR), "adam": OPTIMIZERS["adam"]}[name]
    optimizer = make(list(model.network.parameters()))
    measured, plan = prepared(batch, model, PPOClip())
    kept = StepAttribution.before(model, optimizer, probes, batch, measured, plan, temperature=1.0, at_once=8)
    execute(model, optimizer, batch, measured, plan, temperature=1.0, at_once=8, grad_clip=1e9)
    directions = kept.directions(1.0)
    assert set(directions) == {RIGHT, WRONG}, "on-policy neither clip nor control acts"
    step = {n: p.detach() - kept.weights[n] for n, p in model.network.named_parameters()}

    model.network.load_state_dict(kept.weights)
    model.network.zero_grad()
    without = replace(batch, advantages=batch.advantages * batch.right)
    accumulate(model, without, *prepared(without, model, PPOClip()), temperature=1.0, at_once=8)
    rest = {}
    for n, p in model.network.named_parameters():
        size = LR if name == "sgd" else LR / ((optimizer.state[p]["exp_avg_sq"] / (1 - 0.99)).sqrt() + 1e-8)
        rest[n] = -size * p.grad
    changes = state_entropy_changes(probes.logits_of, kept.weights, {**directions, "step": step, "rest": rest})
    mean = {cause: float(change.mean()) for cause, change in changes.items()}
    assert mean["step"] - mean["rest"] == pytest.approx(mean[WRONG], abs=ATTRIBUTION)
    assert abs(mean[WRONG]) > 100 * ATTRIBUTION
    assert mean["step"] - mean["rest"] != pytest.approx(mean[RIGHT], abs=ATTRIBUTION)


@pytest.mark.parametrize("at_once", [8, 3, 1])
def test_the_parts_of_the_gradient_add_up_for_any_micro_batch(at_once: int) -> None:
    model = exact_model(seed=3)
    batch = batch_of(model, drift=0.4)
    measured, plan = prepared(batch, model, SETTINGS["sgd"])
    parts = gradients_by_cause(model, batch, measured, plan, temperature=1.0, at_once=at_once)
    assert all(parameter.grad is None for parameter in model.network.parameters())
    accumulate(model, batch, measured, plan, temperature=1.0, at_once=8)
    for name, parameter in model.network.named_parameters():
        found = sum(part[name] for part in parts.values())
        torch.testing.assert_close(found, parameter.grad, rtol=0, atol=TIGHT)
    head = model.network.lm_head.weight.grad
    two = parts[RIGHT]["lm_head.weight"] + parts[WRONG]["lm_head.weight"]
    assert not torch.allclose(two, head, rtol=0, atol=TIGHT), "the clip and the control are missing"


@pytest.mark.parametrize(
    ("loss", "aggregation"),
    [("vanilla", "token-mean"), ("gspo", "seq-mean-token-mean"), ("cispo", "seq-mean-token-sum-norm")],
)
def test_every_term_loss_and_aggregation_adds_up(loss: str, aggregation: str) -> None:
    """A bonus, both KL terms over the vocabulary, and importance factors, beside a clip."""
    model = exact_model(seed=3)
    several = [
        KLCov(kl_cov_ratio=0.5, kl_form="exact"),
        ReferenceKL(kl_loss_coef=0.1, kl_loss_type="exact"),
        EntropyBonus(entropy_coef=0.05),
        TruncatedImportance(),
    ]
    anchors = Anchors.of(exact_model(seed=4).network, several)
    batch = batch_of(model, drift=0.4)
    # The engine's log-probs differ from the learner's: the factors are not 1.
    engine = replace(batch.responses, logprobs=batch.old_logprobs - 0.3)
    batch = replace(batch, responses=engine)
    measured = measure(model, batch, temperature=1.0, at_once=8, anchors=anchors)
    plan = replace(controls.plan(measured, several, key=1), clip_low=0.3, clip_high=0.3)
    choice = LossChoice(POLICY_LOSSES[loss], AGGREGATIONS[aggregation], max_tokens=6)
    arguments = {"temperature": 1.0, "choice": choice, "anchors": anchors}
    parts = gradients_by_cause(model, batch, measured, plan, at_once=3, **arguments)
    named = {cause.split(": ")[-1] for cause in parts}
    assert {RIGHT, WRONG, RATIO_CLIP, "factor", "kl", "reference_kl", "bonus"} <= named
    accumulate(model, batch, measured, plan, at_once=8, **arguments)
    for name, parameter in model.network.named_parameters():
        found = sum(part[name] for part in parts.values())
        torch.testing.assert_close(found, parameter.grad, rtol=0, atol=TIGHT)
    bonus = next(part for cause, part in parts.items() if cause.endswith("bonus"))["lm_head.weight"]
    assert float(bonus.abs().max()) > TIGHT


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda p: torch.optim.Adam(p, amsgrad=True), "Adam with amsgrad=True"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), "SGD with nesterov=True"),
        (lambda p: torch.optim.RMSprop(p), "RMSprop cannot be split"),
    ],
)
def test_an_optimizer_whose_step_is_not_understood_is_refused(make: Make, complaint: str) -> None:
    model = exact_model(seed=3)
    batch = batch_of(model, drift=0.0)
    measured, plan = prepared(batch, model, PPOClip())
    optimizer = make(list(model.network.parameters()))
    probes = Probes(model, responses_of(model, key=12))
    with pytest.raises(ConfigError, match=complaint):
        StepAttribution.before(model, optimizer, probes, batch, measured, plan, temperature=1.0, at_once=8)


def numbers(run: Run) -> list[str]:
    """What a run recorded of its training."""
    return [row.model_dump_json() for kind in (run.updates, run.samples) for row in kind]


def test_a_run_with_attribution_is_the_run_without_it_bit_for_bit(tmp_path: Path) -> None:
    several = [CONTROLS["clip_cov"], EntropyBonus(entropy_coef=0.01)]
    settings = {"control": [each.model_dump() for each in several], "steps": 3}
    plain = tiny_run(tmp_path / "plain", **settings)
    watched = tiny_run(tmp_path / "watched", **settings, attribute_every=2)
    assert numbers(watched) == numbers(plain)
    weights = final_weights(plain)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in final_weights(watched).items())
    assert plain.attributions == []
    assert not (plain.folder / "attributions.jsonl").exists()
    assert [row.update for row in watched.attributions] == [row.update for row in plain.updates if row.update % 2 == 0]
    for row in watched.attributions:
        assert adds_up(row)
        assert abs(row.unattributed) <= ATTRIBUTION_FLOAT32
        assert (MOMENTUM in row.parts) == (row.update > 0)
        assert "clip_cov + entropy_bonus: bonus" in row.parts
        probe = watched.updates[row.update].probe
        assert probe is not None
        assert (row.observed, row.num_states) == (probe.observed, probe.num_states)
    assert not adds_up(watched.attributions[0].model_copy(update={"parts": {}}))
    lines = (watched.folder / "attributions.jsonl").read_text().splitlines()
    (watched.folder / "attributions.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")
    with pytest.raises(StoreError, match=r"attributions\.jsonl:\d+ has update 0 after"):
        read_run(watched.folder)


def test_attribution_needs_probe_states() -> None:
    assert tiny_config().attribute_every == 0
    with pytest.raises(ConfigError, match=r"attribute_every = 5 .* Set probe_prompts to 1 or more"):
        parse_config({"attribute_every": 5, "probe_prompts": 0}, source="run.yaml")
    assert parse_config({"attribute_every": 5}, source="run.yaml").attribute_every == 5
