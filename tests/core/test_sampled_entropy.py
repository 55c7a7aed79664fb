"""Sampled entropies: their expectation and gradient by enumeration, their standard error by repetition."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean

import pytest
import torch
from torch import Tensor

from covent.core.entropy import logprob_and_entropy
from covent.core.reduce import Estimate
from covent.core.sampled_entropy import importance_sampled_entropy, sampled_entropy, self_normalised_entropy
from covent.errors import EmptyMaskError
from tests.support.batches import optimizer_batch, padded, tokens
from tests.support.tolerances import STANDARD_ERRORS, TIGHT

NUM_ACTIONS = 6
LOGITS, SAMPLER = torch.randn(2, NUM_ACTIONS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ENTROPY = float(logprob_and_entropy(LOGITS, torch.tensor(0))[1])


def enumerated(estimator: Callable[..., Estimate], sampler: Tensor, logits: Tensor) -> Tensor:
    """Expectation over all pairs of tokens that the sampler can draw in two responses of one token each."""
    log_p, log_mu = logits.log_softmax(-1), sampler.log_softmax(-1)
    mask = torch.ones(2, 1, dtype=torch.bool)
    total = torch.zeros((), dtype=torch.float64)
    for first in range(NUM_ACTIONS):
        for second in range(NUM_ACTIONS):
            pair = torch.tensor([[first], [second]])
            given = (log_p[pair],) if estimator is sampled_entropy else (log_p[pair], log_mu[pair])
            weight = (log_mu[first] + log_mu[second]).exp().detach()
            total = total + weight * estimator(*given, mask).value
    return total


def test_values_in_expectation() -> None:
    assert float(enumerated(sampled_entropy, LOGITS, LOGITS)) == pytest.approx(ENTROPY, abs=TIGHT)
    assert float(enumerated(sampled_entropy, SAMPLER, LOGITS)) != pytest.approx(ENTROPY, rel=0.01)
    assert float(enumerated(importance_sampled_entropy, SAMPLER, LOGITS)) == pytest.approx(ENTROPY, abs=TIGHT)
    assert float(enumerated(importance_sampled_entropy, LOGITS, SAMPLER)) != pytest.approx(ENTROPY, rel=0.01)
    assert float(enumerated(self_normalised_entropy, LOGITS, LOGITS)) == pytest.approx(ENTROPY, abs=TIGHT)
    assert float(enumerated(self_normalised_entropy, SAMPLER, LOGITS)) != pytest.approx(ENTROPY, rel=0.001)


def test_the_gradient_in_expectation_is_the_entropys() -> None:
    leaf = LOGITS.clone().requires_grad_()
    (truth,) = torch.autograd.grad(logprob_and_entropy(leaf, torch.tensor(0))[1], leaf)
    for sampler in (SAMPLER, LOGITS):
        (found,) = torch.autograd.grad(enumerated(importance_sampled_entropy, sampler, leaf), leaf)
        assert found.tolist() == pytest.approx(truth.tolist(), abs=TIGHT)
    # What a gradient of the plain mean would be: nothing, which is why it has none.
    log_p = leaf.log_softmax(-1)
    (plain,) = torch.autograd.grad((log_p.detach().exp() * -log_p).sum(), leaf)
    assert plain.tolist() == pytest.approx([0.0] * NUM_ACTIONS, abs=TIGHT)
    assert truth.tolist() != pytest.approx([0.0] * NUM_ACTIONS, abs=0.01)
    assert not sampled_entropy(log_p[None], torch.ones(1, NUM_ACTIONS, dtype=torch.bool)).value.requires_grad


def test_only_the_policy_of_the_weighted_mean_gets_a_gradient() -> None:
    batch = optimizer_batch(2)
    policy, sampler = batch.logprobs.clone().requires_grad_(), batch.old_logprobs.clone().requires_grad_()
    assert importance_sampled_entropy(policy, batch.old_logprobs, batch.mask).value.requires_grad
    assert not importance_sampled_entropy(batch.logprobs, sampler, batch.mask).value.requires_grad
    assert not self_normalised_entropy(policy, batch.old_logprobs, batch.mask).value.requires_grad
    assert not self_normalised_entropy(batch.logprobs, sampler, batch.mask).value.requires_grad


def test_values_by_plain_loops_and_padding() -> None:
    batch = optimizer_batch(0)
    kept = [(float(batch.logprobs[place]), float(batch.old_logprobs[place])) for place in tokens(batch)]
    weights = [math.exp(new - old) for new, old in kept]
    weighted = [-new * w for (new, _), w in zip(kept, weights, strict=True)]
    more = padded(batch, 3)
    given = more.logprobs, more.old_logprobs, more.mask
    plain = -fmean(new for new, _ in kept)
    assert float(sampled_entropy(more.logprobs, more.mask).value) == pytest.approx(plain, abs=TIGHT)
    assert float(importance_sampled_entropy(*given).value) == pytest.approx(fmean(weighted), abs=TIGHT)
    normalised = math.fsum(weighted) / math.fsum(weights)
    assert float(self_normalised_entropy(*given).value) == pytest.approx(normalised, abs=TIGHT)
    assert normalised != pytest.approx(fmean(weighted), rel=0.001)
    with pytest.raises(EmptyMaskError):
        sampled_entropy(batch.logprobs, torch.zeros_like(batch.mask))


def test_nothing_flows_from_behind_the_mask() -> None:
    batch = optimizer_batch(1)
    logprobs = batch.logprobs.clone().requires_grad_()
    importance_sampled_entropy(logprobs, batch.old_logprobs, batch.mask).value.backward()
    assert bool((logprobs.grad[~batch.mask] == 0).all())
    assert bool(logprobs.grad.isfinite().all())


@pytest.mark.parametrize("estimator", [sampled_entropy, importance_sampled_entropy, self_normalised_entropy])
def test_the_truth_lies_within_the_standard_error(estimator: Callable[..., Estimate]) -> None:
    generator = torch.Generator().manual_seed(2)
    policy = LOGITS if estimator is sampled_entropy else SAMPLER
    drawn = torch.multinomial(policy.softmax(-1), 300 * 400, replacement=True, generator=generator).view(300, 40, 10)
    log_p, log_mu = LOGITS.log_softmax(-1), policy.log_softmax(-1)
    mask = torch.ones(40, 10, dtype=torch.bool)
    scores = []
    for tokens_drawn in drawn:
        given = (log_p[tokens_drawn],) if estimator is sampled_entropy else (log_p[tokens_drawn], log_mu[tokens_drawn])
        found = estimator(*given, mask)
        scores.append((float(found.value) - ENTROPY) / float(found.standard_error))
    spread = torch.tensor(scores).std()
    assert abs(fmean(scores)) <= STANDARD_ERRORS * 1.1 / math.sqrt(300)
    # A t statistic over 40 clusters spreads by 1.03; the spread of 300 of them is known to 4 %.
    assert float(spread) == pytest.approx(1.03, rel=STANDARD_ERRORS / math.sqrt(2 * 300))


def test_responses_of_one_prompt_as_a_cluster() -> None:
    batch = optimizer_batch(3)
    prompts = batch.identity.prompt[:, 0]
    by_response = sampled_entropy(batch.logprobs, batch.mask)
    by_prompt = sampled_entropy(batch.logprobs, batch.mask, clusters=prompts)
    assert float(by_response.value) == float(by_prompt.value)
    assert float(by_response.standard_error) != pytest.approx(float(by_prompt.standard_error), rel=0.01)
    one = sampled_entropy(batch.logprobs[:1], batch.mask[:1])
    assert math.isnan(float(one.standard_error))
