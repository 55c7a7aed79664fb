"""One rule for every control that selects: all candidates were taken when no fewer were selected, and it is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from covent.controls import AnyControl, ClipCov, ClipCovReleased, KLCov, KLCovReleased, TopEntropy, plan
from tests.support.batches import optimizer_batch

WIDE = {"clip_cov_lb": -1e6, "clip_cov_ub": 1e6, "clip_ratio_high": 1e9}
ALL_OF_THEM = {
    "clip_cov": ClipCov(clip_cov_ratio=1.0, **WIDE),
    "clip_cov_released": ClipCovReleased(clip_cov_ratio=1.0, **WIDE),
    "kl_cov": KLCov(kl_cov_ratio=1.0),
    "kl_cov_released": KLCovReleased(kl_cov_ratio=1.0),
}
A_HALF = {
    "clip_cov": ClipCov(clip_cov_ratio=0.5, **WIDE),
    "clip_cov_released": ClipCovReleased(clip_cov_ratio=0.5, **WIDE),
    "kl_cov": KLCov(kl_cov_ratio=0.5),
    "kl_cov_released": KLCovReleased(kl_cov_ratio=0.5),
    "top_entropy": TopEntropy(top_entropy_quantile=0.5),
    "top_entropy of 0": TopEntropy(top_entropy_quantile=0.0),
}


@pytest.mark.parametrize("settings", ALL_OF_THEM.values(), ids=ALL_OF_THEM)
def test_a_share_of_1_takes_every_candidate_and_says_so(settings: AnyControl) -> None:
    batch = optimizer_batch(0)
    made = plan(batch, settings, 3)
    assert bool(made.chosen[batch.mask].all())
    assert made.reading.num_selected == made.reading.num_candidates == batch.num_tokens
    assert made.reading.took_all_candidates
    assert f"{settings.type} took every candidate: {batch.num_tokens} of {batch.num_tokens}" in made.reading.note


@pytest.mark.parametrize("settings", A_HALF.values(), ids=A_HALF)
def test_a_smaller_share_does_not(settings: AnyControl) -> None:
    reading = plan(optimizer_batch(0), settings, 3).reading
    assert reading.num_candidates is not None and 0 < reading.num_selected < reading.num_candidates
    assert not reading.took_all_candidates and reading.note == ""


def test_one_token_short_of_all_is_not_all() -> None:
    batch = optimizer_batch(1)
    reading = plan(batch, KLCov(kl_cov_ratio=1 - 0.5 / batch.num_tokens), 3).reading
    assert reading.num_selected == batch.num_tokens - 1 and not reading.took_all_candidates


def test_nothing_of_nothing_is_not_all() -> None:
    """The rule without its lower end would call an empty selection a full one."""
    batch = optimizer_batch(1)
    for settings in (ClipCov(clip_cov_lb=1e5, clip_cov_ub=1e6), ClipCovReleased(clip_cov_lb=1e5, clip_cov_ub=1e6)):
        reading = plan(batch, settings, 3).reading
        assert reading.num_candidates == reading.num_selected == 0 and not reading.took_all_candidates
        assert "took every" not in reading.note


@pytest.mark.parametrize(
    "settings",
    [
        KLCovReleased(kl_cov_ratio=0.01, responses_per_micro_batch=1),
        ClipCovReleased(clip_cov_ratio=0.01, responses_per_micro_batch=1, **WIDE),
    ],
    ids=lambda settings: settings.type,
)
def test_a_micro_batch_of_one_token_is_taken_whole_and_said(settings: AnyControl) -> None:
    """At least one token of each micro-batch is taken, so a response of one token has no choice."""
    batch = optimizer_batch(2)
    short = int((batch.mask.sum(dim=1) == 1).sum())
    reading = plan(batch, settings, 3).reading
    assert 0 < short < len(batch.mask)
    assert f"took every candidate in {short} of {len(batch.mask)} micro-batches" in reading.note
    assert not reading.took_all_candidates
    longer = settings.model_copy(update={"responses_per_micro_batch": 8})
    assert plan(batch, longer, 3).reading.note == ""
    first_tokens = batch.mask & (batch.identity.position == 0)
    alone = plan(replace(batch, mask=first_tokens), settings, 3).reading
    assert alone.took_all_candidates and "took every candidate: 32 of 32" in alone.note
