"""Theorems 1 and 2 state by state, and polarity: each sampled token's own effect, whose mean is the covariance."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from covent.core.dynamics import (
    entropy_change,
    entropy_change_from_logits,
    entropy_of_logits,
    natural_entropy_change,
    natural_polarity,
    polarity,
    polarity_reading,
    polarity_sums,
    vanilla_entropy_change,
)
from covent.tabular.statements import natural_entropy_slope, vanilla_entropy_slope
from tests.support.tolerances import EXACT, FINITE_DIFFERENCE, NEAR_ZERO_ENTROPY, TIGHT

STEP = 1e-5
NUM_ACTIONS = 12
Effect = Callable[[Tensor, Tensor, Tensor], Tensor]


def random_tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope(logits: Tensor, direction: Tensor) -> Tensor:
    """The derivative of each state's entropy along a direction, by central differences."""
    return (entropy_of_logits(logits + STEP * direction) - entropy_of_logits(logits - STEP * direction)) / (2 * STEP)


def every_action(logits: Tensor) -> tuple[Tensor, Tensor]:
    """One row for each state and action: the state's logits and the action."""
    actions = torch.arange(logits.shape[1]).repeat(len(logits))
    return logits.repeat_interleave(logits.shape[1], dim=0), actions


def own_term_alone(logits: Tensor, tokens: Tensor, advantages: Tensor) -> Tensor:
    """-A pi(y) (log pi(y) + H): polarity without the correction of the state's distribution."""
    logp = logits.log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
    return -advantages * logp.exp() * (logp + entropy_of_logits(logits))


def written_out(logits: Tensor, tokens: Tensor, advantages: Tensor) -> Tensor:
    """The formula as it is printed, which cancels near zero entropy."""
    logp = logits.log_softmax(dim=-1)
    surprise = logp + entropy_of_logits(logits)[:, None]
    own = (logp.exp() * surprise).gather(-1, tokens[:, None]).squeeze(-1)
    return advantages * ((logp.exp() ** 2 * surprise).sum(dim=-1) - own)


def test_polarity_is_the_slope_of_the_entropy_along_the_tokens_own_step() -> None:
    logits, tokens = every_action(2 * random_tensor(0, 4, NUM_ACTIONS))
    advantages = random_tensor(1, len(tokens))
    step = advantages[:, None] * (torch.nn.functional.one_hot(tokens, NUM_ACTIONS) - logits.softmax(dim=-1))
    truth = slope(logits, step)
    assert polarity(logits, tokens, advantages).tolist() == pytest.approx(truth.tolist(), abs=FINITE_DIFFERENCE)
    assert written_out(logits, tokens, advantages).tolist() == pytest.approx(truth.tolist(), abs=FINITE_DIFFERENCE)
    assert own_term_alone(logits, tokens, advantages).tolist() != pytest.approx(truth.tolist(), abs=FINITE_DIFFERENCE)


def test_natural_polarity_is_the_slope_along_the_importance_weighted_step() -> None:
    logits, tokens = every_action(random_tensor(2, 4, NUM_ACTIONS))
    advantages = random_tensor(3, len(tokens))
    chosen = torch.nn.functional.one_hot(tokens, NUM_ACTIONS)
    truth = slope(logits, advantages[:, None] * chosen / logits.softmax(dim=-1))
    found = natural_polarity(logits, tokens, advantages)
    assert found.tolist() == pytest.approx(truth.tolist(), abs=FINITE_DIFFERENCE)
    assert polarity(logits, tokens, advantages).tolist() != pytest.approx(truth.tolist(), abs=FINITE_DIFFERENCE)


@pytest.mark.parametrize("centred", [True, False])
def test_polarity_averages_to_minus_the_covariance(centred: bool) -> None:
    """Over all actions under the policy, not sampled: Theorem 1 with the centred advantage, Theorem 2 with either."""
    logits, advantages = 2 * random_tensor(4, 5, NUM_ACTIONS), random_tensor(5, 5, NUM_ACTIONS)
    p = logits.softmax(dim=-1)
    mean = (p * advantages).sum(dim=-1, keepdim=True)
    if centred:
        advantages = advantages - mean
        mean = torch.zeros_like(mean)

    def average(effect: Effect) -> list[float]:
        rows, actions = every_action(logits)
        return (p * effect(rows, actions, advantages.flatten()).view_as(p)).sum(dim=-1).tolist()

    theorem_1 = vanilla_entropy_change(logits, advantages - mean, step_size=1.0).tolist()
    theorem_2 = natural_entropy_change(logits, advantages, step_size=1.0).tolist()
    assert average(polarity) == pytest.approx(theorem_1, abs=TIGHT)
    assert average(natural_polarity) == pytest.approx(theorem_2, abs=TIGHT)
    assert average(polarity) != pytest.approx(theorem_2, abs=TIGHT)
    uncentred = vanilla_entropy_change(logits, advantages, step_size=1.0).tolist()
    assert (average(polarity) == pytest.approx(uncentred, abs=TIGHT)) == centred


