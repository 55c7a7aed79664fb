"""The surrogate and its gradient against a plain loop, and what is inert: padding, zero advantages, removed tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.core.loss import LossTerms, ppo_cut, surrogate
from covent.core.plan import Measured, Plan
from covent.readings import ControlReading
from tests.support.batches import masked_equal, optimizer_batch, reordered, splits, tokens
from tests.support.tolerances import TIGHT

NOTHING = ControlReading(
    name="test", asked_frac=None, num_tokens=0, num_candidates=None, num_selected=0, took_all_candidates=False
)


def plan_of(
    batch: Measured,
    low: float | None = 0.2,
    high: float | None = 0.28,
    *,
    seed: int | None = None,
    dual: float | None = None,
) -> Plan:
    """A plan without selection, or with random removals, KL weights and factors."""
    removed, weighted = torch.zeros(2, *batch.mask.shape, dtype=torch.bool)
    factor = None
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        removed, weighted = torch.rand(2, *batch.mask.shape, generator=generator) < 0.2
        factor = 2 * torch.rand(batch.mask.shape, generator=generator, dtype=torch.float64)
    return Plan(
        chosen=removed | weighted,
        keeps_gradient=batch.mask & ~removed,
        kl_weight=0.7 * weighted.double(),
        clip_low=low,
        clip_high=high,
        dual_clip=dual,
        factor=factor,
        reading=NOTHING,
    )


def terms_and_gradient(batch: Measured, plan: Plan) -> tuple[LossTerms, Tensor]:
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = surrogate(logprobs, batch.old_logprobs, batch.advantages, batch.mask, plan)
    (gradient,) = torch.autograd.grad((terms.policy + terms.kl).sum(), logprobs)
    return LossTerms(*(term.detach() for term in terms)), gradient


def plain(batch: Measured, plan: Plan, place: tuple[int, int]) -> dict[str, float]:
    """One token's terms and gradient, written out case by case."""
    log_ratio = float(batch.logprobs[place]) - float(batch.old_logprobs[place])
    ratio, advantage = math.exp(log_ratio), float(batch.advantages[place])
    if plan.factor is not None:
        advantage *= float(plan.factor[place])
    cut_low = plan.clip_low is not None and ratio < 1 - plan.clip_low and advantage < 0
    cut_high = plan.clip_high is not None and ratio > 1 + plan.clip_high and advantage > 0
    cut_dual = plan.dual_clip is not None and ratio > plan.dual_clip and advantage < 0
    if cut_dual:
        policy = -plan.dual_clip * advantage
    elif cut_low:
        policy = -(1 - plan.clip_low) * advantage
    elif cut_high:
        policy = -(1 + plan.clip_high) * advantage
    else:
        policy = -ratio * advantage
    slope = 0.0 if cut_low or cut_high or cut_dual else -ratio * advantage
    if not plan.keeps_gradient[place]:
        policy = slope = 0.0
    weight = float(plan.kl_weight[place])
    return {
        "policy": policy,
        "kl": weight * abs(log_ratio),
        "cut_low": float(cut_low),
        "cut_high": float(cut_high),
        "cut_dual": float(cut_dual),
        "reference_kl": 0.0,
        "bonus": 0.0,
        "gradient": slope + math.copysign(weight, log_ratio),
    }


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (1.0, 1.0), (None, None)])
@pytest.mark.parametrize("dual", [None, 1.5])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_terms_and_gradient_by_a_plain_loop(
    low: float | None, high: float | None, dual: float | None, seed: int | None
) -> None:
    batch = optimizer_batch(seed or 0, drift=0.6)
    plan = plan_of(batch, low, high, seed=seed, dual=dual)
    terms, gradient = terms_and_gradient(batch, plan)
    for place in tokens(batch):
        found = {name: float(getattr(terms, name)[place]) for name in LossTerms._fields}
        found["gradient"] = float(gradient[place])
        assert found == pytest.approx(plain(batch, plan, place), abs=TIGHT)
    for term in (*terms, gradient):
        assert bool((term[~batch.mask] == 0).all())
    assert low is None or bool(terms.cut_high.any())
    assert bool(terms.cut_dual.any()) == (dual is not None)


def test_wrong_surrogates_are_told_apart() -> None:
    batch = optimizer_batch(0, drift=0.6)
    terms, _ = terms_and_gradient(batch, plan_of(batch))
    ratio = (batch.logprobs - batch.old_logprobs).exp()
    clamped = ratio.clamp(0.8, 1.28)
    for wrong in (
        -ratio * batch.advantages,
        -clamped * batch.advantages,
        -torch.maximum(ratio * batch.advantages, clamped * batch.advantages),
        terms_and_gradient(batch, plan_of(batch, dual=1.5))[0].policy,
        terms_and_gradient(batch, replace(plan_of(batch), factor=torch.full_like(ratio, 0.9)))[0].policy,
        terms_and_gradient(batch, plan_of(batch, 0.28, 0.2))[0].policy,
    ):
        assert float((terms.policy - wrong)[batch.mask].abs().max()) > TIGHT


