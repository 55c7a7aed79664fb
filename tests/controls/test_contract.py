"""One contract for every control, loss and aggregation: what may not matter, what is inert, what the same key gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.controls import (
    AnyControl,
    ClipCov,
    ClipCovReleased,
    EntropyBonus,
    KLCov,
    KLCovReleased,
    PPOClip,
    ReferenceKL,
    TopEntropy,
    TruncatedImportance,
    plan,
)
from covent.core.loss import POLICY_LOSSES, LossTerms
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS, part_of_mean
from tests.support.batches import VALUES, masked_equal, named, optimizer_batch, padded, reordered, splits
from tests.support.tolerances import TIGHT

Settings = AnyControl | Sequence[AnyControl]
CLIP_COV, KL_COV = ClipCov(clip_cov_ratio=0.02, clip_cov_lb=0.3), KLCov(kl_cov_ratio=0.05)
CONTROLS: dict[str, Settings] = {
    "ppo_clip": PPOClip(),
    "clip_cov": CLIP_COV,
    "kl_cov": KL_COV,
    "kl_cov_k3": KLCov(kl_cov_ratio=0.05, kl_form="k3"),
    "kl_cov_exact": KLCov(kl_cov_ratio=0.05, kl_form="exact"),
    "top_entropy": TopEntropy(),
    "entropy_bonus": EntropyBonus(entropy_coef=0.1),
    "entropy_bonus_top": EntropyBonus(entropy_coef=0.1, top_entropy_quantile=0.2),
    "reference_kl": ReferenceKL(kl_loss_coef=0.1),
    "reference_kl_exact": ReferenceKL(kl_loss_coef=0.1, kl_loss_type="exact"),
    "importance_token": TruncatedImportance(rollout_is_threshold=1.2),
    "importance_sequence": TruncatedImportance(rollout_is="sequence", rollout_is_threshold=1.2),
    "several": [CLIP_COV, TopEntropy(top_entropy_quantile=0.6), EntropyBonus(entropy_coef=0.1), ReferenceKL()],
    "all_kl": [KL_COV, TruncatedImportance(), ReferenceKL(kl_loss_type="k2")],
}
RELEASED: dict[str, Settings] = {
    "clip_cov_released": ClipCovReleased(clip_cov_ratio=0.02, clip_cov_lb=0.3),
    "kl_cov_released": KLCovReleased(kl_cov_ratio=0.05),
}
"""The two that depend on rows and micro-batches, by design; all the rest holds for them too."""
COVARIANCE = {"clip_cov": CLIP_COV, "kl_cov": KL_COV}
SELECTING = {**COVARIANCE, "top_entropy": TopEntropy(), "several": CONTROLS["several"]}

every_control = pytest.mark.parametrize("settings", CONTROLS.values(), ids=CONTROLS)
every_control_and_released = pytest.mark.parametrize(
    "settings", [*CONTROLS.values(), *RELEASED.values()], ids=[*CONTROLS, *RELEASED]
)
every_selection = pytest.mark.parametrize("settings", SELECTING.values(), ids=SELECTING)
every_covariance_control = pytest.mark.parametrize("settings", COVARIANCE.values(), ids=COVARIANCE)
every_loss = pytest.mark.parametrize("loss", POLICY_LOSSES)
every_aggregation = pytest.mark.parametrize("mode", AGGREGATIONS)

PER_TOKEN = ("chosen", "keeps_gradient", "kl_weight", "factor", "reference_weight", "entropy_weight")


def terms_of(batch: Measured, made: Plan, logprobs: Tensor, loss: str = "vanilla") -> LossTerms:
    """The terms of a made-up policy whose entropies and exact KLs are smooth functions of its log-probs."""

    def smooth(anchor: Tensor) -> Tensor:
        # Junk in the value behind the mask, but not in what gradients flow through: a network's output is finite there.
        gap = (logprobs - anchor).masked_fill(~batch.mask, 0.0)
        value = batch.entropies.masked_fill(~batch.mask, 0.0) * gap.square()
        return torch.where(batch.mask, value, batch.entropies)

    inputs = PenaltyInputs(
        entropies=smooth(torch.zeros_like(logprobs)),
        reference_logprobs=batch.reference_logprobs,
        exact_kl=smooth(batch.old_logprobs),
        exact_reference_kl=smooth(batch.reference_logprobs),
    )
    return POLICY_LOSSES[loss](logprobs, batch.old_logprobs, batch.advantages, batch.mask, made, inputs)


def gradient(
    batch: Measured, made: Plan, *, whole: Measured | None = None, loss: str = "vanilla", mode: str = "token-mean"
) -> Tensor:
    """Gradient of the batch's part of the loss of the whole optimizer batch."""
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = terms_of(batch, made, logprobs, loss)
    counts = (whole or batch).counts(max_tokens=16)
    part = AGGREGATIONS[mode](terms.aggregated, batch.mask, counts)
    (part + part_of_mean(terms.bonus, batch.mask, count=counts.num_tokens)).backward()
    assert logprobs.grad is not None
    return logprobs.grad


