"""The surrogate and its gradient against a plain loop, and what is inert: padding, zero advantages, removed tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.core.keys import TokenIdentity
from covent.core.loss import POLICY_LOSSES, LossTerms, ppo_cut, surrogate
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


BEYOND_EXP = {torch.float32: (95.0, math.inf), torch.float64: (800.0, math.inf)}
INERT: dict[str, dict[str, float | bool]] = {
    "no advantage": {"advantage": 0.0},
    "cut above": {"advantage": 1.0, "high": 0.28},
    "cut by the dual clip": {"advantage": -1.0, "dual": 3.0},
    "removed by the plan": {"advantage": -1.0, "removed": True},
}
"""Why the term of a token does not depend on its ratio."""


def far_token(
    dtype: torch.dtype,
    gap: float,
    *,
    advantage: float,
    high: float | None = None,
    dual: float | None = None,
    removed: bool = False,
    whole: bool = False,
) -> tuple[Measured, Plan]:
    """A response of three tokens, of which the second is far more likely than to the policy that sampled it.

    Advantage and removal are the second token's, or those of the whole response.
    """
    batch = optimizer_batch(0, dtype=dtype)
    logprobs = torch.tensor([[-0.5, -1.0, -2.0]], dtype=dtype)
    advantages = torch.tensor([[advantage] * 3 if whole else [1.0, advantage, -0.5]], dtype=dtype)
    mask = torch.ones(1, 3, dtype=torch.bool)
    far = replace(
        batch,
        **dict.fromkeys(("entropies", "sampler_logprobs", "reference_logprobs"), logprobs),
        logprobs=logprobs,
        old_logprobs=logprobs - torch.tensor([[0.1, gap, -0.1]], dtype=dtype),
        advantages=advantages,
        mask=mask,
        identity=TokenIdentity(*(column[:1, :3] for column in batch.identity)),
    )
    taken = torch.tensor([[whole, True, whole]]) & removed
    plan = plan_of(far, None, high, dual=dual)
    return far, replace(plan, kl_weight=torch.zeros_like(logprobs), keeps_gradient=mask & ~taken)


@pytest.mark.parametrize("why", INERT)
@pytest.mark.parametrize("loss", POLICY_LOSSES)
@pytest.mark.parametrize(("dtype", "gap"), [(dtype, gap) for dtype, gaps in BEYOND_EXP.items() for gap in gaps])
def test_a_ratio_beyond_exp_that_decides_nothing_is_inert(loss: str, why: str, dtype: torch.dtype, gap: float) -> None:
    """The term is what it is at a ratio of 1,000, and so is the gradient of every token."""
    if loss == "cispo" and why == "cut by the dual clip":
        pytest.skip("CISPO has no dual clip")
    found, near = [], []
    for distance, into in ((gap, found), (math.log(1e3), near)):
        # GSPO's ratio is the response's, so the far token decides of all of it.
        batch, plan = far_token(dtype, distance, whole=loss == "gspo", **INERT[why])  # type: ignore[arg-type]  # settings by name
        for form in (None, "k1", "k2", "k3", "abs"):
            logprobs = batch.logprobs.clone().requires_grad_()
            made = replace(plan, kl_form=form)
            terms = POLICY_LOSSES[loss](logprobs, batch.old_logprobs, batch.advantages, batch.mask, made)
            (gradient,) = torch.autograd.grad(terms.aggregated.sum(), logprobs)
            into.append(torch.stack([terms.aggregated.detach(), gradient]))
    values = torch.stack(found)
    assert bool(values.isfinite().all())
    assert torch.equal(values, torch.stack(near))
    assert bool((values[:, 1, 0, 1] == 0).all()) == (loss != "cispo" or why != "cut above")


@pytest.mark.parametrize("why", ["no advantage", "cut by the dual clip"])
@pytest.mark.parametrize("loss", POLICY_LOSSES)
def test_a_token_that_the_policy_can_no_longer_choose_has_no_gradient(loss: str, why: str) -> None:
    """pi = 0: the ratio is 0, and so is the gradient; nothing becomes NaN."""
    if loss == "cispo" and why == "cut by the dual clip":
        pytest.skip("CISPO has no dual clip")
    batch, plan = far_token(torch.float64, 0.1, whole=loss == "gspo", **INERT[why])  # type: ignore[arg-type]  # settings by name
    logprobs = batch.logprobs.clone()
    logprobs[0, 1] = -math.inf
    logprobs.requires_grad_()
    plan = replace(plan, kl_form=None)
    terms = POLICY_LOSSES[loss](logprobs, batch.old_logprobs, batch.advantages, batch.mask, plan)
    (gradient,) = torch.autograd.grad(terms.policy.sum(), logprobs)
    assert bool(terms.policy.isfinite().all() and gradient.isfinite().all())
    assert float(terms.policy.detach()[0, 1]) == float(gradient[0, 1]) == 0


@pytest.mark.parametrize("gap", BEYOND_EXP[torch.float32])
def test_the_textbook_form_has_no_gradient_there(gap: float) -> None:
    for why in ("no advantage", "cut above"):
        batch, _ = far_token(torch.float32, gap, **INERT[why])  # type: ignore[arg-type]  # settings by name
        logprobs = batch.logprobs.clone().requires_grad_()
        ratio = (logprobs - batch.old_logprobs).exp()
        value = torch.minimum(ratio * batch.advantages, ratio.clamp(0.8, 1.28) * batch.advantages)
        (gradient,) = torch.autograd.grad(value.sum(), logprobs)
        assert gradient.isnan().tolist() == [[False, True, False]]


@pytest.mark.parametrize("gap", BEYOND_EXP[torch.float32])
def test_a_ratio_beyond_exp_that_decides_is_an_infinite_loss(gap: float) -> None:
    """A < 0 and no dual clip: nothing bounds the term, and it is not made to look finite. Nor is NaN hidden."""
    batch, plan = far_token(torch.float32, gap, advantage=-1.0, high=0.28)
    terms, gradient = terms_and_gradient(batch, replace(plan, kl_form=None))
    assert terms.policy.isposinf().tolist() == gradient.isposinf().tolist() == [[False, True, False]]
    batch, plan = far_token(torch.float32, math.nan, advantage=0.0)
    assert terms_and_gradient(batch, plan)[0].policy.isnan().tolist() == [[False, True, False]]


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
