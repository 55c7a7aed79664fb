"""PRIME's rewards and advantages against its equations, one token at a time."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from covent.core.process_reward import implicit_process_rewards, prime_advantages
from covent.errors import EmptyMaskError, ShapeError
from tests.support.batches import optimizer_batch
from tests.support.tolerances import TIGHT

BATCH = optimizer_batch(0)
PROCESS = implicit_process_rewards(BATCH.logprobs, BATCH.old_logprobs, BATCH.mask, beta=0.05)
OUTCOME = torch.rand(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).round()


def plain(discount: float, *, released: bool = False) -> list[float]:
    """Eq. 5; `released`: with the baseline of the released code."""
    rewards = [PROCESS[row][BATCH.mask[row]].tolist() for row in range(32)]
    found = []
    for row in range(32):
        group = range(row // 4 * 4, row // 4 * 4 + 4)
        others = fmean(fmean(rewards[j]) for j in group if j != row)
        centred = [r - others for r in rewards[row]]
        if released:
            centred = [r * 4 / 3 - sum(fmean(rewards[j]) for j in group) / 3 for r in rewards[row]]
        outcome = OUTCOME.flatten().tolist()
        from_outcome = outcome[row] - fmean(outcome[j] for j in group if j != row)
        for t in range(len(centred)):
            found.append(sum(discount ** (s - t) * centred[s] for s in range(t, len(centred))) + from_outcome)
    return found


def test_implicit_rewards() -> None:
    prm, reference = (t.clone().requires_grad_() for t in (BATCH.logprobs, BATCH.old_logprobs))
    found = implicit_process_rewards(prm, reference, BATCH.mask, beta=0.05)
    truth = [0.05 * (p - q) for p, q in zip(prm[BATCH.mask].tolist(), reference[BATCH.mask].tolist(), strict=True)]
    assert found[BATCH.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    assert found[BATCH.mask].tolist() != pytest.approx([-value for value in truth], abs=TIGHT)
    found.sum().backward()
    assert prm.grad[BATCH.mask].tolist() == pytest.approx([0.05] * len(truth), abs=TIGHT)
    assert bool((prm.grad[~BATCH.mask] == 0).all())
    assert reference.grad is None


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_advantages_are_the_equation(discount: float) -> None:
    found = prime_advantages(PROCESS, OUTCOME, BATCH.mask, discount=discount)
    assert found[BATCH.mask].tolist() == pytest.approx(plain(discount), abs=TIGHT)
    assert found[BATCH.mask].tolist() != pytest.approx(plain(discount, released=True), abs=TIGHT)
    assert bool((found[~BATCH.mask] == 0).all())


def test_undiscounted_code_and_equation_agree_at_the_first_token_only() -> None:
    """The factor K/(K-1) on r minus its mean cancels in the sum over a response."""
    equation, code = plain(1.0), plain(1.0, released=True)
    starts = [int(BATCH.mask[:row].sum()) for row in range(32)]
    assert [code[i] for i in starts] == pytest.approx([equation[i] for i in starts], abs=TIGHT)
    later = [i + 1 for i in starts[:-1] if i + 1 not in starts]
    assert [code[i] for i in later] != pytest.approx([equation[i] for i in later], abs=TIGHT)


def test_no_process_reward_leaves_rloo() -> None:
    found = prime_advantages(torch.zeros_like(PROCESS), OUTCOME, BATCH.mask)
    for row in range(32):
        group = OUTCOME[row // 4].tolist()
        own = group.pop(row % 4)
        assert found[row][BATCH.mask[row]].tolist() == pytest.approx(
            [own - fmean(group)] * int(BATCH.mask[row].sum()), abs=TIGHT
        )


def test_groups_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match="32 responses"):
        prime_advantages(PROCESS, OUTCOME[1:], BATCH.mask)
    with pytest.raises(ShapeError, match="at least 2"):
        prime_advantages(PROCESS, OUTCOME.view(32, 1), BATCH.mask)
    with pytest.raises(EmptyMaskError):
        prime_advantages(PROCESS, OUTCOME, torch.zeros_like(BATCH.mask))


def test_advantages_carry_no_gradient() -> None:
    rewards = PROCESS.clone().requires_grad_()
    assert not prime_advantages(rewards, OUTCOME, BATCH.mask).requires_grad
    prm = BATCH.logprobs.clone().requires_grad_()
    assert implicit_process_rewards(prm, BATCH.old_logprobs, BATCH.mask, beta=0.05).requires_grad
