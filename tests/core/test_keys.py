"""The hash against splitmix64 in Python's integers; numbers that are uniform, unrelated and reproducible."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from covent.core.keys import TokenIdentity, key, token_hash, token_uniform
from tests.support.batches import identity_grid
from tests.support.tolerances import CHANCE

_WORD = 2**64 - 1


def splitmix64(state: int) -> int:
    """First output of splitmix64 seeded with `state`, as published: unsigned 64-bit arithmetic."""
    state = (state + 0x9E3779B97F4A7C15) & _WORD
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _WORD
    return state ^ (state >> 31)


def reference_hash(number: int, prompt: int, sample: int, position: int) -> int:
    state = splitmix64((prompt + number) & _WORD)
    state = splitmix64((state + sample) & _WORD)
    return splitmix64((state + position) & _WORD)


def one_token(prompt: int, sample: int, position: int) -> TokenIdentity:
    return TokenIdentity(*(torch.tensor([[value]]) for value in (prompt, sample, position)))


def is_uniform(numbers: Tensor) -> bool:
    """Chi-square over 64 bins of the numbers, and over 8 x 8 of consecutive pairs."""
    flat = numbers.flatten()
    bins = (flat * 64).long().bincount(minlength=64)
    coarse = (flat * 8).long()
    neighbours = (coarse[:-1:2] * 8 + coarse[1::2]).bincount(minlength=64)
    return all(chisquare(counts.tolist()).pvalue > CHANCE for counts in (bins, neighbours))


def test_the_reference_is_the_published_one() -> None:
    """First output of splitmix64 seeded with 1234567, as other implementations print it."""
    assert splitmix64(1234567) == 6457827717110365317


@pytest.mark.parametrize("number", [0, 1, 2**62, 2**63 - 1, key(0, "plan", 5)])
def test_the_hash_is_splitmix64_once_per_part(number: int) -> None:
    for identity in [(0, 0, 0), (1, 2, 3), (2**40, 7, 10**6), (5, 0, 0)]:
        found = int(token_hash(number, one_token(*identity))) & _WORD
        assert found == reference_hash(number, *identity)
        assert found != reference_hash(number, *identity[::-1]) or identity == identity[::-1]
        uniform = float(token_uniform(number, one_token(*identity)))
        assert uniform == (reference_hash(number, *identity) >> 11) / 2**53


@pytest.mark.parametrize("parts", [(0, "rollout"), (1, "rollout"), (0, "plan", 0), (0, "plan", 1)])
def test_numbers_are_uniform(parts: tuple[int | str, ...]) -> None:
    identity = identity_grid(64, 8, 40)
    numbers = token_uniform(key(*parts), identity)
    assert float(numbers.min()) >= 0 and float(numbers.max()) < 1
    assert is_uniform(numbers)
    assert is_uniform(numbers.T.contiguous()), "consecutive responses"
    congruential = (identity.prompt * 31 + identity.sample * 7 + identity.position) * 0.6180339887 % 1.0
    assert not is_uniform(congruential)


def test_different_keys_and_identities_give_unrelated_numbers() -> None:
    identity = identity_grid(64, 8, 40)
    drawn = [token_uniform(key(0, "plan", step), identity).flatten() for step in range(3)]
    correlations = torch.corrcoef(torch.stack(drawn))[~torch.eye(3, dtype=torch.bool)]
    four_errors = 4 / len(drawn[0]) ** 0.5
    assert float(correlations.abs().max()) < four_errors
    assert len(set(token_hash(7, identity).flatten().tolist())) == identity.prompt.numel()
    same = torch.corrcoef(torch.stack([drawn[0], token_uniform(key(0, "plan", 0), identity).flatten()]))
    assert float(same[0, 1]) > four_errors


def test_the_row_does_not_matter() -> None:
    identity = identity_grid(4, 3, 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = TokenIdentity(*(column[order] for column in identity))
    assert torch.equal(token_hash(3, moved), token_hash(3, identity)[order])
    assert not torch.equal(token_hash(3, moved), token_hash(3, identity))
    assert not torch.equal(token_hash(4, identity), token_hash(3, identity))


def test_keys() -> None:
    keys = [key(seed, purpose, step) for seed in range(20) for purpose in ("plan", "rollout") for step in range(20)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= number < 2**63 for number in keys)
    assert key(1, "plan", 0) == key(1, "plan", 0)
    assert len({key(1), key("1"), key(1, 1), key(11), key("1", "1"), key("1, 1")}) == 6
    assert 0.4 < sum(number >> 62 for number in keys) / len(keys) < 0.6
