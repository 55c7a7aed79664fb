"""The released code's semantics against plain loops: centre, count and choice inside each micro-batch."""

from __future__ import annotations

import math

import pytest
import torch

from covent.controls import ClipCov, ClipCovReleased, KLCov, KLCovReleased, plan
from covent.core.keys import token_hash
from covent.core.plan import Measured
from tests.support.batches import optimizer_batch, reordered, tokens
from tests.support.tolerances import FLOAT32

BAND = (0.2, 0.9)
Place = tuple[int, int]


def micro_batches(batch: Measured, size: int) -> list[list[Place]]:
    rows = range(0, len(batch.mask), size)
    return [[place for place in tokens(batch) if first <= place[0] < first + size] for first in rows]


def covariances(batch: Measured, places: list[Place]) -> dict[Place, float]:
    mean_l = math.fsum(float(batch.logprobs[p]) for p in places) / len(places)
    mean_a = math.fsum(float(batch.advantages[p]) for p in places) / len(places)
    return {p: (float(batch.logprobs[p]) - mean_l) * (float(batch.advantages[p]) - mean_a) for p in places}


def chosen_places(batch: Measured, settings: ClipCovReleased | KLCovReleased, key: int = 0) -> set[Place]:
    return {(r, c) for r, c in plan(batch, settings, key).chosen.nonzero().tolist()}


@pytest.mark.parametrize("size", [2, 5, 32])
@pytest.mark.parametrize("ratio", [0.05, 0.001])
def test_kl_cov_takes_the_top_of_each_micro_batch_and_at_least_one(size: int, ratio: float) -> None:
    batch = optimizer_batch(0)
    expected: set[Place] = set()
    for places in micro_batches(batch, size):
        found = covariances(batch, places)
        count = max(1, int(ratio * len(places)))
        expected |= set(sorted(found, key=lambda place: -found[place])[:count])
    settings = KLCovReleased(kl_cov_ratio=ratio, ppo_kl_coef=0.5, responses_per_micro_batch=size)
    made = plan(batch, settings, 0)
    assert chosen_places(batch, settings) == expected
    assert made.reading.num_selected == len(expected)
    assert torch.equal(made.kl_weight > 0, made.chosen) and (made.clip_low, made.clip_high) == (None, None)
    exact = plan(batch, KLCov(kl_cov_ratio=ratio), 0)
    assert torch.equal(exact.chosen, made.chosen) == (size == 32 and ratio == 0.05)


def test_one_response_alone_is_ranked_by_its_rounding() -> None:
    """As in the released code, which sums in the precision of its numbers; covent's own covariances are 0 there."""
    num_noisy = 0
    for row in range(32):
        alone = reordered(optimizer_batch(7, dtype=torch.float32), slice(row, row + 1))
        assert not bool(alone.covariances().any())
        noise = alone.covariances_as_released()
        assert noise.dtype == torch.float32 and float(noise.abs().max()) < FLOAT32
        num_noisy += bool(noise.any())
    assert num_noisy > 5


def test_kl_cov_acts_on_rounding_where_ours_does_not() -> None:
    batch = optimizer_batch(1, drift=1e-15)
    assert float(plan(batch, KLCovReleased(kl_cov_ratio=0.05), 0).kl_weight.max()) > 0
    assert float(plan(batch, KLCov(kl_cov_ratio=0.05), 0).kl_weight.max()) == 0


@pytest.mark.parametrize("size", [2, 5, 32])
@pytest.mark.parametrize("ratio", [0.05, 0.001])
def test_clip_cov_draws_from_an_open_band_without_clipped_tokens(size: int, ratio: float) -> None:
    batch = optimizer_batch(2, drift=0.8)
    hashes = token_hash(7, batch.identity)
    expected: set[Place] = set()
    num_candidates = 0
    for places in micro_batches(batch, size):
        found = covariances(batch, places)
        may = []
        for place, covariance in found.items():
            ratio_here = math.exp(float(batch.logprobs[place]) - float(batch.old_logprobs[place]))
            cut = ratio_here > 2 and float(batch.advantages[place]) > 0
            if BAND[0] < covariance < BAND[1] and not cut:
                may.append(place)
        count = max(1, int(ratio * len(places)))
        expected |= set(sorted(may, key=lambda place: int(hashes[place]))[:count])
        num_candidates += len(may)
    settings = ClipCovReleased(
        clip_cov_ratio=ratio, clip_cov_lb=BAND[0], clip_cov_ub=BAND[1], responses_per_micro_batch=size
    )
    made = plan(batch, settings, 7)
    assert chosen_places(batch, settings, 7) == expected
    assert made.reading.num_candidates == num_candidates and made.reading.num_selected == len(expected)
    assert torch.equal(made.keeps_gradient, batch.mask & ~made.chosen)


def test_one_response_a_micro_batch_switches_clip_cov_off() -> None:
    """Its advantage is constant, so its covariances are 0 about its own mean: the fault that users meet."""
    batch = optimizer_batch(3)
    alone = ClipCovReleased(clip_cov_ratio=0.05, clip_cov_lb=0.2, responses_per_micro_batch=1)
    assert plan(batch, alone, 0).reading.num_candidates == 0
    assert plan(batch, ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2), 0).reading.num_selected > 0


@pytest.mark.parametrize("settings", [KLCovReleased(kl_cov_ratio=0.05), ClipCovReleased(clip_cov_lb=0.2)])
def test_the_order_of_rows_does_matter(settings: KLCovReleased | ClipCovReleased) -> None:
    """What the exact controls are for."""
    batch = optimizer_batch(4)
    order = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(0))
    moved = plan(reordered(batch, order), settings, 0).chosen
    assert not torch.equal(moved, plan(batch, settings, 0).chosen[order])


@pytest.mark.parametrize("settings", [KLCovReleased(), ClipCovReleased()])
def test_a_micro_batch_without_a_token_is_left_out(settings: KLCovReleased | ClipCovReleased) -> None:
    batch = optimizer_batch(5)
    batch.mask[8:16] = False
    made = plan(batch, settings, 0)
    assert not bool(made.chosen[8:16].any())
