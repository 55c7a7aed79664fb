"""Clip-Cov against plain loops: the closed band, the excluded PPO-cut tokens, the count, and what it says of itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from covent.controls import ClipCov, clip_cov
from covent.core.keys import token_hash
from covent.core.loss import surrogate
from covent.core.plan import Measured
from tests.support.batches import optimizer_batch, tokens

BAND = (0.3, 1.2)
SETTINGS = ClipCov(clip_cov_ratio=0.03, clip_cov_lb=BAND[0], clip_cov_ub=BAND[1])


def candidates(batch: Measured, *, ppo_cut_too: bool = False) -> set[tuple[int, int]]:
    """The band and the PPO clip of range 1/1, token by token."""
    places = tokens(batch)
    mean_l = math.fsum(float(batch.logprobs[p]) for p in places) / len(places)
    mean_a = math.fsum(float(batch.advantages[p]) for p in places) / len(places)
    found = set()
    for place in places:
        logprob, advantage = float(batch.logprobs[place]), float(batch.advantages[place])
        ratio = math.exp(logprob - float(batch.old_logprobs[place]))
        cut = ratio > 2 and advantage > 0
        if BAND[0] <= (logprob - mean_l) * (advantage - mean_a) <= BAND[1] and (ppo_cut_too or not cut):
            found.add(place)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_floor_of_the_share_at_random_from_the_band(seed: int) -> None:
    batch = optimizer_batch(seed, drift=0.8)
    plan = clip_cov(batch, SETTINGS, key=seed)
    may, count = candidates(batch), math.floor(0.03 * batch.num_tokens)
    hashes = token_hash(seed, batch.identity)
    drawn = sorted(may, key=lambda place: int(hashes[place]))[:count]
    assert {tuple(place) for place in plan.chosen.nonzero().tolist()} == set(drawn)
    assert plan.reading.num_candidates == len(may) > count == plan.reading.num_selected > 0
    assert (plan.reading.asked_frac, plan.reading.num_tokens) == (0.03, batch.num_tokens)
    assert not plan.reading.took_all_candidates and plan.reading.note == ""
    assert torch.equal(plan.keeps_gradient, batch.mask & ~plan.chosen)
    assert float(plan.kl_weight.abs().max()) == 0.0


def test_tokens_that_the_ppo_clip_cuts_are_no_candidates() -> None:
    batch = optimizer_batch(1, drift=0.8)
    with_cut = candidates(batch, ppo_cut_too=True)
    assert clip_cov(batch, SETTINGS, key=0).reading.num_candidates == len(candidates(batch)) < len(with_cut)
    terms = surrogate(
        batch.logprobs, batch.old_logprobs, batch.advantages, batch.mask, clip_cov(batch, SETTINGS, key=0)
    )
    cut = terms.cut_low | terms.cut_high
    assert bool(cut.any())
    everything = clip_cov(batch, SETTINGS.model_copy(update={"clip_cov_ratio": 1.0}), key=0)
    assert not bool((everything.chosen & cut).any())
    assert {tuple(place) for place in everything.chosen.nonzero().tolist()} != with_cut


def test_the_band_is_closed() -> None:
    """Covariances of exactly -4, 0, 1 and 4: log-probs and advantages of whole numbers with mean 0."""
    batch = optimizer_batch(0, num_prompts=1, num_samples=4, length=2)
    values = torch.tensor([[2.0, -2.0], [1.0, -1.0], [2.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    signs = torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]], dtype=torch.float64)
    exact = replace(
        batch, logprobs=values, old_logprobs=values, advantages=values * signs, mask=torch.ones(4, 2, dtype=torch.bool)
    )

    def num_candidates(low: float, high: float) -> int | None:
        band = ClipCov(clip_cov_ratio=1.0, clip_cov_lb=low, clip_cov_ub=high)
        return clip_cov(exact, band, key=0).reading.num_candidates

    assert sorted(exact.covariances().flatten().tolist()) == [-4, -4, 0, 0, 1, 1, 4, 4]
    assert num_candidates(1, 4) == 4
    assert num_candidates(1 + 1e-9, 4 - 1e-9) == 4, "no more than rounding"
    assert num_candidates(1 + 1e-4, 4) == 2
    assert num_candidates(1, 4 - 1e-4) == 2
    assert num_candidates(0, 1) == 4


def test_taking_every_candidate_is_said() -> None:
    batch = optimizer_batch(2)
    may = len(candidates(batch))
    for asked, took_all in [(may - 1, False), (may, True), (may + 5, True)]:
        settings = SETTINGS.model_copy(update={"clip_cov_ratio": (asked + 0.5) / batch.num_tokens})
        reading = clip_cov(batch, settings, key=0).reading
        assert reading.took_all_candidates is took_all
        assert reading.num_selected == min(asked, may)
        assert ("took every candidate" in reading.note) is took_all
        assert (f"{may} tokens" in reading.note and f"{asked} were asked" in reading.note) is took_all


def test_an_empty_band_is_said_and_is_not_taking_all() -> None:
    settings = SETTINGS.model_copy(update={"clip_cov_lb": 1e6, "clip_cov_ub": 2e6})
    reading = clip_cov(optimizer_batch(3), settings, key=0).reading
    assert (reading.num_candidates, reading.num_selected, reading.took_all_candidates) == (0, 0, False)
    assert "chose none" in reading.note


def test_settings_out_of_range_are_refused() -> None:
    assert ClipCov().clip_cov_ratio == 2e-4 and (ClipCov().clip_cov_lb, ClipCov().clip_cov_ub) == (1.0, 5.0)
    for wrong in ({"clip_cov_ratio": 20}, {"clip_cov_ratio": 0}, {"clip_cov_lb": 5.0}, {"clip_cov_percent": 0.2}):
        with pytest.raises(ValidationError):
            ClipCov(**wrong)
