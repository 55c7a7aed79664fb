"""Masked sums and means against plain loops; what stands behind a mask is inert; empty masks are errors."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch

from covent.core.reduce import masked_mean, masked_sum, part_of_mean, response_means
from covent.errors import EmptyMaskError
from tests.support.batches import optimizer_batch, tokens
from tests.support.tolerances import TIGHT


def test_sums_and_means_are_plain_loops() -> None:
    batch = optimizer_batch(0)
    values = [float(batch.logprobs[place]) for place in tokens(batch)]
    assert float(masked_sum(batch.logprobs, batch.mask)) == pytest.approx(math.fsum(values), abs=TIGHT)
    assert float(masked_mean(batch.logprobs, batch.mask)) == pytest.approx(fmean(values), abs=TIGHT)
    over_padding_too = batch.logprobs.masked_fill(~batch.mask, 0.0).mean()
    assert float(over_padding_too) != pytest.approx(fmean(values), abs=TIGHT)


def test_response_means_weigh_responses_equally() -> None:
    batch = optimizer_batch(1)
    rows = [[float(batch.logprobs[r, c]) for r, c in tokens(batch) if r == row] for row in range(len(batch.mask))]
    means = response_means(batch.logprobs, batch.mask)
    assert means.tolist() == pytest.approx([fmean(row) for row in rows], abs=TIGHT)
    assert float(means.mean()) != pytest.approx(float(masked_mean(batch.logprobs, batch.mask)), abs=TIGHT)


def test_parts_of_a_mean_add_up_however_the_batch_is_cut() -> None:
    batch = optimizer_batch(0)
    whole = float(masked_mean(batch.logprobs, batch.mask))
    for size in (1, 2, 3):
        cuts = [slice(first, first + size) for first in range(0, len(batch.mask), size)]
        parts = [part_of_mean(batch.logprobs[cut], batch.mask[cut], count=batch.num_tokens) for cut in cuts]
        assert math.fsum(map(float, parts)) == pytest.approx(whole, abs=TIGHT)
    mean_of_means = fmean(float(masked_mean(row, mask)) for row, mask in zip(batch.logprobs, batch.mask, strict=True))
    assert mean_of_means != pytest.approx(whole, abs=TIGHT)
    with pytest.raises(EmptyMaskError):
        part_of_mean(batch.logprobs, batch.mask, count=0)


def test_nothing_flows_from_behind_the_mask() -> None:
    batch = optimizer_batch(2)
    for reduction in (masked_sum, masked_mean, lambda v, m: response_means(v, m).sum()):
        values = batch.logprobs.clone().requires_grad_()
        total = reduction(values, batch.mask)
        total.backward()
        assert math.isfinite(float(total.detach()))
        assert bool((values.grad[~batch.mask] == 0).all())
        assert bool((values.grad[batch.mask] > 0).all())
    by_multiplication = (batch.logprobs * batch.mask).sum()
    assert math.isnan(float(by_multiplication))


def test_empty_masks() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert float(masked_sum(torch.ones(2, 3), nothing)) == 0.0
    with pytest.raises(EmptyMaskError, match=r"\(2, 3\)"):
        masked_mean(torch.ones(2, 3), nothing)
    second_empty = torch.tensor([[True, False], [False, False]])
    with pytest.raises(EmptyMaskError, match="Response 1"):
        response_means(torch.ones(2, 2), second_empty)