def test_the_theorems_agree_with_the_tabular_lab() -> None:
    """numpy's sums over one state at a time, with the roles of the theorems exchanged as the control."""
    logits, advantages = 2 * random_tensor(6, 7, NUM_ACTIONS), random_tensor(7, 7, NUM_ACTIONS)
    vanilla = vanilla_entropy_change(logits, advantages, step_size=0.3).numpy()
    natural = natural_entropy_change(logits, advantages, step_size=0.3).numpy()
    expected_vanilla = 0.3 * vanilla_entropy_slope(logits.numpy(), advantages.numpy())
    expected_natural = 0.3 * natural_entropy_slope(logits.numpy(), advantages.numpy())
    assert np.allclose(vanilla, expected_vanilla, rtol=0, atol=TIGHT)
    assert np.allclose(natural, expected_natural, rtol=0, atol=TIGHT)
    assert not np.allclose(vanilla, expected_natural, rtol=0, atol=TIGHT)


def test_lemma_1_is_linear_in_the_logit_change() -> None:
    logits, first, second = 2 * random_tensor(8, 6, 9), random_tensor(9, 6, 9), random_tensor(10, 6, 9)
    parts = entropy_change(logits, first) + entropy_change(logits, second)
    assert entropy_change(logits, first + second).tolist() == pytest.approx(parts.tolist(), abs=TIGHT)
    # The change itself is not linear: parts of a finite step do not add up.
    finite = [entropy_of_logits(logits + change) - entropy_of_logits(logits) for change in (first, second)]
    whole = entropy_of_logits(logits + first + second) - entropy_of_logits(logits)
    assert (finite[0] + finite[1]).tolist() != pytest.approx(whole.tolist(), abs=TIGHT)


def test_an_impossible_action_is_inert() -> None:
    logits, change = random_tensor(11, 3, 5), random_tensor(12, 3, 5)
    impossible = torch.full((3, 1), -torch.inf, dtype=torch.float64)
    longer, moved = torch.cat([logits, impossible], 1), torch.cat([change, impossible], 1)
    tokens, advantages = torch.tensor([0, 2, 4]), random_tensor(13, 3)
    assert torch.equal(entropy_change(longer, moved), entropy_change(logits, change))
    assert entropy_change_from_logits(longer, longer + moved).isfinite().all()
    assert torch.equal(polarity(longer, tokens, advantages), polarity(logits, tokens, advantages))
    assert torch.equal(natural_polarity(longer, tokens, advantages), natural_polarity(logits, tokens, advantages))
    # -50 in place of -inf is another distribution.
    nearly = longer.masked_fill(longer == -torch.inf, -5.0)
    assert not torch.equal(polarity(nearly, tokens, advantages), polarity(logits, tokens, advantages))


@pytest.mark.parametrize("gap", [5.0, 15.0, 25.0])
@pytest.mark.parametrize("token", [0, 1])
def test_polarity_does_not_cancel_near_certainty(gap: float, token: int) -> None:
    """float32 logits against 60 decimal digits, where 1 - pi of the likely action is down to 1e-11."""
    found = polarity(torch.tensor([[0.0, -gap, -gap - 1.0]]), torch.tensor([token]), torch.ones(1))
    with localcontext() as context:
        context.prec = 60
        weights = [Decimal(z).exp() for z in (0, -gap, -gap - 1.0)]
        p = [weight / sum(weights) for weight in weights]
        entropy = -sum(each * each.ln() for each in p)
        surprise = [each.ln() + entropy for each in p]
        truth = float(sum(each**2 * s for each, s in zip(p, surprise, strict=True)) - p[token] * surprise[token])
    assert found.item() == pytest.approx(truth, rel=NEAR_ZERO_ENTROPY, abs=EXACT)
    if gap > 20 and token == 0:
        printed = written_out(torch.tensor([[0.0, -gap, -gap - 1.0]]), torch.tensor([token]), torch.ones(1))
        assert printed.item() != pytest.approx(truth, rel=NEAR_ZERO_ENTROPY, abs=EXACT)


def test_sums_of_a_batch_are_those_of_its_tokens_one_by_one() -> None:
    logits, tokens, advantages = random_tensor(5, 40, NUM_ACTIONS), torch.arange(40) % NUM_ACTIONS, random_tensor(6, 40)
    each = natural_polarity(logits, tokens, advantages).tolist()
    logp = logits.log_softmax(dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
    mask = torch.arange(40) % 5 != 0
    columns = (logp, entropy_of_logits(logits), advantages)
    found = polarity_reading(polarity_sums(*(column.view(4, 10) for column in columns), mask.view(4, 10)), 32)
    counted = [value for place, value in enumerate(each) if place % 5]
    assert found.num_raising == sum(value > 0 for value in counted)
    assert found.num_lowering == sum(value < 0 for value in counted)
    assert found.raising == pytest.approx(sum(value for value in counted if value > 0), rel=TIGHT)
    assert found.lowering == pytest.approx(sum(value for value in counted if value < 0), rel=TIGHT)
    assert found.raising != pytest.approx(sum(value for value in each if value > 0), rel=TIGHT)
