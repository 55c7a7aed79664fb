"""Advantages against the standard library's statistics, and the groups where they are exactly zero or undefined."""

from __future__ import annotations

from statistics import fmean, pstdev, stdev

import pytest
import torch

from covent.core.advantages import (
    group_centred,
    group_standardised,
    leave_one_out,
    reinforce_plus_plus,
    reinforce_plus_plus_baseline,
    returns_to_go,
    whitened,
)
from covent.core.reduce import Moments, masked_moments, merged_moments
from covent.errors import ConfigError, EmptyMaskError, ShapeError
from tests.support.batches import optimizer_batch, splits
from tests.support.tolerances import EXACT, TIGHT

GROUP_RULES = [group_centred, group_standardised, leave_one_out]
every_rule = pytest.mark.parametrize("advantage", GROUP_RULES, ids=lambda rule: rule.__name__)

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


@every_rule
def test_equal_rewards_give_exactly_zero(advantage) -> None:  # type: ignore[no-untyped-def]  # a parametrized function
    rewards = torch.tensor([0.0, 0.1, 0.3, 0.7, 1.0])[:, None].expand(5, 7)
    assert float(advantage(rewards).abs().max()) == EXACT
    by_rounding_alone = rewards - rewards.mean(dim=1, keepdim=True)
    assert float(by_rounding_alone.abs().max()) > EXACT
    mixed = torch.tensor([[1.0, 1.0, 0.0]])
    assert float(advantage(mixed).abs().min()) > 0


@every_rule
def test_a_group_of_one_is_refused(advantage) -> None:  # type: ignore[no-untyped-def]  # a parametrized function
    with pytest.raises(ShapeError, match="at least 2"):
        advantage(torch.ones(4, 1))


@every_rule
def test_groups_of_one_present_sample_teach_nothing_either(advantage) -> None:  # type: ignore[no-untyped-def]  # a parametrized function
    present = torch.tensor([[True, False], [False, True], [False, False]])
    with pytest.raises(ShapeError, match="3 groups has at most 1 present"):
        advantage(torch.ones(3, 2), present=present)
    assert advantage(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), present=present[:2] | present[:1])[1].all()


def test_no_group_at_all() -> None:
    assert group_standardised(torch.zeros(0, 2)).shape == (0, 2)


def test_leave_one_out_by_plain_loops() -> None:
    for group, found in zip(REWARDS.tolist(), leave_one_out(REWARDS).tolist(), strict=True):
        others = [fmean(group[:i] + group[i + 1 :]) for i in range(len(group))]
        assert found == pytest.approx([r - mean for r, mean in zip(group, others, strict=True)], abs=TIGHT)
        assert found != pytest.approx([r - fmean(group) for r in group], abs=TIGHT)


@every_rule
def test_absent_samples_are_as_if_they_were_not(advantage) -> None:  # type: ignore[no-untyped-def]  # a parametrized function
    sizes = torch.tensor([5, 2, 3, 4, 5, 1, 2])
    present = torch.arange(5) < sizes[:, None]
    found = advantage(REWARDS.masked_fill(~present, float("nan")), present=present)
    assert bool((found[~present] == 0).all())
    assert found[5].tolist() == [0.0] * 5, "a group of one"
    for row, size in enumerate(sizes.tolist()):
        if size > 1:
            alone = advantage(REWARDS[row : row + 1, :size])[0].tolist()
            assert found[row, :size].tolist() == pytest.approx(alone, abs=TIGHT)
    as_zero_rewards = advantage(REWARDS.masked_fill(~present, 0.0))
    assert as_zero_rewards[1, :2].tolist() != pytest.approx(found[1, :2].tolist(), abs=TIGHT)


