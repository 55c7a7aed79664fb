"""What a batch and a plan say of themselves, and that the noise floor of the log ratio is real but small enough."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from covent.controls import (
    AnyControl,
    ClipCov,
    EntropyBonus,
    KLCov,
    KLCovReleased,
    PPOClip,
    ReferenceKL,
    TopEntropy,
    TruncatedImportance,
    plan,
)
from covent.core.plan import compose, on_policy_noise
from covent.errors import ConfigError, PrecisionError
from covent.rollout.batch import join, score
from covent.rollout.sampler import sample
from tests.support.batches import VALUES, masked_equal, optimizer_batch, splits
from tests.support.small_model import shared_model


def test_the_count_is_of_tokens_that_carry_gradient() -> None:
    batch = optimizer_batch(0)
    assert batch.num_tokens == sum(sum(row) for row in batch.mask.tolist())
    assert batch.num_tokens != batch.mask.numel()


def test_rows_of_a_plan_are_the_plan_of_rows() -> None:
    batch = optimizer_batch(1)
    whole = plan(batch, PPOClip(), 0)
    whole = replace(whole, kl_weight=torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(0)))
    parts = [whole.rows(rows) for rows in splits(len(batch.mask), 7, 20)]
    for name in ("chosen", "keeps_gradient", "kl_weight"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert all((part.clip_low, part.clip_high, part.reading) == (0.2, 0.2, whole.reading) for part in parts)
    assert not torch.equal(whole.rows(slice(0, 7)).kl_weight, whole.rows(slice(7, 14)).kl_weight)


def test_masks_join_and_factors_multiply() -> None:
    batch = optimizer_batch(4)
    clip_cov, top = ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2), TopEntropy(top_entropy_quantile=0.5)
    weights, bonus = TruncatedImportance(), EntropyBonus(entropy_coef=0.1)
    parts = [plan(batch, control, 0) for control in (clip_cov, top, weights, bonus)]
    together = plan(batch, [clip_cov, top, weights, bonus], 0)
    assert torch.equal(together.keeps_gradient, parts[0].keeps_gradient & parts[1].keeps_gradient)
    assert not torch.equal(together.keeps_gradient, parts[0].keeps_gradient)
    assert torch.equal(together.chosen, parts[0].chosen | parts[1].chosen)
    assert masked_equal(together.factor, parts[2].factor, batch.mask)
    assert torch.equal(together.entropy_weight, parts[3].entropy_weight)
    assert (together.clip_low, together.clip_high) == (1.0, 1.0)
    twice = compose(batch, [parts[2], parts[2]])
    assert masked_equal(twice.factor, parts[2].factor.square(), batch.mask)
    reading = together.reading
    assert reading.name == "clip_cov + top_entropy + truncated_importance + entropy_bonus"
    assert reading.num_selected == int(together.chosen.sum())
    assert reading.asked_frac == pytest.approx(0.05 + 0.5)


def test_the_order_of_controls_does_not_matter() -> None:
    batch = optimizer_batch(5)
    controls = [KLCov(kl_cov_ratio=0.05), TopEntropy(), TruncatedImportance(), ReferenceKL(), EntropyBonus()]
    one, other = plan(batch, controls, 3), plan(batch, controls[::-1], 3)
    for name in ("chosen", "keeps_gradient", "kl_weight", "factor", "reference_weight", "entropy_weight"):
        assert masked_equal(getattr(one, name), getattr(other, name), batch.mask)
    assert (one.clip_low, one.kl_form, one.reference_form) == (other.clip_low, other.kl_form, other.reference_form)


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        ([PPOClip(), ClipCov()], ["'ppo_clip' and 'clip_cov'", "[0.8, 1.2] and [0, 2]"]),
        ([PPOClip(clip_ratio_c=3.0), PPOClip()], ["with dual clip 3"]),
        ([KLCov(), PPOClip()], ["'kl_cov' and 'ppo_clip'", "none and [0.8, 1.2]"]),
        ([KLCov(), KLCovReleased()], ["KL to the policy that sampled"]),
        ([ReferenceKL(), ReferenceKL(kl_loss_type="k2")], ["KL to the reference policy"]),
        ([EntropyBonus(), EntropyBonus()], ["entropy bonus"]),
    ],
)
def test_conflicting_terms_are_refused(controls: list[AnyControl], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(optimizer_batch(6), controls, 0)
    for word in words:
        assert word in str(caught.value)


def test_equal_clips_do_not_conflict() -> None:
    batch = optimizer_batch(6)
    both = plan(batch, [ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2), PPOClip(clip_ratio_low=1, clip_ratio_high=1)], 0)
    assert (both.clip_low, both.clip_high) == (1.0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_covariances_are_equal_up_to_rounding(dtype: torch.dtype) -> None:
    batch = optimizer_batch(2, dtype=dtype)
    assert not batch.covariances_are_equal()
    one_advantage = replace(batch, advantages=torch.full_like(batch.advantages, 0.1))
    assert one_advantage.covariances_are_equal()
    assert replace(batch, logprobs=torch.full_like(batch.logprobs, -0.7)).covariances_are_equal()
    nearly = one_advantage.advantages.clone()
    nearly[0] += 1e-4
    assert not replace(batch, advantages=nearly).covariances_are_equal()


def test_a_shared_level_of_covariance_is_equal_too() -> None:
    """Log-prob and advantage both of two values, always together: every token's covariance is the same, and not 0."""
    batch = optimizer_batch(3)
    sign = torch.where(torch.arange(len(batch.mask)) % 2 == 0, 1.0, -1.0)[:, None].double().expand_as(batch.mask)
    even = torch.ones_like(batch.mask)
    paired = replace(batch, logprobs=sign - 3, advantages=sign, mask=even)
    assert float(paired.covariances().min()) == pytest.approx(1.0)
    assert paired.covariances_are_equal()
    assert not replace(paired, advantages=sign * torch.arange(16)).covariances_are_equal()


