"""Token covariance against the population covariance, its invariances, and its tail against sorted lists."""

from __future__ import annotations

import itertools
import math
from statistics import fmean, pstdev

import pytest
import torch

from covent.core.covariance import (
    TOP_SHARES,
    batch_center,
    covariance_tail,
    token_covariance,
    vanilla_center,
    vanilla_token_covariance,
)
from covent.core.plan import Measured
from covent.core.reduce import masked_mean
from covent.errors import EmptyMaskError
from covent.readings import COVARIANCE_EDGES
from tests.support.batches import optimizer_batch, reordered, splits, tokens
from tests.support.tolerances import CENTRED, EXACT, TIGHT


def pairs(batch: Measured) -> list[tuple[float, float]]:
    return [(float(batch.logprobs[place]), float(batch.advantages[place])) for place in tokens(batch)]


def test_each_token_and_their_mean() -> None:
    batch = optimizer_batch(0)
    logprobs, advantages = zip(*pairs(batch), strict=True)
    mean_l, mean_a = fmean(logprobs), fmean(advantages)
    truth = [(x - mean_l) * (a - mean_a) for x, a in pairs(batch)]
    found = batch.covariances()
    assert [float(found[place]) for place in tokens(batch)] == pytest.approx(truth, abs=TIGHT)
    assert bool((found[~batch.mask] == 0).all())

    population = fmean(x * a for x, a in pairs(batch)) - mean_l * mean_a
    mean = float(masked_mean(found, batch.mask))
    assert mean == pytest.approx(population, abs=TIGHT)
    n = len(truth)
    assert mean != pytest.approx(population * n / (n - 1), abs=TIGHT)


def test_numbers_in_float32_are_centred_in_float64() -> None:
    """So the order of rows moves no covariance by more than float64's rounding, however many tokens there are."""
    batch = optimizer_batch(0, num_prompts=64, num_samples=8, dtype=torch.float32)
    found = batch.covariances()[batch.mask]
    logprobs, advantages = batch.logprobs[batch.mask].tolist(), batch.advantages[batch.mask].tolist()
    mean_l, mean_a = fmean(logprobs), fmean(advantages)
    truth = [(x - mean_l) * (a - mean_a) for x, a in zip(logprobs, advantages, strict=True)]
    assert found.tolist() == pytest.approx(truth, abs=TIGHT)
    center = batch_center(batch.logprobs, batch.advantages, batch.mask)
    in_float32 = token_covariance(batch.logprobs, batch.advantages, batch.mask, center=center)[batch.mask]
    assert in_float32.tolist() != pytest.approx(truth, abs=TIGHT)


def test_the_other_slot() -> None:
    batch = optimizer_batch(6)
    logprobs, weighted = zip(*((x, math.exp(x) * a) for x, a in pairs(batch)), strict=True)
    mean_l, mean_w = fmean(logprobs), fmean(weighted)
    truth = [(x - mean_l) * (w - mean_w) for x, w in zip(logprobs, weighted, strict=True)]
    values = batch.logprobs.clone().requires_grad_(), batch.advantages, batch.mask
    center = vanilla_center(*values)
    found = vanilla_token_covariance(*values, center=center)
    assert not found.requires_grad
    assert bool((found[~batch.mask] == 0).all())
    assert found[batch.mask].tolist() == pytest.approx(truth, abs=TIGHT)
    assert batch.covariances()[batch.mask].tolist() != pytest.approx(truth, abs=TIGHT)
    shifted = batch.advantages + 1.0
    moved = vanilla_token_covariance(
        batch.logprobs, shifted, batch.mask, center=vanilla_center(batch.logprobs, shifted, batch.mask)
    )
    assert moved[batch.mask].tolist() != pytest.approx(truth, abs=TIGHT)


def test_constants_do_not_matter() -> None:
    batch = optimizer_batch(1)
    shifted = batch.logprobs + 1e3, batch.advantages - 40.0

    center = batch_center(*shifted, batch.mask)
    moved = token_covariance(*shifted, batch.mask, center=center)
    assert moved[batch.mask].tolist() == pytest.approx(batch.covariances()[batch.mask].tolist(), abs=CENTRED)
    uncentred = batch.logprobs * batch.advantages, shifted[0] * shifted[1]
    assert uncentred[0][batch.mask].tolist() != pytest.approx(uncentred[1][batch.mask].tolist(), abs=CENTRED)


