"""Masked sums, means and variances: the module that divides by a count of tokens, and the count is always explicit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from covent.core.shapes import Bool, Float, Int64, Tensor
from covent.errors import EmptyMaskError


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations. Parts of a batch merge exactly, see `merged_moments`."""

    count: int
    mean: Tensor
    squares: Tensor
    """Sum of (value - mean)², over `count` values."""

    def variance(self, *, correction: int = 0) -> Tensor:
        """squares / (count - correction); EmptyMaskError where that is no positive number."""
        if self.count <= correction:
            raise EmptyMaskError(f"A variance of {self.count} values with correction {correction} has no denominator.")
        return self.squares / (self.count - correction)


class Estimate(NamedTuple):
    """A sample mean and how far it may lie from what it estimates."""

    value: Tensor
    standard_error: Tensor
    """Without gradient; NaN for a single cluster, which says nothing about its own spread."""


def masked_sum(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Sum of the values where the mask is True; whatever stands elsewhere, NaN included, is inert.

    Args:
      values: any unit; gradients flow where the mask is True.
      mask: True where a value counts.
    Returns: a scalar of the values' dtype; 0 when nothing counts.
    """
    return values.masked_fill(~mask, 0.0).sum()


def masked_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Float[Tensor, ""]:
    """Mean of the values where the mask is True.

    Raises: EmptyMaskError when no value counts.

    Example:
      >>> import torch
      >>> masked_mean(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([True, True, False])).item()
      2.0
    """
    count = int(mask.sum())
    if count == 0:
        raise EmptyMaskError(f"A mean over no element: the mask of shape {tuple(mask.shape)} is False everywhere.")
    return masked_sum(values, mask) / count


def part_of_mean(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, count: int) -> Float[Tensor, ""]:
    """What one micro-batch adds to a mean over the whole optimizer batch.

        sum over the micro-batch / count          added over all micro-batches: the mean over the batch

    Args:
      values, mask: of the micro-batch; gradients flow where the mask is True.
      count: tokens that count in the whole optimizer batch, at least 1.
    Raises: EmptyMaskError when count is 0.
    """
    if count < 1:
        raise EmptyMaskError(f"A mean over {count} tokens: the whole optimizer batch has none that counts.")
    return masked_sum(values, mask) / count


def response_means(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean over the tokens of each response: the inner mean of the paper's entropy.

    Raises: EmptyMaskError when a response has no token, naming the first such row.
    Source: arXiv 2505.22617, Eq. 5.
    """
    counts = mask.sum(dim=1)
    if bool((counts == 0).any()):
        raise EmptyMaskError(f"Response {int((counts == 0).nonzero()[0])} has no token, so it has no mean.")
    return values.masked_fill(~mask, 0.0).sum(dim=1) / counts


def masked_moments(values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Moments:
    """Count, mean and sum of squared deviations of the values where the mask is True.

    Args:
      values: any unit; gradients flow where the mask is True.
      mask: True where a value counts; at least one.
    Raises: EmptyMaskError when no value counts.
    """
    mean = masked_mean(values, mask)
    return Moments(
        int(mask.sum()), mean, (values.masked_fill(~mask, 0.0) - mean).square().masked_fill(~mask, 0.0).sum()
    )


def merged_moments(parts: Sequence[Moments]) -> Moments:
    """The moments of a whole batch from those of its micro-batches or ranks.

        n = n1 + n2,   mean = mean1 + (mean2 - mean1) n2/n,   squares = squares1 + squares2 + (mean2 - mean1)² n1 n2/n

    Raises: EmptyMaskError when there is no part.
    Source: Chan, Golub and LeVeque, 1983.

    Example:
      >>> left = masked_moments(torch.tensor([1.0, 2.0]), torch.tensor([True, True]))
      >>> right = masked_moments(torch.tensor([6.0]), torch.tensor([True]))
      >>> merged_moments([left, right])
      Moments(count=3, mean=tensor(3.), squares=tensor(14.))
    """
    if not parts:
        raise EmptyMaskError("The moments of no part at all: give at least one.")
    whole = parts[0]
    for part in parts[1:]:
        count, gap = whole.count + part.count, part.mean - whole.mean
        whole = Moments(
            count,
            whole.mean + gap * (part.count / count),
            whole.squares + part.squares + gap.square() * (whole.count * part.count / count),
        )
    return whole


def masked_variance(
    values: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], *, correction: int
) -> Float[Tensor, ""]:
    """Variance of the values where the mask is True, with its denominator spelt out.

        sum of (value - mean)² / (n - correction)

    Args:
      values: any unit; gradients flow where the mask is True.
      mask: True where a value counts.
      correction: 0 for the variance of these values, 1 for the unbiased estimate of what they were drawn from.
    Raises: EmptyMaskError unless more than `correction` values count.
    """
    count = int(mask.sum())
    if count <= correction:
        raise EmptyMaskError(f"A variance of {count} values with correction {correction} has no denominator.")
    return masked_moments(values, mask).variance(correction=correction)


def clustered_mean(
    values: Float[Tensor, "B T"],
    weights: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clusters: Int64[Tensor, " B"],
) -> Estimate:
    """Weighted mean over tokens, with a standard error that knows that tokens of one response belong together.

        m = sum(w v) / sum(w)      R_c = sum over cluster c of w (v - m)      se = sqrt( C/(C-1) sum_c R_c² ) / |sum(w)|

    Args:
      values: any unit; gradients flow where the mask is True.
      weights: unitless; gradients flow where the mask is True.
      mask: True where a token counts.
      clusters: number of each row's cluster; rows of different clusters are independent.
    Returns: the mean, and its standard error over C clusters: NaN for C = 1, where nothing tells the spread.
    Raises: EmptyMaskError when no token counts.
    Source: the linearised variance of a ratio; W. G. Cochran, Sampling Techniques, 3rd edition, section 6.
    """
    if not bool(mask.any()):
        raise EmptyMaskError(f"A mean over no element: the mask of shape {tuple(mask.shape)} is False everywhere.")
    values, weights = values.masked_fill(~mask, 0.0), weights.masked_fill(~mask, 0.0)
    total = weights.sum()
    mean = (weights * values).sum() / total
    by_row = (weights * (values - mean)).detach().sum(dim=1)
    # Only clusters with a token: an empty response is no observation.
    rows = mask.any(dim=1)
    names, place = clusters[rows].unique(return_inverse=True)
    residuals = by_row.new_zeros(len(names)).index_add(0, place, by_row[rows])
    num = len(names)
    spread = residuals.square().sum() * (num / (num - 1)) if num > 1 else torch.full_like(mean.detach(), torch.nan)
    return Estimate(mean, spread.sqrt() / total.detach().abs())
