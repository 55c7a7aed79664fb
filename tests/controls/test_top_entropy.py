"""80/20 masking against the quantile by its definition, ties and ends of the range included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from covent.controls import TopEntropy, top_entropy
from covent.core.plan import Measured
from tests.support.batches import optimizer_batch

QUANTILES = [0.0, 0.01, 0.2, 0.5, 0.8, 0.95, 1.0]


def at_or_above_the_quantile(batch: Measured, share: float) -> Tensor:
    """TRL's rule: H >= torch.quantile(H of all tokens, 1 - share)."""
    threshold = torch.quantile(batch.entropies[batch.mask], 1 - share)
    return (batch.entropies >= threshold) & batch.mask


@pytest.mark.parametrize("share", QUANTILES)
@pytest.mark.parametrize("seed", range(4))
def test_the_kept_tokens_are_trls(share: float, seed: int) -> None:
    batch = optimizer_batch(seed, num_prompts=3 + seed)
    plan = top_entropy(batch, TopEntropy(top_entropy_quantile=share), key=0)
    kept = at_or_above_the_quantile(batch, share)
    assert torch.equal(plan.keeps_gradient, kept)
    assert torch.equal(plan.chosen, batch.mask & ~kept)
    assert plan.reading.num_selected == int((batch.mask & ~kept).sum())
    other = at_or_above_the_quantile(batch, 0.9 - 0.7 * share)
    assert not torch.equal(plan.keeps_gradient, other)


def test_the_share_is_the_decimal_that_was_written() -> None:
    """0.3 of 11 tokens: the 0.7 quantile is the entropy of rank 7 itself, although 0.3 is less than 3/10 in binary."""
    batch = optimizer_batch(0)
    places = batch.mask.flatten().nonzero().flatten()[:11]
    eleven = replace(batch, mask=torch.zeros_like(batch.mask.flatten()).index_fill(0, places, True).view_as(batch.mask))
    ranked = sorted(places.tolist(), key=lambda place: float(batch.entropies.flatten()[place]))
    kept = top_entropy(eleven, TopEntropy(top_entropy_quantile=0.3), key=0).keeps_gradient
    assert set(kept.flatten().nonzero().flatten().tolist()) == set(ranked[7:])
    less = top_entropy(eleven, TopEntropy(top_entropy_quantile=0.3 - 1e-9), key=0).keeps_gradient
    assert set(less.flatten().nonzero().flatten().tolist()) == set(ranked[8:])


def test_ties_at_the_quantile_all_keep_their_gradient() -> None:
    batch = optimizer_batch(0)
    levels = replace(batch, entropies=(batch.entropies * 3).floor() / 3)
    kept = top_entropy(levels, TopEntropy(top_entropy_quantile=0.2), key=0).keeps_gradient
    assert torch.equal(kept, at_or_above_the_quantile(levels, 0.2))
    assert int(kept.sum()) > 0.25 * batch.num_tokens
    noise = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shaken = replace(levels, entropies=levels.entropies * (1 + 1e-7 * noise))
    assert torch.equal(top_entropy(shaken, TopEntropy(top_entropy_quantile=0.2), key=0).keeps_gradient, kept)
    assert not torch.equal(at_or_above_the_quantile(shaken, 0.2), kept)


def test_a_nearly_certain_policy_still_has_a_top() -> None:
    """Entropies far below the largest are told apart: the tie is relative to the entropy itself."""
    batch = optimizer_batch(1)
    tiny = replace(batch, entropies=torch.where(batch.entropies > 0.9, batch.entropies, batch.entropies * 1e-9))
    kept = top_entropy(tiny, TopEntropy(top_entropy_quantile=0.5), key=0).keeps_gradient
    assert torch.equal(kept, at_or_above_the_quantile(tiny, 0.5))
    assert int(kept.sum()) < 0.51 * batch.num_tokens + 1


def test_a_batch_without_tokens_says_nothing_of_ties() -> None:
    batch = optimizer_batch(2)
    empty = top_entropy(replace(batch, mask=torch.zeros_like(batch.mask)), TopEntropy(), key=0)
    assert (empty.reading.num_selected, empty.reading.note) == (0, "")
    level = replace(batch, entropies=torch.ones_like(batch.entropies))
    assert "tie with all others" in top_entropy(level, TopEntropy(), key=0).reading.note


def test_the_clip_is_left_to_others() -> None:
    plan = top_entropy(optimizer_batch(2), TopEntropy(), key=0)
    assert not plan.sets_clip and plan.kl_form is None and plan.entropy_weight is None
    assert plan.reading.asked_frac == pytest.approx(0.8)


@pytest.mark.parametrize("wrong", [20, -0.1, 1.1])
def test_settings_out_of_range_are_refused(wrong: float) -> None:
    with pytest.raises(ValidationError):
        TopEntropy(top_entropy_quantile=wrong)