def test_at_the_sampling_policy_the_gradient_is_minus_the_advantage() -> None:
    batch = optimizer_batch(3, drift=0.0)
    terms, gradient = terms_and_gradient(batch, plan_of(batch))
    assert masked_equal(gradient, -batch.advantages, batch.mask)
    assert not bool((terms.cut_low | terms.cut_high).any())
    _, drifted = terms_and_gradient(optimizer_batch(3), plan_of(batch))
    assert not masked_equal(drifted, -batch.advantages, batch.mask)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e30])
def test_what_stands_behind_the_mask_is_inert(junk: float) -> None:
    clean = optimizer_batch(4)
    plan = plan_of(clean, seed=4)
    hidden = ~clean.mask
    dirty = replace(
        clean,
        logprobs=clean.logprobs.masked_fill(hidden, junk),
        old_logprobs=clean.old_logprobs.masked_fill(hidden, 0.0),
        advantages=clean.advantages.masked_fill(hidden, junk),
    )
    terms, gradient = terms_and_gradient(dirty, plan)
    truth, true_gradient = terms_and_gradient(clean, plan)
    assert all(torch.equal(term, true) for term, true in zip(terms, truth, strict=True))
    assert torch.equal(gradient, true_gradient)
    by_multiplication = ((dirty.logprobs - dirty.old_logprobs).exp() * dirty.advantages * dirty.mask).sum()
    assert not math.isfinite(float(by_multiplication))


def test_zero_advantage_has_zero_gradient() -> None:
    batch = optimizer_batch(5)
    nothing_gained = replace(batch, advantages=torch.zeros_like(batch.advantages))
    terms, gradient = terms_and_gradient(nothing_gained, plan_of(batch))
    assert float(gradient.abs().max()) == 0.0
    assert float(terms.policy.abs().max()) == 0.0
    _, with_kl = terms_and_gradient(nothing_gained, plan_of(batch, seed=5))
    assert float(with_kl.abs().max()) > 0.0


def test_a_removed_token_still_counts_in_the_denominator() -> None:
    batch = optimizer_batch(6)
    plain_plan, plan = plan_of(batch, 1.0, 1.0), plan_of(batch, 1.0, 1.0, seed=6)
    removed = batch.mask & ~plan.keeps_gradient
    assert bool(removed.any())
    plan = replace(plan, kl_weight=torch.zeros_like(plan.kl_weight), factor=None)
    terms, gradient = terms_and_gradient(batch, plan)
    _, everywhere = terms_and_gradient(batch, plain_plan)
    assert bool((gradient[removed] == 0).all()) and bool((terms.policy[removed] == 0).all())
    # The others are neither scaled up nor down by the removal: division is by the same count.
    assert masked_equal(gradient, everywhere, batch.mask & ~removed)
    renormalised = gradient * batch.num_tokens / (batch.num_tokens - int(removed.sum()))
    assert not masked_equal(renormalised, everywhere, batch.mask & ~removed)


def test_micro_batches_add_up() -> None:
    batch = optimizer_batch(7)
    plan = plan_of(batch, seed=7)
    terms, gradient = terms_and_gradient(batch, plan)
    parts = [terms_and_gradient(reordered(batch, rows), plan.rows(rows)) for rows in splits(len(batch.mask), 3, 4, 20)]
    assert torch.equal(torch.cat([part for _, part in parts]), gradient)
    total = sum(float(part.policy.sum() + part.kl.sum()) for part, _ in parts) / batch.num_tokens
    assert total == pytest.approx(float((terms.policy + terms.kl).sum()) / batch.num_tokens, abs=TIGHT)
    counts = [int(batch.mask[rows].sum()) for rows in splits(len(batch.mask), 3, 4, 20)]
    mean_of_means = sum(float((p.policy + p.kl).sum()) / n for (p, _), n in zip(parts, counts, strict=True)) / 4
    assert mean_of_means != pytest.approx(total, abs=TIGHT)


def test_ppo_cut_is_where_the_gradient_vanishes() -> None:
    batch = optimizer_batch(8, drift=0.8)
    plan = plan_of(batch, 0.2, 0.28)
    terms, gradient = terms_and_gradient(batch, plan)
    cut = ppo_cut(batch.logprobs - batch.old_logprobs, batch.advantages, clip_low=0.2, clip_high=0.28)
    assert masked_equal(cut, terms.cut_low | terms.cut_high, batch.mask)
    assert masked_equal(cut, gradient == 0, batch.mask)
    swapped = ppo_cut(batch.logprobs - batch.old_logprobs, batch.advantages, clip_low=0.28, clip_high=0.2)
    assert not masked_equal(swapped, cut, batch.mask)


def test_ppo_cut_leaves_tokens_without_advantage() -> None:
    """They have no gradient to lose, on either side of the range."""
    log_ratio = torch.tensor([[-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
    advantages = torch.tensor([[0.0, -1.0, 1.0, 0.0, -1.0, 1.0]], dtype=torch.float64)
    cut = ppo_cut(log_ratio, advantages, clip_low=0.2, clip_high=0.2)
    assert cut.tolist() == [[False, True, False, False, False, True]]
