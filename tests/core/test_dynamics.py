"""Lemma 1 and Theorems 1 and 2, both sides evaluated: the difference must shrink with the square of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from covent.core.dynamics import entropy_change_from_logits, entropy_of_logits, predicted_entropy_changes
from covent.core.entropy import logprob_and_entropy
from covent.rollout.batch import Responses, response_logits
from covent.rollout.sampler import sample
from covent.train.probes import Probes
from tests.support.small_model import fresh_model
from tests.support.tolerances import SLOPE, TIGHT

STEPS = [1e-2, 1e-3, 1e-4, 1e-5]
# A network's logits move by many times the step size.
NETWORK_STEPS = [1e-3, 1e-4, 1e-5, 1e-6]
Change = Callable[[Tensor, Tensor], Tensor]


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_entropy(logits: list[float]) -> float:
    total = math.fsum(math.exp(z) for z in logits)
    return -math.fsum(math.exp(z) / total * math.log(math.exp(z) / total) for z in logits)


def order(steps: list[float], errors: list[float]) -> float:
    """The power of the step size with which the error shrinks: the slope of log error against log step."""
    assert max(steps) / min(steps) >= 999, "three decades"
    return float(np.polyfit(np.log(steps), np.log(errors), 1)[0])


def wrong_sign(before: Tensor, after: Tensor) -> Tensor:
    return -entropy_change_from_logits(before, after)


def without_centre(before: Tensor, after: Tensor) -> Tensor:
    """E[log pi dz] in place of Cov(log pi, dz)."""
    log_p = before.log_softmax(dim=-1)
    return -(log_p.exp() * log_p * (after - before)).sum(dim=-1)


def over_all_entries(before: Tensor, after: Tensor) -> Tensor:
    """A covariance over the vocabulary in place of one under the policy."""
    log_p, change = before.log_softmax(dim=-1), after - before
    return -((log_p - log_p.mean(-1, keepdim=True)) * (change - change.mean(-1, keepdim=True))).mean(-1)


def test_entropy_by_a_plain_loop() -> None:
    logits = 2 * random_tensor(0, 5, 9)
    assert entropy_of_logits(logits).tolist() == pytest.approx([plain_entropy(z) for z in logits.tolist()], abs=TIGHT)
    in_bits = (entropy_of_logits(logits) / math.log(2)).tolist()
    assert in_bits != pytest.approx([plain_entropy(z) for z in logits.tolist()], abs=TIGHT)


@pytest.mark.parametrize("peak", [0.0, 12.0, 24.0])
def test_entropy_of_float32_logits_over_a_real_vocabulary(peak: float) -> None:
    logits = torch.randn(2, 151_936, generator=torch.Generator().manual_seed(0))
    logits[:, 7] = peak
    truth = entropy_of_logits(logits.double())
    assert entropy_of_logits(logits).dtype == torch.float32
    assert torch.allclose(entropy_of_logits(logits).double(), truth, rtol=1e-6, atol=0)
    logp = logits.log_softmax(-1)
    assert peak < 24 or not torch.allclose(-(logp.exp() * logp).sum(-1).double(), truth, rtol=1e-6, atol=0)


def test_lemma_1_is_the_directional_derivative_of_the_entropy() -> None:
    before, direction = 2 * random_tensor(1, 6, 30), random_tensor(2, 6, 30)
    leaf = before.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(entropy_of_logits(leaf).sum(), leaf)
    derivative = (gradient * direction).sum(dim=-1)
    found = entropy_change_from_logits(before, before + direction)
    assert found.tolist() == pytest.approx(derivative.tolist(), abs=TIGHT)
    for wrong in (wrong_sign, without_centre, over_all_entries):
        assert wrong(before, before + direction).tolist() != pytest.approx(derivative.tolist(), abs=TIGHT)


def test_a_constant_added_to_all_logits_changes_nothing() -> None:
    before, change = 2 * random_tensor(3, 4, 20), random_tensor(4, 4, 20)
    moved = entropy_change_from_logits(before + 3.0, before + change - 5.0)
    assert moved.tolist() == pytest.approx(entropy_change_from_logits(before, before + change).tolist(), abs=TIGHT)
    truth = without_centre(before, before + change).tolist()
    assert without_centre(before + 3.0, before + change - 5.0).tolist() != pytest.approx(truth, abs=TIGHT)


@pytest.mark.parametrize("num_entries", [2, 50])
def test_lemma_1_on_random_logits_is_of_second_order(num_entries: int) -> None:
    before, direction = 2 * random_tensor(5, 20, num_entries), random_tensor(6, 20, num_entries)
    truth = {step: entropy_of_logits(before + step * direction) - entropy_of_logits(before) for step in STEPS}

    def shrinks_with(change: Change) -> float:
        return order(STEPS, [float((change(before, before + s * direction) - truth[s]).abs().mean()) for s in STEPS])

    assert shrinks_with(entropy_change_from_logits) == pytest.approx(2, abs=SLOPE)
    for wrong in (wrong_sign, without_centre):
        assert shrinks_with(wrong) == pytest.approx(1, abs=SLOPE)


@cache
def gradient_step() -> tuple[Responses, Tensor, dict[float, Tensor]]:
    """Probe states of a small Qwen2 and their logits before and after one plain gradient step of each size."""
    model = fresh_model(seed=3)
    states = sample(
        model.network,
        [model.encode_prompt("Q 1 + 2 A"), model.encode_prompt("Q 7 * 3 - 2 A")],
        groups=[0, 1],
        num_samples=4,
        max_tokens=6,
        end_id=model.end_id,
        pad_id=model.pad_id,
        key=11,
    )
    advantages = random_tensor(7, 8, 1)
    logits = response_logits(model.network, states)
    logprobs, _ = logprob_and_entropy(logits, states.response_ids)
    (-(logprobs * advantages)[states.mask].mean()).backward()
    start = {name: parameter.detach().clone() for name, parameter in model.network.named_parameters()}
    after = {}
    with torch.no_grad():
        for step in NETWORK_STEPS:
            for name, parameter in model.network.named_parameters():
                parameter.copy_(start[name] - step * parameter.grad)
            after[step] = response_logits(model.network, states)[states.mask]
    return states, logits.detach()[states.mask], after


def test_lemma_1_on_a_network_is_of_second_order() -> None:
    _, before, after = gradient_step()
    entropy = entropy_of_logits(before)

    def shrinks_with(change: Change) -> float:
        errors = [
            float((change(before, after[s]) - (entropy_of_logits(after[s]) - entropy)).mean().abs())
            for s in NETWORK_STEPS
        ]
        return order(NETWORK_STEPS, errors)

    assert shrinks_with(entropy_change_from_logits) == pytest.approx(2, abs=SLOPE)
    for wrong in (wrong_sign, without_centre):
        assert shrinks_with(wrong) == pytest.approx(1, abs=SLOPE)


def test_the_probes_read_both_numbers_of_a_real_step() -> None:
    states, before, after = gradient_step()
    model = fresh_model(seed=3)
    probes = Probes(model, states)
    logprobs, _ = logprob_and_entropy(response_logits(model.network, states), states.response_ids)
    (-(logprobs * random_tensor(7, 8, 1))[states.mask].mean()).backward()
    reading = probes.change(torch.optim.SGD(model.network.parameters(), lr=NETWORK_STEPS[1]).step, (0.1, 0.2))
    changes = [plain_entropy(z) for z in after[NETWORK_STEPS[1]].tolist()], [plain_entropy(z) for z in before.tolist()]
    observed = sum(changes[0]) / len(before) - sum(changes[1]) / len(before)
    assert reading.num_states == int(states.mask.sum())
    assert reading.entropy_before == pytest.approx(sum(changes[1]) / len(before), abs=TIGHT)
    assert reading.observed == pytest.approx(observed, abs=TIGHT)
    assert reading.accounted == pytest.approx(reading.observed, rel=0.2)
    assert reading.accounted != reading.observed
    assert (reading.predicted_theorem1, reading.predicted_theorem2) == (0.1, 0.2)


def tabular_policy(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A policy with probabilities of whole 64ths, advantages centred under it, and each action as often as it says.

    With every action repeated in proportion to its probability, a mean over the batch *is* the expectation.
    """
    counts = torch.tensor([1, 1, 2, 4, 6, 10, 16, 24])
    p = counts.double() / 64
    rewards = random_tensor(seed, 8)
    return p, rewards - (p * rewards).sum(), torch.arange(8).repeat_interleave(counts)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_theorems_1_and_2_on_a_softmax_bandit_are_of_second_order(seed: int) -> None:
    p, advantages, actions = tabular_policy(seed)
    logits = p.log()[None]

    def observed(direction: Tensor, step: float) -> float:
        return float(entropy_of_logits(logits + step * direction) - entropy_of_logits(logits))

    def predicted(step: float) -> tuple[float, float]:
        mask = torch.ones(1, 64, dtype=torch.bool)
        return predicted_entropy_changes(p.log()[actions][None], advantages[actions][None], mask, step_size=step)

    # The exact gradient of the expected reward is p A (Theorem 1); Fisher's inverse turns it into A (Theorem 2).
    truth = [lambda s: observed(p * advantages, s), lambda s: observed(advantages, s)]
    for theorem in (0, 1):
        own = [abs(predicted(s)[theorem] - truth[theorem](s)) for s in STEPS]
        others = [abs(predicted(s)[1 - theorem] - truth[theorem](s)) for s in STEPS]
        assert order(STEPS, own) == pytest.approx(2, abs=SLOPE)
        assert order(STEPS, others) == pytest.approx(1, abs=SLOPE)


