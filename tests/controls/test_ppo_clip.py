"""The plain surrogate's plan: nothing chosen, everything kept, the ranges of the settings."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from covent.controls import PPOClip, ppo_clip
from covent.core.loss import surrogate
from tests.support.batches import optimizer_batch


def test_nothing_is_chosen_and_the_ranges_are_the_settings() -> None:
    batch = optimizer_batch(0, drift=0.6)
    plan = ppo_clip(batch, PPOClip(clip_ratio_high=0.28), key=0)
    assert not bool(plan.chosen.any()) and torch.equal(plan.keeps_gradient, batch.mask)
    assert (plan.clip_low, plan.clip_high) == (0.2, 0.28)
    assert plan.reading.asked_frac is None and plan.reading.num_candidates is None
    assert plan.reading.num_tokens == batch.num_tokens


def test_clip_higher_cuts_fewer_tokens_at_the_high_side_only() -> None:
    batch = optimizer_batch(1, drift=0.6)

    def cuts(settings: PPOClip) -> tuple[int, int]:
        plan = ppo_clip(batch, settings, key=0)
        terms = surrogate(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, plan)
        return int(terms.cut_low.sum()), int(terms.cut_high.sum())

    (low, high), (low_again, fewer) = cuts(PPOClip()), cuts(PPOClip(clip_ratio_high=0.6))
    assert low == low_again > 0
    assert high > fewer > 0


@pytest.mark.parametrize("wrong", [{"clip_ratio_low": 20}, {"clip_ratio_low": 0}, {"clip_ratio": 0.2}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PPOClip(**wrong)
