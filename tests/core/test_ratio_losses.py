"""GSPO and CISPO against plain loops, and the losses of the papers as special cases of one law."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.core.loss import LossTerms, cispo, gspo, surrogate
from covent.core.named import NamedLoss, dapo, dr_grpo, grpo, ppo
from covent.core.plan import Measured, Plan
from covent.core.reduce import seq_mean_token_mean, seq_mean_token_sum_norm, token_mean
from covent.errors import ShapeError
from tests.core.test_loss import plan_of
from tests.support.batches import masked_equal, optimizer_batch, reordered, splits, tokens
from tests.support.tolerances import TIGHT


def terms_and_gradient(loss: Callable[..., LossTerms], batch: Measured, plan: Plan) -> tuple[LossTerms, Tensor]:
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = loss(logprobs, batch.old_logprobs, batch.advantages, batch.mask, plan)
    (gradient,) = torch.autograd.grad(terms.aggregated.sum(), logprobs)
    return LossTerms(*(term.detach() for term in terms)), gradient


def by_row(batch: Measured) -> dict[int, list[tuple[int, int]]]:
    rows: dict[int, list[tuple[int, int]]] = {}
    for place in tokens(batch):
        rows.setdefault(place[0], []).append(place)
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_gspo_by_a_plain_loop(seed: int) -> None:
    batch = optimizer_batch(seed, drift=0.8)
    plan = plan_of(batch, 0.1, 0.2)
    terms, gradient = terms_and_gradient(gspo, batch, plan)
    for places in by_row(batch).values():
        gaps = [float(batch.logprobs[p]) - float(batch.old_logprobs[p]) for p in places]
        ratio = math.exp(math.fsum(gaps) / len(gaps))
        for place in places:
            advantage = float(batch.advantages[place])
            cut = (ratio < 0.9 and advantage < 0) or (ratio > 1.2 and advantage > 0)
            bounded = min(max(ratio, 0.9), 1.2) if cut else ratio
            assert float(terms.policy[place]) == pytest.approx(-bounded * advantage, abs=TIGHT)
            # The token carries the response's ratio, so its own gradient is the whole ratio, not a share of it.
            assert float(gradient[place]) == pytest.approx(0.0 if cut else -ratio * advantage, abs=TIGHT)
    cut = terms.cut_low | terms.cut_high
    assert bool(cut.any()) and not bool(cut[batch.mask].all())
    by_token, _ = terms_and_gradient(surrogate, batch, plan)
    assert not torch.allclose(by_token.policy, terms.policy)


def test_gspo_of_responses_of_one_token_is_the_surrogate() -> None:
    batch = optimizer_batch(4, drift=0.6, length=1)
    plan = plan_of(batch, 0.2, 0.2)
    (one, slope), (other, other_slope) = (terms_and_gradient(loss, batch, plan) for loss in (gspo, surrogate))
    torch.testing.assert_close(one.policy, other.policy, rtol=0, atol=TIGHT)
    torch.testing.assert_close(slope, other_slope, rtol=0, atol=TIGHT)


@pytest.mark.parametrize("seed", range(3))
def test_cispo_by_a_plain_loop(seed: int) -> None:
    batch = optimizer_batch(seed, drift=0.8)
    plan = plan_of(batch, 1.0, 0.3, seed=seed)
    terms, gradient = terms_and_gradient(cispo, batch, replace(plan, kl_weight=torch.zeros_like(plan.kl_weight)))
    for place in tokens(batch):
        logprob, factor = float(batch.logprobs[place]), float(plan.factor[place])
        ratio = math.exp(logprob - float(batch.old_logprobs[place]))
        weight = min(ratio, 1.3) * factor * float(batch.advantages[place]) * bool(plan.keeps_gradient[place])
        assert float(terms.policy[place]) == pytest.approx(-weight * logprob, abs=TIGHT)
        assert float(gradient[place]) == pytest.approx(-weight, abs=TIGHT), "clipped tokens keep a gradient"
        assert bool(terms.cut_high[place]) == (ratio > 1.3)
    _, clipped_away = terms_and_gradient(surrogate, batch, plan)
    assert bool((clipped_away[terms.cut_high & (batch.advantages > 0)] == 0).any())


def test_cispo_knows_no_dual_clip() -> None:
    batch = optimizer_batch(0)
    with pytest.raises(ShapeError, match="plan asks for one at 3"):
        terms_and_gradient(cispo, batch, plan_of(batch, dual=3.0))


@pytest.mark.parametrize("loss", [surrogate, gspo, cispo])
def test_an_open_side_of_the_range_is_no_bound(loss: Callable[..., LossTerms]) -> None:
    batch = optimizer_batch(5, drift=0.8)
    closed, _ = terms_and_gradient(loss, batch, plan_of(batch, 0.2, 0.2))
    no_low, _ = terms_and_gradient(loss, batch, plan_of(batch, None, 0.2))
    no_high, _ = terms_and_gradient(loss, batch, plan_of(batch, 0.2, None))
    assert not bool(no_low.cut_low.any()) and torch.equal(no_low.cut_high, closed.cut_high)
    assert not bool(no_high.cut_high.any()) and torch.equal(no_high.cut_low, closed.cut_low)
    assert masked_equal(no_low.policy, closed.policy, ~closed.cut_low & batch.mask)
    assert not masked_equal(no_low.policy, closed.policy, batch.mask)


def named(loss: Callable[..., NamedLoss], batch: Measured, **settings: object) -> NamedLoss:
    return loss(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, **settings)


def test_the_papers_losses_are_special_cases() -> None:
    batch = optimizer_batch(6, drift=0.6)

    def general(low: float, high: float, dual: float | None = None) -> Tensor:
        return terms_and_gradient(surrogate, batch, plan_of(batch, low, high, dual=dual))[0].policy

    cases = [
        (named(ppo, batch), general(0.2, 0.2), token_mean),
        (named(ppo, batch, clip_ratio=0.1, clip_ratio_c=1.5), general(0.1, 0.1, 1.5), token_mean),
        (named(grpo, batch), general(0.2, 0.2), seq_mean_token_mean),
        (named(dapo, batch), general(0.2, 0.28), token_mean),
        (named(dr_grpo, batch), general(0.2, 0.2), seq_mean_token_sum_norm),
    ]
    for found, truth, aggregation in cases:
        assert masked_equal(found.per_token, truth, batch.mask)
        assert bool((found.per_token[~batch.mask] == 0).all())
        assert found.aggregation is aggregation
    assert not masked_equal(named(dapo, batch).per_token, named(ppo, batch).per_token, batch.mask)


def test_grpo_adds_a_kl_to_the_reference() -> None:
    batch = optimizer_batch(7)
    reference = batch.reference_logprobs
    with_kl = named(grpo, batch, reference_logprobs=reference, kl_loss_coef=0.1).per_token
    gap = (batch.logprobs - reference)[batch.mask]
    added = (with_kl - named(grpo, batch).per_token)[batch.mask]
    torch.testing.assert_close(added, 0.1 * (torch.expm1(-gap) + gap), rtol=0, atol=TIGHT)
    assert not torch.allclose(added, 0.1 * (torch.expm1(gap) - gap))
    with pytest.raises(ShapeError, match=r"kl_loss_coef = 0\.1"):
        named(grpo, batch, kl_loss_coef=0.1)


@pytest.mark.parametrize("loss", [surrogate, gspo, cispo])
def test_micro_batches_of_whole_responses_change_nothing(loss: Callable[..., LossTerms]) -> None:
    batch = optimizer_batch(8)
    plan = plan_of(batch, seed=8)
    _, whole = terms_and_gradient(loss, batch, plan)
    parts = [
        terms_and_gradient(loss, reordered(batch, rows), plan.rows(rows))[1]
        for rows in splits(len(batch.mask), 1, 4, 20)
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=TIGHT)