def test_micro_batches_share_one_centre() -> None:
    batch = optimizer_batch(2)
    center = batch_center(batch.logprobs, batch.advantages, batch.mask)
    parts = [reordered(batch, rows) for rows in splits(len(batch.mask), 5, 17)]
    with_center = torch.cat([token_covariance(p.logprobs, p.advantages, p.mask, center=center) for p in parts])
    assert torch.equal(with_center, batch.covariances())
    own_center = torch.cat([part.covariances() for part in parts])
    assert float((own_center - with_center).abs().max()) > 0.1


def test_no_gradient_flows() -> None:
    batch = optimizer_batch(3)
    logprobs = batch.logprobs.clone().requires_grad_()
    center = batch_center(logprobs.detach(), batch.advantages, batch.mask)
    assert not token_covariance(logprobs, batch.advantages, batch.mask, center=center).requires_grad


def test_no_token_has_no_centre() -> None:
    batch = optimizer_batch(4)
    with pytest.raises(EmptyMaskError):
        batch_center(batch.logprobs, batch.advantages, torch.zeros_like(batch.mask))


@pytest.mark.parametrize("num_tokens", [1, 3, 499, 500, 6001])
def test_tail_against_sorted_lists(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    values = torch.randn(num_tokens, generator=generator, dtype=torch.float64) ** 3 - 0.2
    ordered = sorted(values.tolist(), reverse=True)
    positive = math.fsum(value for value in ordered if value > 0)
    tail = covariance_tail(values)
    assert tail.mean == pytest.approx(fmean(ordered), abs=TIGHT)
    assert tail.std == pytest.approx(pstdev(ordered), abs=TIGHT)
    for share in TOP_SHARES:
        count = math.floor(share * num_tokens)
        if count == 0:
            assert tail.top_means[str(share)] is None
            assert tail.positive_shares[str(share)] is None
            continue
        top = ordered[:count]
        assert tail.top_means[str(share)] == pytest.approx(fmean(top), abs=TIGHT)
        held = math.fsum(value for value in top if value > 0) / positive
        assert tail.positive_shares[str(share)] == pytest.approx(held, abs=TIGHT)
        one_more = fmean(ordered[: count + 1])
        assert tail.top_means[str(share)] != pytest.approx(one_more, abs=TIGHT)
    levels = {"min": 0, "p01": 0.01, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1}
    assert list(tail.quantiles) == list(levels)
    for name, level in levels.items():
        nearest = round(level * (num_tokens - 1))
        assert tail.quantiles[name] == ordered[::-1][nearest]
        assert num_tokens < 3 or name == "p50" or tail.quantiles[name] != ordered[nearest]


@pytest.mark.parametrize("seed", range(3))
def test_every_token_lies_in_the_bin_between_its_edges(seed: int) -> None:
    values = 3 * torch.randn(700, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    values = torch.cat([values, torch.tensor(COVARIANCE_EDGES, dtype=torch.float64), torch.tensor([-1e6, 0.0, 1e6])])
    edges = [-math.inf, *COVARIANCE_EDGES, math.inf]
    truth = [sum(low < value <= high for value in values.tolist()) for low, high in itertools.pairwise(edges)]
    assert covariance_tail(values).histogram == truth
    assert sum(truth) == len(values) and truth[0] >= 2
    closed_below = [sum(low <= value < high for value in values.tolist()) for low, high in itertools.pairwise(edges)]
    assert covariance_tail(values).histogram != closed_below


def test_the_tail_has_no_order() -> None:
    values = optimizer_batch(5).covariances().flatten()
    shuffled = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    assert covariance_tail(shuffled) == covariance_tail(values)
    assert covariance_tail(values[1:]) != covariance_tail(values)


def test_shares_of_one_token_at_the_edge() -> None:
    def tail(num_tokens: int) -> float | None:
        return covariance_tail(torch.arange(float(num_tokens))).top_means["0.0002"]

    assert tail(4999) is None
    assert tail(5000) == 4999.0


def test_no_positive_part_has_no_shares() -> None:
    tail = covariance_tail(torch.full((100,), -1.0))
    assert set(tail.positive_shares.values()) == {None}
    assert tail.top_means["0.5"] == -1.0
    assert tail.std == EXACT


def test_no_token_has_no_tail() -> None:
    with pytest.raises(EmptyMaskError):
        covariance_tail(torch.zeros(0))
