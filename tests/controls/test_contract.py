"""One contract for every control: what it may not depend on, what must be inert, and what the same key gives."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.controls import ClipCov, KLCov, PPOClip, plan
from covent.core.loss import surrogate
from covent.core.plan import Measured, Plan
from tests.support.batches import masked_equal, named, optimizer_batch, padded, reordered, splits

Settings = PPOClip | ClipCov | KLCov
CONTROLS = [
    pytest.param(PPOClip(), id="ppo_clip"),
    pytest.param(ClipCov(clip_cov_ratio=0.02, clip_cov_lb=0.3), id="clip_cov"),
    pytest.param(KLCov(kl_cov_ratio=0.05), id="kl_cov"),
]
SELECTING = CONTROLS[1:]
every_control = pytest.mark.parametrize("settings", CONTROLS)
every_selection = pytest.mark.parametrize("settings", SELECTING)


def gradient(batch: Measured, made: Plan) -> Tensor:
    logprobs = batch.logprobs.clone().requires_grad_()
    terms = surrogate(logprobs, batch.old_logprobs, batch.advantages, batch.mask, made)
    ((terms.policy + terms.kl).sum() / batch.num_tokens).backward()
    return logprobs.grad


@every_control
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_order_of_rows_does_not_matter(settings: Settings, dtype: torch.dtype) -> None:
    batch = optimizer_batch(0, dtype=dtype)
    whole = plan(batch, settings, 5)
    for seed in range(5):
        order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
        moved = plan(reordered(batch, order), settings, 5)
        assert moved.reading == whole.reading
        for name in ("chosen", "keeps_gradient", "kl_weight"):
            assert torch.equal(getattr(moved, name), getattr(whole, name)[order])
        assert settings.type == "ppo_clip" or not torch.equal(moved.chosen, whole.chosen)


@every_control
def test_padding_does_not_matter(settings: Settings) -> None:
    batch = optimizer_batch(1)
    whole, longer = plan(batch, settings, 5), plan(padded(batch, 7), settings, 5)
    assert longer.reading == whole.reading
    assert torch.equal(longer.chosen[:, :-7], whole.chosen) and not bool(longer.chosen[:, -7:].any())
    assert torch.equal(gradient(padded(batch, 7), longer)[:, :-7], gradient(batch, whole))


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


@every_control
def test_micro_batches_give_the_same_gradient(settings: Settings) -> None:
    batch = optimizer_batch(3)
    made = plan(batch, settings, 5)
    whole = gradient(batch, made)
    parts = []
    for rows in splits(len(batch.mask), 1, 12, 30):
        part = reordered(batch, rows)
        parts.append(gradient(part, made.rows(rows)) * (part.num_tokens / batch.num_tokens))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=0)
    own_count = torch.cat([gradient(reordered(batch, r), made.rows(r)) for r in splits(len(batch.mask), 1, 12, 30)])
    assert not torch.allclose(own_count, whole)


@every_control
def test_the_same_key_gives_the_same_plan(settings: Settings) -> None:
    batch = optimizer_batch(4)
    first, again, other = (plan(batch, settings, key) for key in (5, 5, 6))
    assert torch.equal(first.chosen, again.chosen) and first.reading == again.reading
    assert torch.equal(first.chosen, other.chosen) == (settings.type != "clip_cov")


@every_control
def test_zero_advantages_have_no_policy_gradient(settings: Settings) -> None:
    batch = optimizer_batch(5)
    still = replace(batch, advantages=torch.zeros_like(batch.advantages))
    made = plan(still, settings, 5)
    assert float(gradient(still, made).abs().max()) == 0.0
    assert made.reading.num_selected == 0
    assert float(gradient(batch, plan(batch, settings, 5)).abs().max()) > 0.0


@every_selection
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


@pytest.mark.parametrize("settings", [ClipCov(clip_cov_lb=0.3), KLCov(kl_cov_ratio=2e-4)])
def test_a_share_of_less_than_one_token_is_the_plain_surrogate(settings: Settings) -> None:
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


@every_control
def test_junk_behind_the_mask_changes_nothing(settings: Settings) -> None:
    batch = optimizer_batch(8)
    hidden = ~batch.mask
    columns = ("logprobs", "old_logprobs", "entropies", "advantages")
    wanted = plan(batch, settings, 5)
    for junk in (float("nan"), float("inf"), -1e30, 0.0):
        dirty = replace(batch, **{name: getattr(batch, name).masked_fill(hidden, junk) for name in columns})
        made = plan(dirty, settings, 5)
        assert torch.equal(made.chosen, wanted.chosen) and made.reading == wanted.reading
        assert masked_equal(gradient(dirty, made), gradient(batch, wanted), torch.ones_like(batch.mask))
    seen = replace(batch, logprobs=torch.where(batch.mask, batch.logprobs.flip(0).nan_to_num(-1.0), 0.0))
    assert settings.type == "ppo_clip" or not torch.equal(plan(seen, settings, 5).chosen, wanted.chosen)
