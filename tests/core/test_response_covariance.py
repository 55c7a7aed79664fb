"""The covariance of Fig. 8 against plain loops over prompts and responses."""

from __future__ import annotations

import math
from statistics import fmean

import pytest
import torch

from covent.core.reduce import response_means
from covent.core.response_covariance import group_covariances, response_covariance
from covent.errors import EmptyMaskError, ShapeError
from tests.support.batches import optimizer_batch, padded
from tests.support.tolerances import TIGHT

BATCH = optimizer_batch(0)
ADVANTAGES = torch.randn(8, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def plain(*, normalised: bool = True, divisor: int = 4) -> list[float]:
    """Of each prompt, one response at a time."""
    found = []
    for prompt in range(8):
        rows = [BATCH.logprobs[row][BATCH.mask[row]].tolist() for row in range(4 * prompt, 4 * prompt + 4)]
        logs = [fmean(row) if normalised else math.fsum(row) for row in rows]
        weighted = [math.exp(x) * a for x, a in zip(logs, ADVANTAGES[prompt].tolist(), strict=True)]
        products = [(x - fmean(logs)) * (w - fmean(weighted)) for x, w in zip(logs, weighted, strict=True)]
        found.append(math.fsum(products) / divisor)
    return found


def test_each_prompt_and_their_mean() -> None:
    per_prompt = group_covariances(response_means(BATCH.logprobs, BATCH.mask).view(8, 4), ADVANTAGES)
    assert per_prompt.tolist() == pytest.approx(plain(), abs=TIGHT)
    whole = float(response_covariance(BATCH.logprobs, ADVANTAGES, BATCH.mask))
    assert whole == pytest.approx(fmean(plain()), abs=TIGHT)
    for wrong in (plain(normalised=False), plain(divisor=3)):
        assert whole != pytest.approx(fmean(wrong), abs=TIGHT)
    over_the_batch = group_covariances(response_means(BATCH.logprobs, BATCH.mask)[None], ADVANTAGES.flatten()[None])
    assert whole != pytest.approx(float(over_the_batch), abs=TIGHT)


def test_padding_is_inert_and_no_gradient_flows() -> None:
    more = padded(BATCH, 5)
    logprobs = more.logprobs.clone().requires_grad_()
    found = response_covariance(logprobs, ADVANTAGES, more.mask)
    assert not found.requires_grad
    assert float(found) == pytest.approx(fmean(plain()), abs=TIGHT)


def test_groups_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match="at least 2"):
        group_covariances(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(ShapeError, match="32 responses"):
        response_covariance(BATCH.logprobs, ADVANTAGES[1:], BATCH.mask)
    with pytest.raises(EmptyMaskError, match="Response 0"):
        response_covariance(BATCH.logprobs, ADVANTAGES, torch.zeros_like(BATCH.mask))