def same_plan(left: Plan, right: Plan, order: Tensor | slice = slice(None)) -> bool:
    """Whether a plan is another one's rows in this order."""
    pairs = [(getattr(left, name), getattr(right, name)) for name in PER_TOKEN]
    return left.reading == right.reading and all(
        (one is None and other is None) or torch.equal(one, other[order]) for one, other in pairs
    )


@every_control
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_rows_does_not_matter(settings: Settings, dtype: torch.dtype) -> None:
    batch = optimizer_batch(0, dtype=dtype)
    whole = plan(batch, settings, 5)
    for seed in range(3):
        order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
        moved = plan(reordered(batch, order), settings, 5)
        assert same_plan(moved, whole, order)
        assert settings not in SELECTING.values() or not same_plan(moved, whole)


@every_control
@every_loss
def test_the_order_of_rows_does_not_matter_to_the_gradient(settings: Settings, loss: str) -> None:
    batch = optimizer_batch(0)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(1))
    moved = reordered(batch, order)
    for mode in AGGREGATIONS:
        whole = gradient(batch, plan(batch, settings, 5), loss=loss, mode=mode)
        found = gradient(moved, plan(moved, settings, 5), loss=loss, mode=mode)
        torch.testing.assert_close(found, whole[order], rtol=TIGHT, atol=TIGHT)
        assert not torch.allclose(found, whole)


@every_control_and_released
@every_loss
def test_padding_does_not_matter(settings: Settings, loss: str) -> None:
    batch = optimizer_batch(1)
    whole, longer = plan(batch, settings, 5), plan(padded(batch, 7), settings, 5)
    assert longer.reading == whole.reading
    assert torch.equal(longer.chosen[:, :-7], whole.chosen) and not bool(longer.chosen[:, -7:].any())
    for mode in AGGREGATIONS:
        found = gradient(padded(batch, 7), longer, loss=loss, mode=mode)
        truth = gradient(batch, whole, loss=loss, mode=mode)
        torch.testing.assert_close(found[:, :-7], truth, rtol=TIGHT, atol=TIGHT)
        assert not bool(found[:, -7:].any())
        seven_later = found[:, 7:]
        assert not torch.allclose(seven_later, truth)


@every_selection
def test_a_plan_per_micro_batch_would_choose_others(settings: Settings) -> None:
    """The negative control of selecting over the whole optimizer batch, and the reason for it."""
    batch = optimizer_batch(2)
    whole = named(plan(batch, settings, 5).chosen, batch.identity)
    cuts = splits(len(batch.mask), 8, 16, 24)
    parts = [reordered(batch, rows) for rows in cuts]
    apart = set().union(*(named(plan(part, settings, 5).chosen, part.identity) for part in parts))
    assert apart != whole
    executed = [plan(batch, settings, 5).rows(rows) for rows in cuts]
    together = set().union(*(named(p.chosen, b.identity) for p, b in zip(executed, parts, strict=True)))
    assert together == whole


@every_control_and_released
@every_loss
@every_aggregation
def test_micro_batches_give_the_same_gradient(settings: Settings, loss: str, mode: str) -> None:
    batch = optimizer_batch(3)
    made = plan(batch, settings, 5)
    whole = gradient(batch, made, loss=loss, mode=mode)
    cuts = splits(len(batch.mask), 1, 12, 30)
    parts = [gradient(reordered(batch, rows), made.rows(rows), whole=batch, loss=loss, mode=mode) for rows in cuts]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=TIGHT, atol=TIGHT)
    own_count = torch.cat([gradient(reordered(batch, r), made.rows(r), loss=loss, mode=mode) for r in cuts])
    divides = mode != "token-sum" or made.entropy_weight is not None
    assert torch.allclose(own_count, whole) != divides


@every_control_and_released
def test_the_same_key_gives_the_same_plan(settings: Settings) -> None:
    batch = optimizer_batch(4)
    first, again, other = (plan(batch, settings, key) for key in (5, 5, 6))
    assert same_plan(first, again)
    draws = any(isinstance(each, ClipCov) for each in (settings if isinstance(settings, list) else [settings]))
    assert torch.equal(first.chosen, other.chosen) != draws


