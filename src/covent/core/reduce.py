"""Masked sums and means. The only module of the core that divides by a count, and the count is always explicit."""

from covent.core.shapes import Bool, Float, Tensor
from covent.errors import EmptyMaskError


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
