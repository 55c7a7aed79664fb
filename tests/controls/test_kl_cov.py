"""KL-Cov against sorted lists, and the on-policy case in which its term must have no gradient, rounding included."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from covent.controls import KLCov, kl_cov
from covent.core.loss import surrogate
from covent.core.plan import Measured, Plan
from tests.support.batches import masked_equal, named, optimizer_batch, tokens
from tests.support.tolerances import TIGHT

SETTINGS = KLCov(kl_cov_ratio=0.05, ppo_kl_coef=0.5)


def gradient(batch: Measured, plan: Plan) -> Tensor:
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = surrogate(logprobs, batch.old_logprobs, batch.advantages, batch.mask, plan)
    (terms.policy + terms.kl).sum().backward()
    return logprobs.grad


def highest(batch: Measured, count: int) -> set[tuple[int, int]]:
    """The places of the `count` highest covariances, from plain sums."""
    places = tokens(batch)
    mean_l = math.fsum(float(batch.logprobs[p]) for p in places) / len(places)
    mean_a = math.fsum(float(batch.advantages[p]) for p in places) / len(places)
    return set(
        sorted(places, key=lambda p: -(float(batch.logprobs[p]) - mean_l) * (float(batch.advantages[p]) - mean_a))[
            :count
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_floor_of_the_share_of_highest_covariance(seed: int) -> None:
    batch = optimizer_batch(seed)
    plan = kl_cov(batch, SETTINGS, key=0)
    count = math.floor(0.05 * batch.num_tokens)
    chosen = {tuple(place) for place in plan.chosen.nonzero().tolist()}
    assert chosen == highest(batch, count)
    assert chosen != highest(replace(batch, advantages=-batch.advantages), count)
    assert plan.reading.num_selected == count > 0 and plan.reading.note == ""
    assert plan.reading.num_candidates == plan.reading.num_tokens == batch.num_tokens
    assert torch.equal(plan.kl_weight, torch.where(plan.chosen, 0.5, 0.0).double())
    assert torch.equal(plan.keeps_gradient, batch.mask), "chosen tokens keep their policy gradient"
    assert (plan.clip_low, plan.clip_high) == (None, None)


def test_the_term_pulls_the_chosen_tokens_back() -> None:
    batch = optimizer_batch(1)
    plan = kl_cov(batch, SETTINGS, key=0)
    without = replace(plan, kl_weight=torch.zeros_like(plan.kl_weight))
    pull = gradient(batch, plan) - gradient(batch, without)
    away = (batch.logprobs - batch.old_logprobs).sign()
    assert pull[plan.chosen].tolist() == pytest.approx((0.5 * away[plan.chosen]).tolist(), abs=TIGHT)
    assert bool((pull[~plan.chosen] == 0).all())


@pytest.mark.parametrize(("noise", "dtype"), [(0.0, torch.float64), (1e-7, torch.float32), (1e-15, torch.float64)])
def test_on_policy_the_term_has_no_gradient_and_says_so(noise: float, dtype: torch.dtype) -> None:
    batch = optimizer_batch(2, dtype=dtype)
    rounding = noise * torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    on_policy = replace(batch, old_logprobs=(batch.logprobs * (1 + rounding)).to(dtype))
    plan = kl_cov(on_policy, SETTINGS, key=0)
    assert bool(plan.chosen.any()), "the choice is made and recorded"
    assert float(plan.kl_weight.max()) == 0.0
    assert "no gradient" in plan.reading.note and "n-policy" in plan.reading.note
    plain = replace(plan, kl_weight=torch.zeros_like(plan.kl_weight), chosen=torch.zeros_like(plan.chosen))
    assert torch.equal(gradient(on_policy, plan), gradient(on_policy, plain))
    # Without the noise floor, rounding alone would switch the whole term on.
    naive = replace(plan, kl_weight=0.5 * plan.chosen.to(dtype))
    assert torch.equal(gradient(on_policy, naive), gradient(on_policy, plain)) == (noise == 0.0)


@pytest.mark.parametrize("form", ["k2", "k3"])
def test_other_forms_pull_the_chosen_tokens_in_proportion(form: str) -> None:
    batch = optimizer_batch(1)
    plan = kl_cov(batch, SETTINGS.model_copy(update={"kl_form": form}), key=0)
    without = replace(plan, kl_weight=torch.zeros_like(plan.kl_weight))
    pull = (gradient(batch, plan) - gradient(batch, without))[plan.chosen]
    log_ratio = (batch.logprobs - batch.old_logprobs)[plan.chosen]
    # KL(pi_old || pi) estimated at tokens of pi_old: k3 is ratio - 1 - log ratio.
    slope = log_ratio if form == "k2" else torch.expm1(log_ratio)
    torch.testing.assert_close(pull, 0.5 * slope, rtol=0, atol=TIGHT)
    assert not torch.allclose(pull, 0.5 * log_ratio.sign())
    on_policy = replace(batch, old_logprobs=batch.logprobs)
    still = kl_cov(on_policy, SETTINGS.model_copy(update={"kl_form": form}), key=0)
    assert "no gradient" in still.reading.note
    silent = replace(still, kl_weight=torch.zeros_like(still.kl_weight))
    assert torch.equal(gradient(on_policy, still), gradient(on_policy, silent))


@pytest.mark.parametrize("form", ["abs", "k1", "k2", "k3", "exact"])
def test_only_the_kink_is_kept_from_rounding(form: str) -> None:
    """Half the tokens lie within rounding of the policy that sampled: |log ratio| skips them, smooth forms do not."""
    batch = optimizer_batch(1)
    still = (torch.arange(batch.mask.shape[1]) % 2 == 0).expand_as(batch.mask)
    half = replace(batch, old_logprobs=torch.where(still, batch.logprobs * (1 + 1e-15), batch.old_logprobs))
    plan = kl_cov(half, SETTINGS.model_copy(update={"kl_form": form}), key=0)
    assert bool((plan.chosen & still).any()) and bool((plan.chosen & ~still).any())
    acting = plan.chosen & ~still if form == "abs" else plan.chosen
    assert torch.equal(plan.kl_weight, 0.5 * acting.double())


def test_none_positive_still_ranks() -> None:
    """More are asked than have a positive covariance: the highest are taken all the same."""
    batch = optimizer_batch(6, num_prompts=2, num_samples=2)
    outlier = torch.where(batch.identity.prompt + batch.identity.sample == 0, 30.0, -1.0).double()
    mixed = replace(batch, logprobs=-1 - 0.01 * batch.logprobs.abs(), advantages=outlier)
    covariances = mixed.covariances()[mixed.mask]
    asked = int((covariances > 0).sum()) + 3
    reading = kl_cov(mixed, KLCov(kl_cov_ratio=(asked + 0.5) / mixed.num_tokens), key=0).reading
    assert reading.num_selected == asked > int((covariances > 0).sum())


def test_a_small_real_drift_does_act() -> None:
    batch = optimizer_batch(3, drift=1e-4, dtype=torch.float32)
    plan = kl_cov(batch, SETTINGS, key=0)
    assert plan.reading.note == ""
    acting = (plan.kl_weight > 0) & plan.chosen
    assert int(acting.sum()) > 0.5 * int(plan.chosen.sum())


def test_heavy_ties_go_to_identities() -> None:
    batch = optimizer_batch(4)
    two_levels = replace(
        batch, logprobs=torch.where(batch.logprobs > -0.7, -0.1, -2.0), advantages=batch.advantages.sign()
    )
    plan = kl_cov(two_levels, SETTINGS, key=0)
    covariances = two_levels.covariances()
    listed = sorted(
        (-round(float(covariances[place]), 9), *(int(column[place]) for column in two_levels.identity))
        for place in tokens(two_levels)
    )
    assert len({level for level, *_ in listed}) <= 4
    assert named(plan.chosen, two_levels.identity) == {tuple(i) for _, *i in listed[: plan.reading.num_selected]}
    assert named(plan.chosen, two_levels.identity) != {tuple(i) for _, *i in listed[-plan.reading.num_selected :]}


def test_equal_covariances_are_said() -> None:
    batch = optimizer_batch(5)
    level = replace(batch, advantages=torch.full_like(batch.advantages, 0.1))
    reading = kl_cov(level, SETTINGS, key=0).reading
    assert "same covariance" in reading.note and reading.num_selected == 0
    assert masked_equal(
        gradient(level, kl_cov(level, SETTINGS, key=0)), gradient(level, kl_cov(level, SETTINGS, 1)), level.mask
    )


def test_settings_out_of_range_are_refused() -> None:
    assert (KLCov().kl_cov_ratio, KLCov().ppo_kl_coef) == (2e-3, 1.0)
    for wrong in ({"kl_cov_ratio": 20}, {"kl_cov_ratio": 0}, {"ppo_kl_coef": 0}, {"k_percent": 0.2}):
        with pytest.raises(ValidationError):
            KLCov(**wrong)