@every_control_and_released
@every_loss
def test_zero_advantages_have_no_policy_gradient(settings: Settings, loss: str) -> None:
    batch = optimizer_batch(5)
    still = replace(batch, advantages=torch.zeros_like(batch.advantages))

    def policy_gradient(measured: Measured) -> Tensor:
        logprobs = measured.logprobs.clone().requires_grad_()
        terms_of(measured, plan(measured, settings, 5), logprobs, loss).policy.sum().backward()
        assert logprobs.grad is not None
        return logprobs.grad

    assert float(policy_gradient(still).abs().max()) == 0.0
    assert float(policy_gradient(batch).abs().max()) > 0.0
    if settings in COVARIANCE.values():
        assert plan(still, settings, 5).reading.num_selected == 0


@every_covariance_control
def test_equal_covariances_choose_nothing_and_say_so(settings: Settings) -> None:
    for dtype in (torch.float32, torch.float64):
        batch = optimizer_batch(6, dtype=dtype)
        for same in (
            replace(batch, advantages=torch.full_like(batch.advantages, 0.1)),
            replace(batch, logprobs=torch.full_like(batch.logprobs, -0.3)),
        ):
            made = plan(same, settings, 5)
            assert not bool(made.chosen.any()) and made.reading.num_selected == 0
            assert "chose none" in made.reading.note
        assert bool(plan(batch, settings, 5).chosen.any())


def test_equal_entropies_remove_nothing_and_say_so() -> None:
    batch = optimizer_batch(6)
    made = plan(replace(batch, entropies=torch.full_like(batch.entropies, 0.3)), TopEntropy(), 5)
    assert not bool(made.chosen.any()) and "chose none" in made.reading.note
    assert torch.equal(made.keeps_gradient, batch.mask)
    assert plan(batch, TopEntropy(), 5).reading.note == ""


@pytest.mark.parametrize("settings", [ClipCov(clip_cov_lb=0.3), KLCov(kl_cov_ratio=2e-4)])
def test_a_share_of_less_than_one_token_is_the_plain_surrogate(settings: ClipCov | KLCov) -> None:
    batch = optimizer_batch(7)
    made = plan(batch, settings, 5)
    assert not bool(made.chosen.any()) and made.reading.num_selected == 0
    assert "less than one token" in made.reading.note
    plain = plan(batch, PPOClip(clip_ratio_low=1.0, clip_ratio_high=1.0), 0)
    if settings.type == "kl_cov":
        plain = replace(plain, clip_low=None, clip_high=None)
    assert torch.equal(gradient(batch, made), gradient(batch, plain))
    larger = settings.model_copy(update={f"{settings.type}_ratio": 0.02})
    assert not torch.equal(gradient(batch, plan(batch, larger, 5)), gradient(batch, plain))


@pytest.mark.parametrize(
    ("nothing", "something"),
    [
        (TopEntropy(top_entropy_quantile=1.0), TopEntropy(top_entropy_quantile=0.5)),
        (EntropyBonus(entropy_coef=0.0), EntropyBonus(entropy_coef=0.1)),
        (TruncatedImportance(rollout_is_threshold=2.0), TruncatedImportance(rollout_is_threshold=0.5)),
    ],
    ids=lambda settings: settings.type,
)
def test_a_control_of_strength_0_is_the_plain_surrogate(nothing: AnyControl, something: AnyControl) -> None:
    batch = optimizer_batch(9)
    batch = replace(batch, sampler_logprobs=batch.old_logprobs)
    plain = gradient(batch, plan(batch, PPOClip(), 0))
    assert torch.equal(gradient(batch, plan(batch, nothing, 0)), plain)
    assert not torch.equal(gradient(batch, plan(batch, something, 0)), plain)


@every_control_and_released
@every_loss
def test_junk_behind_the_mask_changes_nothing(settings: Settings, loss: str) -> None:
    batch = optimizer_batch(8)
    hidden = ~batch.mask
    wanted = plan(batch, settings, 5)
    truths = {mode: gradient(batch, wanted, loss=loss, mode=mode) for mode in AGGREGATIONS}
    for junk in (float("nan"), float("inf"), -1e30, 0.0):
        dirty = replace(batch, **{name: getattr(batch, name).masked_fill(hidden, junk) for name in VALUES})
        made = plan(dirty, settings, 5)
        assert torch.equal(made.chosen, wanted.chosen) and made.reading == wanted.reading
        for mode, truth in truths.items():
            assert masked_equal(gradient(dirty, made, loss=loss, mode=mode), truth, batch.mask)
    seen = replace(batch, **{name: getattr(batch, name).flip(0).nan_to_num(-1.0) for name in VALUES})
    assert not torch.equal(gradient(seen, plan(seen, settings, 5), loss=loss), truths["token-mean"])
