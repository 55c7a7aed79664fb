"""Masked sums and means against plain loops; what stands behind a mask is inert; empty masks are errors."""

from __future__ import annotations

import math
from statistics import fmean, pvariance, variance

import pytest
import torch

from covent.core.reduce import (
    AGGREGATIONS,
    BatchCounts,
    clustered_mean,
    masked_mean,
    masked_moments,
    masked_sum,
    masked_variance,
    means_of_responses,
    merged_moments,
    part_of_mean,
    response_means,
    seq_mean_token_mean,
    seq_mean_token_sum,
    seq_mean_token_sum_norm,
    token_mean,
    token_sum,
    weight_of_part,
)
from covent.errors import EmptyMaskError
from tests.support.batches import optimizer_batch, splits, tokens
from tests.support.tolerances import CENTRED, STANDARD_ERRORS, TIGHT


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


def test_aggregations_by_plain_loops() -> None:
    batch = optimizer_batch(1)
    batch.mask[5] = False  # a response without a token counts nowhere
    rows: dict[int, list[float]] = {}
    for place in tokens(batch):
        rows.setdefault(place[0], []).append(float(batch.logprobs[place]))
    flat = [value for row in rows.values() for value in row]
    truths = {
        token_mean: fmean(flat),
        token_sum: math.fsum(flat),
        seq_mean_token_sum: math.fsum(flat) / 31,
        seq_mean_token_mean: fmean(fmean(row) for row in rows.values()),
        seq_mean_token_sum_norm: math.fsum(flat) / 31 / 40,
    }
    assert set(truths) == set(AGGREGATIONS.values())
    counts = batch.counts(max_tokens=40)
    assert counts == BatchCounts(len(flat), 31, 40)
    for aggregation, truth in truths.items():
        found = float(aggregation(batch.logprobs, batch.mask, counts))
        assert found == pytest.approx(truth, abs=TIGHT)
        parts = [aggregation(batch.logprobs[cut], batch.mask[cut], counts) for cut in splits(32, 1, 9, 20)]
        assert math.fsum(map(float, parts)) == pytest.approx(truth, abs=TIGHT)
        others = [other for other in truths if other is not aggregation]
        assert all(found != pytest.approx(truths[other], abs=TIGHT) for other in others)


def test_a_response_without_a_token_has_mean_0_and_no_gradient() -> None:
    batch = optimizer_batch(1)
    batch.mask[5] = False
    values = batch.logprobs.clone().requires_grad_()
    means = means_of_responses(values, batch.mask)
    kept = batch.mask.any(dim=1)
    assert means[kept].tolist() == pytest.approx(response_means(batch.logprobs[kept], batch.mask[kept]).tolist())
    assert means[5].item() == 0.0 and not bool(kept[5])
    means.sum().backward()
    assert bool((values.grad[~batch.mask] == 0).all()) and bool((values.grad[batch.mask] > 0).all())


def test_the_weight_of_a_part_gives_the_mean_over_the_part() -> None:
    batch = optimizer_batch(2)
    part = batch.mask & (batch.entropies > 0.5)
    num_part = int(part.sum())
    inside = batch.logprobs.masked_fill(~part, 0.0)
    whole = part_of_mean(inside, batch.mask, count=batch.num_tokens)
    truth = fmean(batch.logprobs[part].tolist())
    weight = weight_of_part(count=batch.num_tokens, num_part=num_part)
    assert weight * float(whole) == pytest.approx(truth, abs=TIGHT)
    assert float(whole) != pytest.approx(truth, abs=TIGHT)
    assert weight_of_part(count=batch.num_tokens, num_part=0) == 0.0


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


def test_variances_by_the_standard_library() -> None:
    batch = optimizer_batch(3)
    values = [float(batch.logprobs[place]) for place in tokens(batch)]
    population = float(masked_variance(batch.logprobs, batch.mask, correction=0))
    unbiased = float(masked_variance(batch.logprobs, batch.mask, correction=1))
    assert population == pytest.approx(pvariance(values), abs=TIGHT)
    assert unbiased == pytest.approx(variance(values), abs=TIGHT)
    assert population != pytest.approx(unbiased, abs=TIGHT)
    far = float(masked_variance(batch.logprobs + 1e4, batch.mask, correction=0))
    assert far == pytest.approx(population, abs=CENTRED)
    kept = batch.logprobs[batch.mask].float() + 1e4
    mean_of_squares = float(kept.square().mean() - kept.mean().square())
    assert mean_of_squares != pytest.approx(population, rel=0.01)


