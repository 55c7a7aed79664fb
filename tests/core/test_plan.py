"""What a batch and a plan say of themselves, and that the noise floor of the log ratio is real but small enough."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from covent.controls import PPOClip, plan
from covent.core.plan import on_policy_noise
from covent.rollout.batch import join, score
from covent.rollout.sampler import sample
from tests.support.batches import optimizer_batch, splits
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
