"""The bonus against plain sums, and its state machine against a transcript of TRL's rule."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from covent.controls import EntropyBonus, PPOClip, first_states, next_states, plan
from covent.controls.entropy_bonus import (
    EntropyCoefState,
    applied_coef,
    bonus_entropy,
    entropy_bonus,
    first_state,
    next_state,
)
from covent.core.loss import surrogate
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Measured
from covent.core.reduce import part_of_mean
from tests.support.batches import optimizer_batch
from tests.support.tolerances import TIGHT

ADAPTIVE = EntropyBonus(
    entropy_coef=0.01,
    use_adaptive_entropy=True,
    entropy_target=0.3,
    entropy_coef_delta=0.004,
    entropy_coef_max=0.018,
    entropy_coef_min=0.005,
)


def bonus(batch: Measured, settings: EntropyBonus) -> float:
    """What the plan adds to the loss."""
    made = plan(batch, settings, 0)
    inputs = PenaltyInputs(entropies=batch.entropies)
    terms = surrogate(batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, made, inputs)
    return float(part_of_mean(terms.bonus, batch.mask, count=batch.num_tokens))


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_the_bonus_is_the_mean_entropy_of_its_tokens(share: float) -> None:
    batch = optimizer_batch(0)
    values = sorted(batch.entropies[batch.mask].tolist(), reverse=True)
    top = values[: len(values) - math.ceil((1 - share) * (len(values) - 1))]
    settings = EntropyBonus(entropy_coef=0.07, top_entropy_quantile=share)
    assert bonus(batch, settings) == pytest.approx(-0.07 * math.fsum(top) / len(top), abs=TIGHT)
    assert bonus_entropy(batch, settings) == pytest.approx(math.fsum(top) / len(top), abs=TIGHT)
    over_all_tokens = -0.07 * math.fsum(top) / len(values)
    assert (bonus(batch, settings) == pytest.approx(over_all_tokens, abs=TIGHT)) == (share == 1.0)


def test_a_bonus_alone_runs_on_the_plain_clip() -> None:
    made = plan(optimizer_batch(1), EntropyBonus(entropy_coef=0.1), 0)
    assert (made.clip_low, made.clip_high) == (PPOClip().clip_ratio_low, PPOClip().clip_ratio_high)
    assert made.reading.name == "entropy_bonus + ppo_clip"


def test_the_state_machine_is_trls() -> None:
    """coef ± delta after each step, bounded; applied only after a step at or below the target; off in the first."""
    coef, last = 0.01, math.inf
    state = first_state(ADAPTIVE)
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for entropy in [0.3, *(0.6 * torch.rand(60, generator=generator)).tolist()]:
        assert applied_coef(state, ADAPTIVE) == (coef if last <= 0.3 else 0.0)
        coef = min(coef + 0.004, 0.018) if entropy <= 0.3 else max(coef - 0.004, 0.005)
        last = entropy
        state = next_state(state, ADAPTIVE, entropy)
        assert state == EntropyCoefState(coef, last)
        seen.add(coef)
    assert {0.005, 0.018} <= seen
    assert next_state(state, ADAPTIVE, 0.3).entropy_coef >= state.entropy_coef, "at the target counts as below"
    fixed = EntropyBonus(entropy_coef=0.01)
    assert next_state(first_state(fixed), fixed, 0.0) == first_state(fixed)
    assert applied_coef(first_state(fixed), fixed) == 0.01


def test_the_plan_follows_the_state() -> None:
    batch = optimizer_batch(2)
    low = replace(batch, entropies=batch.entropies * 0.1)
    states = first_states([PPOClip(), ADAPTIVE])
    assert states == (None, EntropyCoefState(0.01, math.inf))
    first = plan(low, [PPOClip(), ADAPTIVE], 0, states)
    assert float(first.entropy_weight.abs().max()) == 0.0 and "bonus was off" in first.reading.note
    states = next_states(states, [PPOClip(), ADAPTIVE], low)
    second = plan(low, [PPOClip(), ADAPTIVE], 0, states)
    assert float(second.entropy_weight.max()) == pytest.approx(0.014, abs=TIGHT)
    states = next_states(states, [PPOClip(), ADAPTIVE], batch)
    assert states[1] is not None and states[1].entropy_coef == pytest.approx(0.01)
    third = entropy_bonus(low, ADAPTIVE, 0, states[1])
    assert float(third.entropy_weight.abs().max()) == 0.0


@pytest.mark.parametrize(
    "wrong", [{"entropy_coef_min": 2.0}, {"entropy_coef_delta": 0}, {"entropy_target": -1}, {"entropy_coeff": 0.1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        EntropyBonus(**wrong)
