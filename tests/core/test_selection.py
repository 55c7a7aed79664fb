"""Exact selection against sorted lists of identities: counts, heavy ties, any order, any split."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from covent.core.keys import TokenIdentity, key, token_hash
from covent.core.selection import count_of_share, random_tokens, tokens_in_band, top_tokens
from covent.errors import NonFiniteError
from tests.support.batches import identity_grid, named
from tests.support.tolerances import CHANCE

IDENTITY = identity_grid(8, 4, 16)
SHAPE = (32, 16)


def eligible_tokens(seed: int) -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed)) < 0.8


def scores_of(seed: int, *, levels: int | None = None) -> Tensor:
    """Normal scores, or whole numbers with heavy ties."""
    generator = torch.Generator().manual_seed(100 + seed)
    if levels is None:
        return torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return torch.randint(-levels, levels, SHAPE, generator=generator).double()


def shuffled(seed: int, *columns: Tensor) -> tuple[list[Tensor], TokenIdentity]:
    order = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(200 + seed))
    return [column[order] for column in columns], TokenIdentity(*(column[order] for column in IDENTITY))


def best_by_sorting(scores: Tensor, eligible: Tensor, count: int) -> set[tuple[int, ...]]:
    """The same choice from a sorted list of (-score, prompt, sample, position)."""
    listed = [
        (-float(scores[r, c]), *(int(column[r, c]) for column in IDENTITY)) for r, c in eligible.nonzero().tolist()
    ]
    return {identity for _, *rest in sorted(listed)[:count] for identity in [tuple(rest)]}


@pytest.mark.parametrize("levels", [None, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 100, 10_000])
def test_top_tokens_by_sorting(levels: int | None, count: int) -> None:
    for seed in range(4):
        scores, eligible = scores_of(seed, levels=levels), eligible_tokens(seed)
        chosen = top_tokens(scores, eligible, count, IDENTITY)
        assert int(chosen.sum()) == min(count, int(eligible.sum()))
        assert named(chosen, IDENTITY) == best_by_sorting(scores, eligible, count)
        lowest = top_tokens(-scores, eligible, count, IDENTITY)
        assert count in (0, 10_000) or named(lowest, IDENTITY) != best_by_sorting(scores, eligible, count)


def test_ties_go_to_identities_in_any_order_of_rows() -> None:
    scores, eligible, count = scores_of(0, levels=2), eligible_tokens(0), 40

    def plain_topk(values: Tensor, may: Tensor, identity: TokenIdentity) -> set[tuple[int, ...]]:
        best = values.masked_fill(~may, -torch.inf).flatten().topk(count).indices
        chosen = torch.zeros(values.numel(), dtype=torch.bool).scatter(0, best, True).view(SHAPE)
        return named(chosen, identity)

    wanted = named(top_tokens(scores, eligible, count, IDENTITY), IDENTITY)
    differs = 0
    for seed in range(6):
        (moved, may), identity = shuffled(seed, scores, eligible)
        assert named(top_tokens(moved, may, count, identity), identity) == wanted
        differs += plain_topk(moved, may, identity) != plain_topk(scores, eligible, IDENTITY)
    assert differs >= 5


def test_rounding_noise_does_not_break_ties() -> None:
    scores, eligible = scores_of(1, levels=3), eligible_tokens(1)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    wanted = top_tokens(scores, eligible, 60, IDENTITY)
    assert torch.equal(top_tokens(scores * (1 + 1e-7 * noise), eligible, 60, IDENTITY), wanted)
    assert not torch.equal(top_tokens(scores * (1 + 1e-3 * noise), eligible, 60, IDENTITY), wanted)


@pytest.mark.parametrize("factor", [1e-30, 1e-6, 0.3, 1e6])
def test_the_unit_of_the_scores_does_not_matter(factor: float) -> None:
    scores, eligible = scores_of(2), eligible_tokens(2)
    assert torch.equal(top_tokens(factor * scores, eligible, 50, IDENTITY), top_tokens(scores, eligible, 50, IDENTITY))


def test_a_largest_score_just_below_a_power_of_two_has_the_same_grid() -> None:
    """As 1 comes out of a sum in another order. 0.5 and a little more tie, and the lower identity goes first."""
    tokens = torch.ones(1, 3, dtype=torch.bool)
    identity = TokenIdentity(*torch.tensor([[[2, 0, 1]], [[0, 0, 0]], [[0, 0, 0]]]))
    for largest in (1.0, math.nextafter(1.0, 0.0), 1.3):
        scores = torch.tensor([[largest, 0.5, 0.5 + 1.5e-6]], dtype=torch.float64)
        assert top_tokens(scores, tokens, 2, identity).tolist() == [[True, True, False]]
    # With a largest score of half the size the grid is finer, and the two do not tie.
    scores = torch.tensor([[0.65, 0.5, 0.5 + 1.5e-6]], dtype=torch.float64)
    assert top_tokens(scores, tokens, 2, identity).tolist() == [[True, False, True]]


@pytest.mark.parametrize("seed", range(3))
def test_a_band_by_plain_comparison(seed: int) -> None:
    """No score of these lies within the tie grid of an end."""
    scores, eligible = scores_of(seed), eligible_tokens(seed)
    found = tokens_in_band(scores, eligible, -0.3, 0.9)
    assert torch.equal(found, eligible & (scores >= -0.3) & (scores <= 0.9))
    assert not torch.equal(found, tokens_in_band(scores, eligible, -0.3, 0.8))
    junk = scores.masked_fill(~eligible, math.nan)
    assert torch.equal(tokens_in_band(junk, eligible, -0.3, 0.9), found)
    with pytest.raises(NonFiniteError, match="not finite"):
        tokens_in_band(junk, torch.ones_like(eligible), -0.3, 0.9)


def test_rounding_leaves_no_token_outside_an_end_that_it_is_equal_to() -> None:
    scores = torch.tensor([[0.1 + 0.2, 0.3, 0.7 - 0.4, 0.3000001, 0.29999, 0.30001]], dtype=torch.float64)
    everything = torch.ones_like(scores, dtype=torch.bool)
    on_the_end = [[True, True, True, True, False, False]]
    assert tokens_in_band(scores, everything, 0.3, 0.3).tolist() == on_the_end
    assert ((scores >= 0.3) & (scores <= 0.3)).tolist() == [[False, True, False, False, False, False]]
    assert tokens_in_band(torch.zeros(1, 2), everything[:, :2], 0.0, 1.0).tolist() == [[True, True]]
    assert tokens_in_band(torch.zeros(1, 2), everything[:, :2], 1e-9, 1.0).tolist() == [[False, False]]


def test_scores_that_may_not_be_chosen_do_not_matter() -> None:
    scores, eligible = scores_of(3), eligible_tokens(3)
    wanted = top_tokens(scores, eligible, 50, IDENTITY)
    for junk in (math.nan, math.inf, 1e30):
        assert torch.equal(top_tokens(scores.masked_fill(~eligible, junk), eligible, 50, IDENTITY), wanted)
    assert not torch.equal(top_tokens(scores.masked_fill(~eligible, 1e30), eligible | ~eligible, 50, IDENTITY), wanted)


def test_zero_scores_are_ties() -> None:
    chosen = top_tokens(torch.zeros(SHAPE), torch.ones(SHAPE, dtype=torch.bool), 3, IDENTITY)
    assert named(chosen, IDENTITY) == {(0, 0, 0), (0, 0, 1), (0, 0, 2)}


def test_the_best_of_each_micro_batch_are_not_the_best_of_the_batch() -> None:
    """Why selection takes the whole optimizer batch: a share of each part is another choice."""
    scores, eligible = scores_of(4), torch.ones(SHAPE, dtype=torch.bool)
    whole = top_tokens(scores, eligible, 64, IDENTITY)
    parts = [
        top_tokens(scores[rows], eligible[rows], 16, TokenIdentity(*(column[rows] for column in IDENTITY)))
        for rows in (slice(0, 8), slice(8, 16), slice(16, 24), slice(24, 32))
    ]
    assert sum(int(part.sum()) for part in parts) == int(whole.sum())
    assert not torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("count", [0, 1, 30, 10_000])
def test_random_tokens_take_the_smallest_hashes(count: int) -> None:
    eligible, number = eligible_tokens(5), key(0, "plan", 1)
    chosen = random_tokens(eligible, count, IDENTITY, key=number)
    assert int(chosen.sum()) == min(count, int(eligible.sum()))
    assert not bool((chosen & ~eligible).any())
    hashes = token_hash(number, IDENTITY)
    listed = sorted((int(hashes[r, c]), (r, c)) for r, c in eligible.nonzero().tolist())
    assert {(r, c) for r, c in chosen.nonzero().tolist()} == {place for _, place in listed[:count]}
    first = {(r, c) for r, c in eligible.nonzero().tolist()[:count]}
    assert count in (0, 10_000) or {(r, c) for r, c in chosen.nonzero().tolist()} != first


def test_random_tokens_in_any_order_of_rows() -> None:
    eligible, number = eligible_tokens(6), key(0, "plan", 2)
    wanted = named(random_tokens(eligible, 30, IDENTITY, key=number), IDENTITY)
    for seed in range(4):
        (may,), identity = shuffled(seed, eligible)
        assert named(random_tokens(may, 30, identity, key=number), identity) == wanted
        by_row = random_tokens(may, 30, IDENTITY, key=number)
        assert named(by_row, identity) != wanted
    assert named(random_tokens(eligible, 30, IDENTITY, key=number + 1), IDENTITY) != wanted


def test_every_token_is_equally_likely_over_keys() -> None:
    identity = identity_grid(4, 2, 5)
    eligible = torch.ones(8, 5, dtype=torch.bool)
    drawn: Counter[tuple[int, ...]] = Counter()
    for step in range(600):
        drawn.update(named(random_tokens(eligible, 8, identity, key=key(0, "plan", step)), identity))
    # Drawn without replacement: counts vary less than independent draws would by the factor 1 - 8/40.
    statistic = chisquare([drawn[token] for token in named(eligible, identity)])
    assert len(drawn) == 40
    assert statistic.pvalue > CHANCE
    without_step = named(random_tokens(eligible, 8, identity, key=key(0, "plan")), identity)
    assert chisquare([600 * (token in without_step) for token in named(eligible, identity)]).pvalue < CHANCE


def test_count_of_share_is_the_floor_of_the_decimal_fraction() -> None:
    shares = ["0.0002", "0.002", "0.004", "0.008", "0.02", "0.05", "0.07", "0.1", "0.29", "0.3", "0.57", "0.7", "1.0"]
    cases = [(share, n) for share in shares for n in [0, 1, 49, 50, 100, 499, 500, 1000, 4999, 5000, 12_345, 10**7]]
    exact = [math.floor(Fraction(share) * n) for share, n in cases]
    assert [count_of_share(float(share), n) for share, n in cases] == exact
    assert [int(float(share) * n) for share, n in cases] != exact
