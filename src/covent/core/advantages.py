"""Advantages of responses from the rewards of their group."""

from covent.core.shapes import Float, Tensor
from covent.errors import ShapeError

# verl and TRL add the same constant to the standard deviation.
_STD_FLOOR = 1e-6


def group_centred(rewards: Float[Tensor, "G K"]) -> Float[Tensor, "G K"]:
    """Reward minus the mean of its group.

        A = r - mean(r)

    Args:
      rewards: reward units; one row a group.
    Returns: reward units; exactly 0 throughout a group of equal rewards.
    Raises: ShapeError for groups of one, whose advantage would always be 0.
    Source: Dr.GRPO, arXiv 2503.20783.
    """
    if rewards.shape[1] < 2:
        raise ShapeError("A group needs at least 2 samples: with 1 the group's mean is the reward itself.")
    # The mean of equal numbers can differ from them by rounding, and a standard deviation would blow that up.
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)).masked_fill(equal, 0.0)


def group_standardised(rewards: Float[Tensor, "G K"]) -> Float[Tensor, "G K"]:
    """Centred reward over the unbiased standard deviation of its group: the advantage of GRPO.

        A = (r - mean(r)) / (std(r) + 1e-6)

    Returns: unitless; exactly 0 throughout a group of equal rewards.
    Raises: ShapeError for groups of one.
    Source: arXiv 2505.22617, Eq. 3, with the n-1 standard deviation and the 1e-6 of its released code.

    Example:
      >>> import torch
      >>> group_standardised(torch.tensor([[1.0, 0.0]])).round(decimals=3)
      tensor([[ 0.7070, -0.7070]])
    """
    centred = group_centred(rewards)
    std = (centred.square().sum(dim=1, keepdim=True) / (rewards.shape[1] - 1)).sqrt()
    return centred / (std + _STD_FLOOR)
