"""Advantages against the standard library's statistics, and the groups where they are exactly zero or undefined."""

from __future__ import annotations

from statistics import fmean, pstdev, stdev

import pytest
import torch

from covent.core.advantages import group_centred, group_standardised
from covent.errors import ShapeError
from tests.support.tolerances import EXACT, TIGHT

REWARDS = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_centred_and_standardised_by_plain_loops() -> None:
    for group, centred, standardised in zip(
        REWARDS.tolist(), group_centred(REWARDS).tolist(), group_standardised(REWARDS).tolist(), strict=True
    ):
        deviations = [reward - fmean(group) for reward in group]
        assert centred == pytest.approx(deviations, abs=TIGHT)
        assert standardised == pytest.approx([d / (stdev(group) + 1e-6) for d in deviations], abs=TIGHT)
        assert standardised != pytest.approx([d / (pstdev(group) + 1e-6) for d in deviations], abs=TIGHT)


def test_a_group_does_not_see_another() -> None:
    alone = torch.cat([group_standardised(REWARDS[i : i + 1]) for i in range(7)])
    assert group_standardised(REWARDS).flatten().tolist() == pytest.approx(alone.flatten().tolist(), abs=TIGHT)
    over_the_batch = (REWARDS - REWARDS.mean()) / (REWARDS.std() + 1e-6)
    assert over_the_batch[0].tolist() != pytest.approx(alone[0].tolist(), abs=TIGHT)


@pytest.mark.parametrize("advantage", [group_centred, group_standardised])
def test_equal_rewards_give_exactly_zero(advantage) -> None:  # type: ignore[no-untyped-def]
    rewards = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.0])[:, None].expand(5, 7)
    assert float(advantage(rewards).abs().max()) == EXACT
    by_rounding_alone = rewards - rewards.mean(dim=1, keepdim=True)
    assert float(by_rounding_alone.abs().max()) > EXACT
    mixed = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(advantage(mixed).abs().min()) > 0


@pytest.mark.parametrize("advantage", [group_centred, group_standardised])
def test_a_group_of_one_is_refused(advantage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ShapeError, match="at least 2"):
        advantage(torch.ones(4, 1))


def test_no_group_at_all() -> None:
    assert group_standardised(torch.zeros(0, 2)).shape == (0, 2)