def test_the_gradient_of_a_variance() -> None:
    batch = optimizer_batch(4)
    values = batch.logprobs.clone().requires_grad_()
    masked_variance(values, batch.mask, correction=1).backward()
    kept = batch.logprobs[batch.mask]
    truth = 2 * (kept - kept.mean()) / (len(kept) - 1)
    assert values.grad[batch.mask].tolist() == pytest.approx(truth.tolist(), abs=TIGHT)
    assert bool((values.grad[~batch.mask] == 0).all())


def test_moments_merge_however_the_batch_is_cut() -> None:
    batch = optimizer_batch(5)
    whole = masked_moments(batch.logprobs, batch.mask)
    for cuts in ([1], [3, 20], [31], [8, 16, 24]):
        parts = [masked_moments(batch.logprobs[cut], batch.mask[cut]) for cut in splits(len(batch.mask), *cuts)]
        merged = merged_moments(parts)
        assert merged.count == whole.count
        assert [float(merged.mean), float(merged.squares)] == pytest.approx(
            [float(whole.mean), float(whole.squares)], rel=TIGHT
        )
        without_the_gap = sum(float(part.squares) for part in parts)
        assert without_the_gap != pytest.approx(float(whole.squares), rel=TIGHT)


def test_variances_without_a_denominator() -> None:
    one = torch.tensor([[True, False]])
    assert float(masked_variance(torch.ones(1, 2), one, correction=0)) == 0.0
    with pytest.raises(EmptyMaskError, match="correction 1"):
        masked_variance(torch.ones(1, 2), one, correction=1)
    with pytest.raises(EmptyMaskError, match="0 values"):
        masked_variance(torch.ones(1, 2), ~one & one, correction=0)
    with pytest.raises(EmptyMaskError):
        masked_moments(torch.ones(1, 2), one).variance(correction=1)
    with pytest.raises(EmptyMaskError):
        merged_moments([])


def test_a_clustered_mean_by_plain_loops() -> None:
    batch = optimizer_batch(6)
    weights = batch.entropies + 0.5
    clusters = torch.arange(32) // 4
    found = clustered_mean(batch.logprobs, weights, batch.mask, clusters)
    kept = [(int(clusters[r]), float(weights[r, c]), float(batch.logprobs[r, c])) for r, c in tokens(batch)]
    total = math.fsum(w for _, w, _ in kept)
    mean = math.fsum(w * v for _, w, v in kept) / total
    residuals = [math.fsum(w * (v - mean) for c, w, v in kept if c == cluster) for cluster in range(8)]
    error = math.sqrt(8 / 7 * math.fsum(r * r for r in residuals)) / total
    assert [float(found.value), float(found.standard_error)] == pytest.approx([mean, error], abs=TIGHT)
    each_row = clustered_mean(batch.logprobs, weights, batch.mask, torch.arange(32))
    assert float(each_row.standard_error) != pytest.approx(error, abs=TIGHT)
    assert math.isnan(float(clustered_mean(batch.logprobs, weights, batch.mask, 0 * clusters).standard_error))
    with pytest.raises(EmptyMaskError):
        clustered_mean(batch.logprobs, weights, torch.zeros_like(batch.mask), clusters)


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    """Rows share a level, so that tokens of a row are not independent: an error that counts tokens is too small."""
    generator = torch.Generator().manual_seed(7)
    values = torch.randn(400, 50, 1, generator=generator) + 0.3 * torch.randn(400, 50, 12, generator=generator)
    mask, ones = torch.ones(50, 12, dtype=torch.bool), torch.ones(50, 12)
    found = [clustered_mean(v, ones, mask, torch.arange(50)) for v in values]
    spread = float(torch.stack([f.value for f in found]).std())
    claimed = fmean(float(f.standard_error) for f in found)
    # The relative error of a standard deviation over n repetitions is 1 / sqrt(2 n).
    assert claimed == pytest.approx(spread, rel=STANDARD_ERRORS / math.sqrt(2 * 400))
    counting_tokens = float(values.std()) / math.sqrt(600)
    assert counting_tokens != pytest.approx(spread, rel=0.5)