def test_the_noise_floor_covers_batches_of_another_shape() -> None:
    """One float32 policy on the same responses with other padding: log-probs differ, but by less than the floor."""
    model = shared_model(dtype=torch.float32)
    parts = [
        sample(
            model.network,
            [model.encode_prompt(prompt)],
            groups=[group],
            num_samples=16,
            max_tokens=12,
            end_id=model.end_id,
            pad_id=model.pad_id,
            key=5,
        )
        for group, prompt in enumerate(["Q 1 + 2 A", "Q 3 * 4 - 5 + 6 A"])
    ]
    together = join(parts)
    with torch.no_grad():
        batched = score(model.network, together)[0][together.mask]
        apart = torch.cat([score(model.network, part)[0][part.mask] for part in parts])
    difference = (batched - apart).abs()
    floor = on_policy_noise(batched)
    assert float(difference.max()) > 0
    assert bool((difference < floor).all())
    assert float(floor.max()) < 1e-3, "a real change of the policy is seen"


def test_the_noise_floor_covers_tokens_that_are_nearly_certain() -> None:
    """log pi near 0 is the log of a sum near 1: it is rounded like 1, not like itself."""
    logits = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 16.0
    one, other = logits.log_softmax(-1)[:, 0], logits.flip(-1).add(7.3).log_softmax(-1)[:, -1]
    difference = (one - other).abs()
    assert float(one.abs().max()) < 1e-3
    assert bool((difference <= on_policy_noise(one)).all())
    of_itself = 64 * torch.finfo(torch.float32).eps * one.abs()
    assert bool((difference > of_itself).any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VALUES)
def test_numbers_below_float32_are_refused(name: str, dtype: torch.dtype) -> None:
    batch = optimizer_batch(0, dtype=torch.float32)
    with pytest.raises(PrecisionError, match=rf"Measured\.{name} is {dtype}; it must be float32".replace("torch.", "")):
        replace(batch, **{name: getattr(batch, name).to(dtype)})
    # Why: the rounding of such a log-prob is far above what float32 explains.
    rounded = batch.logprobs.to(dtype).float()
    assert bool(((rounded - batch.logprobs).abs() > on_policy_noise(batch.logprobs))[batch.mask].any())


def test_joined_shares_are_at_most_all_tokens() -> None:
    """0.8 + 0.5 of the tokens are all of them; 0.4 + 0.5 are not."""
    batch, kl = optimizer_batch(4), KLCov(kl_cov_ratio=0.5)
    assert plan(batch, [TopEntropy(top_entropy_quantile=0.2), kl], 0).reading.asked_frac == 1.0
    less = plan(batch, [TopEntropy(top_entropy_quantile=0.6), kl], 0).reading.asked_frac
    assert less == pytest.approx(0.9)
