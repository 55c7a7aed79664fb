"""Masked sums, means and variances. The only module of the core that divides by a count, and it is always explicit.

A loss arrives here as one term a token, of one micro-batch, and leaves as that micro-batch's part of a mean over the
whole optimizer batch. The five ways to weigh tokens and responses have verl's names, in `AGGREGATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def weight_of_part(*, count: int, num_part: int) -> float:
    """Factor that turns a mean over `count` tokens, zero outside a part of them, into the mean over that part.

        (sum over the part / count) x (count / num_part) = sum over the part / num_part

    0 for an empty part.
    """
    return count / num_part if num_part else 0.0


def response_means(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Mean over the tokens of each response: the inner mean of the paper's entropy.

    Raises: EmptyMaskError when a response has no token, naming the first such row.
    Source: arXiv 2505.22617, Eq. 5.
    """
    counts = mask.sum(dim=1)
    if bool((counts == 0).any()):
        raise EmptyMaskError(f"Response {int((counts == 0).nonzero()[0])} has no token, so it has no mean.")
    return values.masked_fill(~mask, 0.0).sum(dim=1) / counts


def means_of_responses(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """`response_means` where a response may have no token that counts; its mean is then 0, and so is its gradient."""
    counts = mask.sum(dim=1).clamp(min=1)
    return values.masked_fill(~mask, 0.0).sum(dim=1) / counts


class BatchCounts(NamedTuple):
    """What a loss may be divided by: counts over the whole optimizer batch, on all ranks."""

    num_tokens: int
    """Tokens that carry gradient."""
    num_responses: int
    """Responses with at least one such token."""
    max_tokens: int
    """Tokens of the longest response that the run allows: a constant, not the width of a padded batch."""


def token_mean(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], counts: BatchCounts) -> Float[Tensor, ""]:
    """Every token of the optimizer batch weighs the same: sum over tokens / num_tokens.

    Source: DAPO, arXiv 2503.14476, Eq. 8; the default of verl.
    """
    return part_of_mean(values, mask, count=counts.num_tokens)


def token_sum(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], counts: BatchCounts) -> Float[Tensor, ""]:
    """Sum over tokens, divided by nothing: the size of the step grows with the batch."""
    return masked_sum(values, mask)


def seq_mean_token_sum(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], counts: BatchCounts
) -> Float[Tensor, ""]:
    """Mean over responses of the sum over their tokens: sum over tokens / num_responses.

    Raises: EmptyMaskError when no response has a token that counts.
    """
    return part_of_mean(values, mask, count=counts.num_responses)


def seq_mean_token_mean(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], counts: BatchCounts
) -> Float[Tensor, ""]:
    """Mean over responses of the mean over their tokens: a token of a long response weighs less.

    Raises: EmptyMaskError when no response has a token that counts.
    Source: GRPO, arXiv 2402.03300, Eq. 3.
    """
    means = means_of_responses(values, mask)
    return part_of_mean(means, mask.any(dim=1), count=counts.num_responses)


def seq_mean_token_sum_norm(
    values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], counts: BatchCounts
) -> Float[Tensor, ""]:
    """Mean over responses of the sum over their tokens, over the constant max_tokens.

    Raises: EmptyMaskError when no response has a token that counts, or max_tokens is 0.
    Source: Dr.GRPO, arXiv 2503.20783. Differs: verl's default constant is the padded width of the micro-batch, which
      depends on who shares it; here it is a constant of the run.
    """
    return part_of_mean(values, mask, count=counts.num_responses * counts.max_tokens)


Aggregation = Callable[[Tensor, Tensor, BatchCounts], Tensor]

AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": token_mean,
    "token-sum": token_sum,
    "seq-mean-token-sum": seq_mean_token_sum,
    "seq-mean-token-mean": seq_mean_token_mean,
    "seq-mean-token-sum-norm": seq_mean_token_sum_norm,
}
"""verl's `loss_agg_mode` → what one micro-batch adds to the loss of the whole optimizer batch."""


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
