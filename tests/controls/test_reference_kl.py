"""The reference KL and the truncated importance weights against plain loops, and what they need of a batch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from covent.controls import ReferenceKL, TruncatedImportance, plan, reference_kl, truncated_importance
from covent.core.loss import surrogate
from covent.core.penalties import PenaltyInputs
from covent.errors import ConfigError
from tests.support.batches import masked_equal, optimizer_batch, tokens
from tests.support.tolerances import TIGHT


def test_every_token_has_the_same_weight() -> None:
    batch = optimizer_batch(0)
    made = plan(batch, ReferenceKL(kl_loss_coef=0.3, kl_loss_type="k2"), 0)
    logprobs = batch.logprobs.clone().requires_grad_()
    inputs = PenaltyInputs(reference_logprobs=batch.reference_logprobs)
    terms = surrogate(logprobs, batch.old_logprobs, batch.advantages, batch.mask, made, inputs)
    terms.reference_kl.sum().backward()
    assert logprobs.grad is not None
    for place in tokens(batch):
        gap = float(batch.logprobs[place]) - float(batch.reference_logprobs[place])
        assert float(terms.reference_kl[place].detach()) == pytest.approx(0.3 * gap * gap / 2, abs=TIGHT)
        assert float(logprobs.grad[place]) == pytest.approx(0.3 * gap, abs=TIGHT)
    assert float(logprobs.grad[~batch.mask].abs().sum()) == 0.0
    backwards = terms.reference_kl.detach() * 0 - 1
    assert not masked_equal(backwards, terms.reference_kl.detach(), batch.mask)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_are_truncated_ratios_of_learner_and_sampler(level: str) -> None:
    batch = optimizer_batch(1)
    made = plan(batch, TruncatedImportance(rollout_is=level, rollout_is_threshold=1.3), 0)
    assert made.factor is not None
    gaps = {p: float(batch.old_logprobs[p]) - float(batch.sampler_logprobs[p]) for p in tokens(batch)}
    for place in tokens(batch):
        row = [gap for (r, _), gap in gaps.items() if r == place[0]]
        exponent = gaps[place] if level == "token" else math.fsum(row)
        assert float(made.factor[place]) == pytest.approx(min(math.exp(exponent), 1.3), abs=TIGHT)
    assert "truncated" in made.reading.note
    other = plan(batch, TruncatedImportance(rollout_is_threshold=1.3), 0).factor
    assert masked_equal(made.factor, other, batch.mask) == (level == "token")
    open_wide = plan(batch, TruncatedImportance(rollout_is=level, rollout_is_threshold=1e9), 0)
    assert "truncated" not in open_wide.reading.note


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_log_probs_of_minus_infinity(level: str) -> None:
    """In both they agree, and there is nothing to correct; in the sampler's alone the weight is cut; else it is 0."""
    batch = optimizer_batch(1)
    nothing = torch.full_like(batch.old_logprobs, -math.inf)
    first = torch.zeros_like(batch.mask)
    first[:, 0] = True
    settings = TruncatedImportance(rollout_is=level, rollout_is_threshold=1.3)

    def weights(old: Tensor, sampler: Tensor) -> Tensor:
        factor = plan(replace(batch, old_logprobs=old, sampler_logprobs=sampler), settings, 0).factor
        assert factor is not None
        return factor[:, 0]

    without_old = torch.where(first, nothing, batch.old_logprobs)
    without_sampler = torch.where(first, nothing, batch.sampler_logprobs)
    agreeing = torch.where(first, batch.old_logprobs, batch.sampler_logprobs)
    assert torch.equal(weights(without_old, without_sampler), weights(batch.old_logprobs, agreeing))
    assert set(weights(batch.old_logprobs, without_sampler).tolist()) == {1.3}
    assert set(weights(without_old, batch.sampler_logprobs).tolist()) == {0.0}
    assert bool((nothing - nothing).isnan().all()), "the plain difference"


def test_what_a_batch_lacks_is_said() -> None:
    batch = replace(optimizer_batch(2), sampler_logprobs=None, reference_logprobs=None)
    with pytest.raises(ConfigError, match="reference_logprobs"):
        reference_kl(batch, ReferenceKL(), 0)
    with pytest.raises(ConfigError, match="sampler_logprobs"):
        truncated_importance(batch, TruncatedImportance(), 0)


def test_matching_engines_need_no_weight() -> None:
    batch = optimizer_batch(3)
    same = truncated_importance(replace(batch, sampler_logprobs=batch.old_logprobs), TruncatedImportance(), 0)
    assert same.factor is not None
    assert torch.equal(same.factor[batch.mask], torch.ones_like(same.factor[batch.mask]))