@pytest.mark.parametrize("discount", [0.0, 0.7, 1.0])
def test_returns_to_go_by_plain_loops(discount: float) -> None:
    batch = optimizer_batch(0)
    # Holes, such as a tool's words: no reward, no step of the discount.
    mask = batch.mask & (torch.rand(batch.mask.shape, generator=torch.Generator().manual_seed(1)) < 0.7)
    found = returns_to_go(batch.logprobs.masked_fill(~mask, float("nan")), mask, discount=discount)
    assert bool((found[~mask] == 0).all())
    for row in range(len(mask)):
        rewards = batch.logprobs[row][mask[row]].tolist()
        truth = [sum(discount**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
        assert found[row][mask[row]].tolist() == pytest.approx(truth, abs=TIGHT)
        if len(rewards) > 2:
            wrong = [sum((discount + 0.1) ** k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]
            assert found[row][mask[row]].tolist() != pytest.approx(wrong, abs=TIGHT)


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_a_discount_outside_its_range(discount: float) -> None:
    with pytest.raises(ConfigError, match="discount"):
        returns_to_go(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), discount=discount)


def test_whitened_by_plain_loops_and_over_micro_batches() -> None:
    batch = optimizer_batch(2)
    values = batch.logprobs[batch.mask].tolist()
    moments = masked_moments(batch.logprobs, batch.mask)
    whole = whitened(batch.logprobs, batch.mask, moments=moments)
    truth = [(v - fmean(values)) / (stdev(values) ** 2 + 1e-8) ** 0.5 for v in values]
    assert whole[batch.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    wrong = [(v - fmean(values)) / (pstdev(values) ** 2 + 1e-8) ** 0.5 for v in values]
    assert whole[batch.mask].tolist() != pytest.approx(wrong, abs=TIGHT)

    cuts = splits(len(batch.mask), 3, 20)
    parts = [masked_moments(batch.logprobs[cut], batch.mask[cut]) for cut in cuts]
    merged = merged_moments(parts)
    pieces = [whitened(batch.logprobs[cut], batch.mask[cut], moments=merged) for cut in cuts]
    assert torch.cat(pieces)[batch.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    own = [whitened(batch.logprobs[cut], batch.mask[cut], moments=part) for cut, part in zip(cuts, parts, strict=True)]
    assert torch.cat(own)[batch.mask].tolist() != pytest.approx(truth, abs=TIGHT)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_spread_is_exactly_zero(value: float, dtype: torch.dtype) -> None:
    mask = torch.ones(7, 9, dtype=torch.bool)
    values = torch.full((7, 9), value, dtype=dtype)
    assert bool((whitened(values, mask, moments=masked_moments(values, mask)) == 0).all())
    values[0, 0] += abs(value) / 100 + 0.01
    assert bool((whitened(values, mask, moments=masked_moments(values, mask)) != 0).all())


def test_whitening_one_value_and_none() -> None:
    one = torch.tensor([[True, False]])
    values = torch.tensor([[3.0, float("nan")]])
    assert whitened(values, one, moments=masked_moments(values, one)).tolist() == [[0.0, 0.0]]
    with pytest.raises(EmptyMaskError):
        whitened(values, one, moments=Moments(0, values[0, 0], values[0, 0]))


def test_reinforce_plus_plus_sees_the_whole_batch() -> None:
    batch = optimizer_batch(3)
    found = reinforce_plus_plus(batch.logprobs, batch.mask, discount=0.9)
    returns = returns_to_go(batch.logprobs, batch.mask, discount=0.9)[batch.mask].tolist()
    truth = [(r - fmean(returns)) / (stdev(returns) ** 2 + 1e-8) ** 0.5 for r in returns]
    assert found[batch.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    assert reinforce_plus_plus(batch.logprobs, batch.mask)[batch.mask].tolist() != pytest.approx(truth, abs=TIGHT)
    half = reinforce_plus_plus(batch.logprobs[:16], batch.mask[:16], discount=0.9)
    assert half[batch.mask[:16]].tolist() != pytest.approx(found[:16][batch.mask[:16]].tolist(), abs=TIGHT)


def test_reinforce_plus_plus_baseline_by_plain_loops() -> None:
    batch = optimizer_batch(4, num_prompts=7, num_samples=5)
    found = reinforce_plus_plus_baseline(REWARDS, batch.mask)
    centred = [r - fmean(group) for group in REWARDS.tolist() for r in group]
    lengths = batch.mask.sum(dim=1).tolist()
    tokens = [value for value, length in zip(centred, lengths, strict=True) for _ in range(length)]
    truth = [(v - fmean(tokens)) / (stdev(tokens) ** 2 + 1e-8) ** 0.5 for v in tokens]
    assert found[batch.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    by_response = [(v - fmean(centred)) / stdev(centred) for v in tokens]
    assert found[batch.mask].tolist() != pytest.approx(by_response, abs=TIGHT)
    equal = REWARDS[:, :1].expand(7, 5)
    assert bool((reinforce_plus_plus_baseline(equal, batch.mask) == 0).all())
    with pytest.raises(ShapeError, match="34 rows"):
        reinforce_plus_plus_baseline(REWARDS, batch.mask[1:])