def test_states_without_gradient_count_in_the_mean() -> None:
    """One of two states has equal rewards, so it stays as it is: the mean over both moves by half."""
    p, advantages, actions = tabular_policy(0)
    logits = p.log().expand(2, 8)
    mask = torch.ones(1, 64, dtype=torch.bool)
    for theorem, direction in enumerate((p * advantages, advantages)):
        moves = torch.stack([direction, torch.zeros_like(direction)])

        def error(step: float, coverage: float, theorem: int = theorem, moves: Tensor = moves) -> float:
            observed = (entropy_of_logits(logits + step * moves) - entropy_of_logits(logits)).mean()
            given = p.log()[actions][None], advantages[actions][None], mask
            predicted = predicted_entropy_changes(*given, step_size=step, coverage=coverage)
            return abs(predicted[theorem] - float(observed))

        assert order(STEPS, [error(step, 0.5) for step in STEPS]) == pytest.approx(2, abs=SLOPE)
        assert order(STEPS, [error(step, 1.0) for step in STEPS]) == pytest.approx(1, abs=SLOPE)


def test_the_expected_gradient_is_what_theorem_1_assumes() -> None:
    """d/dz of sum p A at fixed A, by automatic differentiation, is p A for centred advantages."""
    p, advantages, _ = tabular_policy(0)
    logits = p.log().requires_grad_()
    (gradient,) = torch.autograd.grad((logits.softmax(dim=-1) * advantages).sum(), logits)
    assert gradient.tolist() == pytest.approx((p * advantages).tolist(), abs=TIGHT)
    fisher = torch.diag(p) - torch.outer(p, p)
    natural = torch.linalg.lstsq(fisher, gradient, driver="gelsd").solution
    difference = advantages - natural
    assert (difference - difference.mean()).abs().max() <= TIGHT, "equal up to a constant, which softmax ignores"


def test_predictions_scale_with_the_step_and_ignore_padding() -> None:
    p, advantages, actions = tabular_policy(1)
    logprobs, values = p.log()[actions][None], advantages[actions][None]
    mask = torch.ones(1, 64, dtype=torch.bool)
    once = predicted_entropy_changes(logprobs, values, mask, step_size=0.1)
    twice = predicted_entropy_changes(logprobs, values, mask, step_size=0.2)
    assert twice == pytest.approx([2 * change for change in once], abs=TIGHT)
    pad = torch.full((1, 9), math.nan, dtype=torch.float64)
    longer = predicted_entropy_changes(
        torch.cat([logprobs, pad], 1), torch.cat([values, pad], 1), torch.cat([mask, pad > 0], 1), step_size=0.1
    )
    assert longer == pytest.approx(once, abs=TIGHT)
    assert once[0] != pytest.approx(once[1], abs=TIGHT)
