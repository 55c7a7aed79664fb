"""Advantages against verl 0.9.1 on 200 random batches with ragged groups. docs/verl.md explains each difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from covent.core.advantages import (
    group_centred,
    group_standardised,
    leave_one_out,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
)
from covent.errors import ShapeError
from tests.oracles.verl_batches import VerlBatch, verl_batches
from tests.support.tolerances import FLOAT32, TIGHT, VERL_COUNT

BATCHES = verl_batches()
GROUPED = [batch for batch in BATCHES if bool((batch.groups.bincount() > 1).any())]
"""The batches in which something can be compared; covent refuses the others."""


def in_rows(advantage: Callable[..., Tensor], batch: VerlBatch) -> Tensor:
    rewards, present = batch.grouped()
    return advantage(rewards, present=present)[present]


def alone(batch: VerlBatch) -> Tensor:
    """Responses that are the only one of their group."""
    return (batch.groups.bincount() == 1)[batch.groups]


def all_equal(batch: VerlBatch) -> Tensor:
    rewards, present = batch.grouped()
    spread = rewards.masked_fill(~present, -torch.inf).amax(1) - rewards.masked_fill(~present, torch.inf).amin(1)
    return (spread == 0)[batch.groups]


@pytest.mark.parametrize(
    ("advantage", "estimator", "wrong"),
    [
        (group_standardised, "grpo", group_centred),
        (group_centred, "grpo_without_std", leave_one_out),
        (leave_one_out, "rloo", group_centred),
        (leave_one_out, "rloo_vectorized", group_centred),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_group_advantages(advantage: Callable[..., Tensor], estimator: str, wrong: Callable[..., Tensor]) -> None:
    num_wrong = 0
    for batch in GROUPED:
        found, truth = in_rows(advantage, batch), batch.verl_advantages[estimator]
        compared = ~alone(batch)
        assert found[compared].tolist() == pytest.approx(truth[compared].tolist(), rel=TIGHT, abs=TIGHT)
        miss = in_rows(wrong, batch)[compared].tolist()
        num_wrong += miss != pytest.approx(truth[compared].tolist(), rel=TIGHT, abs=TIGHT)
    assert num_wrong > 100


def test_a_group_of_one_is_zero_here_and_keeps_its_reward_in_verl() -> None:
    num_alone = 0
    for batch in GROUPED:
        one = alone(batch)
        num_alone += int(one.sum())
        for advantage in (group_standardised, group_centred, leave_one_out):
            assert bool((in_rows(advantage, batch)[one] == 0).all())
        outcomes = batch.outcomes[one].tolist()
        assert batch.verl_advantages["rloo"][one].tolist() == outcomes
        assert batch.verl_advantages["grpo_without_std"][one].tolist() == outcomes
        # Its standard deviation of one sample is a float32 1.
        assert batch.verl_advantages["grpo"][one].tolist() == pytest.approx(outcomes, rel=FLOAT32)
        assert bool((batch.verl_advantages["rloo_vectorized"][one] == 0).all()), "verl disagrees with itself"
    assert num_alone > 50


def test_a_batch_of_groups_of_one_is_refused() -> None:
    refused = [batch for batch in BATCHES if batch not in GROUPED]
    assert 0 < len(refused) < 20
    for batch in refused:
        for advantage in (group_standardised, group_centred, leave_one_out):
            with pytest.raises(ShapeError, match="nothing can be compared"):
                in_rows(advantage, batch)


def test_equal_groups_are_exactly_zero() -> None:
    num_equal = 0
    for batch in GROUPED:
        equal = all_equal(batch) & ~alone(batch)
        num_equal += int(equal.sum())
        assert bool((in_rows(group_standardised, batch)[equal] == 0).all())
        assert batch.verl_advantages["grpo"][equal].tolist() == pytest.approx([0.0] * int(equal.sum()), abs=TIGHT)
    assert num_equal > 50


def test_reinforce_plus_plus() -> None:
    num_wrong = 0
    for batch in BATCHES:
        truth = batch.verl_advantages["reinforce_plus_plus"].tolist()
        discount = batch.settings["discount"]
        found = reinforce_plus_plus(batch.token_rewards, batch.mask, discount=discount)[batch.mask]
        assert found.tolist() == pytest.approx(truth, rel=VERL_COUNT, abs=VERL_COUNT)
        wrong = reinforce_plus_plus(batch.token_rewards, batch.mask, discount=0.95)[batch.mask]
        num_wrong += wrong.tolist() != pytest.approx(truth, rel=VERL_COUNT, abs=VERL_COUNT)
    assert num_wrong > 150


def test_reinforce_plus_plus_baseline_where_no_group_is_of_one() -> None:
    num_compared = num_wrong = 0
    for batch in GROUPED:
        rewards, present = batch.grouped()
        found = reinforce_plus_plus_baseline(rewards, batch.mask, present=present)
        by_response = torch.stack([row[mask][0] for row, mask in zip(found, batch.mask, strict=True)])
        truth = batch.verl_advantages["reinforce_plus_plus_baseline"].tolist()
        agrees = by_response.tolist() == pytest.approx(truth, rel=VERL_COUNT, abs=VERL_COUNT)
        if bool(alone(batch).any()):
            # One response that keeps its reward moves the mean and spread of the whole batch.
            num_wrong += not agrees
        else:
            num_compared += 1
            assert agrees
    assert num_compared > 50
    assert num_wrong > 20
