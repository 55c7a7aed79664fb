"""Each KL estimator's promise about value and gradient, by enumerating all actions of small policies."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from covent.core.kl import exact_kl, k1, k2, k3
from tests.support.tolerances import FLOAT32, SLOPE, TIGHT

LOGITS, REFERENCE = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain(policy: Tensor, reference: Tensor) -> list[float]:
    found = []
    for z, w in zip(policy.softmax(-1).tolist(), reference.softmax(-1).tolist(), strict=True):
        found.append(math.fsum(p * math.log(p / q) for p, q in zip(z, w, strict=True)))
    return found


def expectation(
    estimator: Callable[..., Tensor], logits: Tensor, reference: Tensor = REFERENCE
) -> tuple[list[float], Tensor]:
    """Mean over all actions under softmax(logits), and the mean of the gradient with the samples held fixed."""
    leaf = logits.clone().requires_grad_()
    log_p = leaf.log_softmax(-1)
    terms = estimator(log_p, reference.log_softmax(-1), torch.ones_like(log_p, dtype=torch.bool))
    mean = (log_p.detach().exp() * terms).sum(-1)
    (gradient,) = torch.autograd.grad(mean.sum(), leaf)
    return mean.detach().tolist(), gradient


def gradient_of(function: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def test_exact_is_the_definition() -> None:
    assert exact_kl(LOGITS, REFERENCE).tolist() == pytest.approx(plain(LOGITS, REFERENCE), abs=TIGHT)
    assert exact_kl(LOGITS, REFERENCE).tolist() != pytest.approx(plain(REFERENCE, LOGITS), abs=TIGHT)
    assert torch.autograd.gradcheck(exact_kl, (LOGITS.clone().requires_grad_(), REFERENCE.clone().requires_grad_()))


def test_values_in_expectation() -> None:
    truth = plain(LOGITS, REFERENCE)
    assert expectation(k1, LOGITS)[0] == pytest.approx(truth, abs=TIGHT)
    assert expectation(k3, LOGITS)[0] == pytest.approx(truth, abs=TIGHT)
    assert expectation(k2, LOGITS)[0] != pytest.approx(truth, rel=0.01)


def test_the_bias_of_k2_is_of_third_order() -> None:
    direction = torch.randn(6, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sizes = torch.logspace(-1, -3, 9, dtype=torch.float64)
    errors = []
    for size in sizes:
        moved = REFERENCE + size * direction
        bias = torch.tensor(expectation(k2, moved)[0]) - exact_kl(moved, REFERENCE)
        errors.append(float(bias.abs().median()))
    logs = sizes.log(), torch.tensor(errors, dtype=torch.float64).log()
    slope = float(torch.cov(torch.stack(logs))[0, 1] / logs[0].var())
    assert slope == pytest.approx(3, abs=SLOPE)
    assert slope != pytest.approx(2, abs=SLOPE)


def test_gradients_in_expectation() -> None:
    forward = gradient_of(lambda z: exact_kl(z, REFERENCE))
    reverse = gradient_of(lambda z: exact_kl(REFERENCE, z))
    of_k1, of_k2, of_k3 = (expectation(estimator, LOGITS)[1] for estimator in (k1, k2, k3))
    assert float(of_k1.abs().max()) <= TIGHT
    assert of_k2.flatten().tolist() == pytest.approx(forward.flatten().tolist(), abs=TIGHT)
    assert of_k3.flatten().tolist() == pytest.approx(reverse.flatten().tolist(), abs=TIGHT)
    assert of_k3.flatten().tolist() != pytest.approx(forward.flatten().tolist(), abs=TIGHT)
    assert float(forward.abs().max()) > 0.01


@pytest.mark.parametrize("estimator", [k1, k2, k3])
def test_nothing_flows_from_behind_the_mask(estimator: Callable[..., Tensor]) -> None:
    logprobs = torch.tensor([[-1.0, math.nan, -math.inf]], requires_grad=True)
    mask = torch.tensor([[True, False, False]])
    found = estimator(logprobs, torch.tensor([[-2.0, 0.0, math.nan]]), mask)
    found.sum().backward()
    assert found[0, 1:].tolist() == [0.0, 0.0]
    assert logprobs.grad[0, 1:].tolist() == [0.0, 0.0]
    assert found[0, 0].item() == pytest.approx({k1: 1.0, k2: 0.5, k3: math.exp(-1)}[estimator], abs=FLOAT32)
    unguarded = (logprobs.exp() * mask).sum()
    assert math.isnan(float(unguarded.detach()))


def test_k3_keeps_the_digits_of_a_small_ratio() -> None:
    d = torch.tensor([1e-3, -1e-3, 1e-2])
    found = k3(d, torch.zeros(3), torch.ones(3, dtype=torch.bool))
    truth = [math.expm1(-x) + x for x in d.tolist()]
    assert found.tolist() == pytest.approx(truth, rel=1e-3)
    assert ((-d).exp() - 1 + d).tolist() != pytest.approx(truth, rel=1e-3)
    assert bool((found >= 0).all())


def test_entries_without_probability() -> None:
    policy, reference = LOGITS.clone(), REFERENCE.clone()
    policy[:, 2] = reference[:, 2] = -torch.inf
    policy[:, 5] = -torch.inf
    leaf = policy.clone().requires_grad_()
    found = exact_kl(leaf, reference)
    found.sum().backward()
    alive = [column for column in range(9) if column not in (2, 5)]
    log_p, log_q = policy[:, alive].log_softmax(-1), reference.log_softmax(-1)[:, alive]
    truth = (log_p.exp() * (log_p - log_q)).sum(-1)
    assert found.tolist() == pytest.approx(truth.tolist(), abs=TIGHT)
    assert bool(leaf.grad.isfinite().all())
    reference[:, 0] = -torch.inf
    assert exact_kl(policy, reference).tolist() == [math.inf] * 6


def test_ratios_beyond_the_range_of_exp() -> None:
    policy, reference = torch.tensor([[0.0, -300.0]]), torch.tensor([[-300.0, 0.0]])
    assert exact_kl(policy, reference).item() == pytest.approx(300.0, rel=FLOAT32)
    both = exact_kl(torch.cat([policy, policy]), torch.cat([policy, reference]))
    assert both.tolist() == pytest.approx([0.0, 300.0], rel=FLOAT32)


def test_equal_policies_are_exactly_zero_apart() -> None:
    assert exact_kl(LOGITS, LOGITS).tolist() == [0.0] * 6
    assert exact_kl(LOGITS, LOGITS + 5.0).tolist() == pytest.approx([0.0] * 6, abs=TIGHT)
    half = LOGITS.bfloat16()
    assert exact_kl(half, REFERENCE.bfloat16()).dtype == torch.float32
