"""Advantages of responses from the rewards of their group, and of tokens from the rewards of the whole batch.

    name                            function
    GRPO                            group_standardised
    GRPO without std, Dr.GRPO       group_centred; the two differ in how the loss divides, not in the advantage
    RLOO                            leave_one_out
    REINFORCE++                     reinforce_plus_plus
    REINFORCE++-baseline            reinforce_plus_plus_baseline

A response that nothing can be compared with teaches nothing: in a group of equal rewards, and in a group where only
one sample is present, the group's advantages are exactly 0. A batch of groups of one is refused, because it would
train on nothing.
"""

from __future__ import annotations

import torch

from covent.core.reduce import Moments, masked_moments
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ConfigError, EmptyMaskError, ShapeError

# verl and TRL add the same constant to the standard deviation.
_STD_FLOOR = 1e-6

# verl adds it to the variance of all tokens.
_VARIANCE_FLOOR = 1e-8


def group_centred(rewards: Float[Tensor, "G K"], *, present: Bool[Tensor, "G K"] | None = None) -> Float[Tensor, "G K"]:
    """Reward minus the mean of its group.

        A = r - mean(r)

    Args:
      rewards: reward units; one row a group.
      present: False where a group has fewer than K samples; what stands there is inert. None: all are present.
    Returns: reward units; exactly 0 throughout a group of equal rewards or of one sample, and where not present.
    Raises: ShapeError when no group has two samples: every advantage would be 0.
    Source: Dr.GRPO, arXiv 2503.20783.
    """
    _must_compare(rewards, present)
    here = torch.ones_like(rewards, dtype=torch.bool) if present is None else present
    kept = rewards.masked_fill(~here, 0.0)
    mean = kept.sum(dim=1, keepdim=True) / _group_sizes(rewards, present)
    # The mean of equal numbers can differ from them by rounding, and a standard deviation would blow that up.
    highest = rewards.masked_fill(~here, -torch.inf).amax(dim=1, keepdim=True)
    lowest = rewards.masked_fill(~here, torch.inf).amin(dim=1, keepdim=True)
    return (kept - mean).masked_fill((highest <= lowest) | ~here, 0.0)


def group_standardised(
    rewards: Float[Tensor, "G K"], *, present: Bool[Tensor, "G K"] | None = None
) -> Float[Tensor, "G K"]:
    """Centred reward over the unbiased standard deviation of its group: the advantage of GRPO.

        A = (r - mean(r)) / (std(r) + 1e-6)

    Args: as `group_centred`.
    Returns: unitless; exactly 0 throughout a group of equal rewards or of one sample, and where not present.
    Raises: ShapeError when no group has two samples.
    Source: arXiv 2505.22617, Eq. 3, with the n-1 standard deviation and the 1e-6 of its released code.

    Example:
      >>> group_standardised(torch.tensor([[1.0, 0.0]])).round(decimals=3)
      tensor([[ 0.7070, -0.7070]])
    """
    centred = group_centred(rewards, present=present)
    others = (_group_sizes(rewards, present) - 1).clamp(min=1)
    std = (centred.square().sum(dim=1, keepdim=True) / others).sqrt()
    return centred / (std + _STD_FLOOR)


def leave_one_out(rewards: Float[Tensor, "G K"], *, present: Bool[Tensor, "G K"] | None = None) -> Float[Tensor, "G K"]:
    """Reward minus the mean of the others of its group: the advantage of RLOO.

        A_i = r_i - mean over j != i of r_j  =  n / (n - 1) (r_i - mean(r))

    The baseline does not hold the response's own reward, so the policy gradient stays unbiased.

    Args: as `group_centred`.
    Returns: reward units; exactly 0 throughout a group of equal rewards or of one sample, and where not present.
    Raises: ShapeError when no group has two samples.
    Source: RLOO, arXiv 2402.14740.

    Example:
      >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.5]]))
      tensor([[ 0.7500, -0.7500,  0.0000]])
    """
    sizes = _group_sizes(rewards, present)
    return group_centred(rewards, present=present) * (sizes / (sizes - 1).clamp(min=1))


def returns_to_go(
    token_rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, discount: float
) -> Float[Tensor, "B T"]:
    """Discounted sum of the rewards from each token on.

        G[t] = r[t] + discount G[next token that counts]

    Args:
      token_rewards: reward units.
      mask: True where the token counts. Others, such as a tool's words, bring no reward and cost no discount.
      discount: in [0, 1].
    Returns: reward units; exactly 0 where the mask is False.
    Raises: ConfigError for a discount outside [0, 1].
    """
    if not 0 <= discount <= 1:
        raise ConfigError(f"The discount is {discount:g}; it must lie in [0, 1].")
    rewards = token_rewards.masked_fill(~mask, 0.0)
    if discount == 1.0:
        return rewards.flip(1).cumsum(dim=1).flip(1).masked_fill(~mask, 0.0)
    found, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for column in reversed(range(rewards.shape[1])):
        running = torch.where(mask[:, column], rewards[:, column] + discount * running, running)
        found[:, column] = running
    return found.masked_fill(~mask, 0.0)


def whitened(values: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, moments: Moments) -> Float[Tensor, "B T"]:
    """Values minus their mean over their standard deviation.

        (v - mean) / sqrt(variance + 1e-8),   variance with n - 1

    Args:
      values: any unit.
      mask: True where the value counts.
      moments: measured once over the whole optimizer batch, so that micro-batches and ranks cannot change them;
        `covent.core.reduce.masked_moments`, merged by `merged_moments`.
    Returns: unitless; exactly 0 where the mask is False, and everywhere when there is one value or no spread.
    Raises: EmptyMaskError when nothing was counted.
    Source: verl's `masked_whiten`.
    """
    if moments.count < 1:
        raise EmptyMaskError("Whitening by the moments of no value at all.")
    variance = moments.squares / max(moments.count - 1, 1)
    # Equal values differ from their mean by rounding, which a division by 1e-4 would make an advantage of.
    rounding = 64 * torch.finfo(values.dtype).eps * moments.mean.abs()
    scaled = (values - moments.mean) * (variance + _VARIANCE_FLOOR).rsqrt()
    return scaled.masked_fill(~mask | (variance.sqrt() <= rounding), 0.0)


def reinforce_plus_plus(
    token_rewards: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, discount: float = 1.0
) -> Float[Tensor, "B T"]:
    """Return from each token on, whitened over all tokens of the batch: no groups.

        A = whitened( returns_to_go(r) )

    Args:
      token_rewards: reward units; an outcome's reward stands at the last token of its response. A penalty such as
        -beta log(pi / ref) is part of it.
      mask: True where the token counts.
      discount: in [0, 1].
    Returns: unitless; exactly 0 where the mask is False, and everywhere when all returns are equal.
    Raises: EmptyMaskError when no token counts; ConfigError for a discount outside [0, 1].
    Source: REINFORCE++, arXiv 2501.03262, with the whitening of verl.

    Example:
      >>> reinforce_plus_plus(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[True, True], [True, False]]))
      tensor([[ 0.5774,  0.5774],
              [-1.1547,  0.0000]])
    """
    returns = returns_to_go(token_rewards, mask, discount=discount)
    return whitened(returns, mask, moments=masked_moments(returns, mask))


def reinforce_plus_plus_baseline(
    rewards: Float[Tensor, "G K"], mask: Bool[Tensor, "B T"], *, present: Bool[Tensor, "G K"] | None = None
) -> Float[Tensor, "B T"]:
    """Centred reward of the group, given to each token, whitened over all tokens of the batch.

        A = whitened( r - mean(r) of the group ),   long responses weigh more in the whitening

    Args:
      rewards, present: as in `group_centred`.
      mask: True where the token counts; the responses that are present, group after group, one a row.
    Returns: unitless; exactly 0 where the mask is False, and everywhere when each group's rewards are equal. A group
      of equal rewards among others has the same small advantage throughout, minus the batch's mean.
    Raises: ShapeError when no group has two samples or the rows are not the responses present; EmptyMaskError when no
      token counts.
    Source: REINFORCE++-baseline, arXiv 2501.03262, with the whitening of verl.
    """
    centred = group_centred(rewards, present=present)
    responses = centred.flatten() if present is None else centred[present]
    if len(responses) != len(mask):
        raise ShapeError(f"{len(mask)} rows of tokens for {len(responses)} rewarded responses.")
    by_token = responses[:, None].expand(mask.shape)
    return whitened(by_token, mask, moments=masked_moments(by_token, mask))


def _must_compare(rewards: Tensor, present: Tensor | None) -> None:
    if rewards.shape[1] >= 2 and (present is None or not len(present) or bool((present.sum(dim=1) >= 2).any())):
        return
    samples = "1 sample" if present is None else f"at most {max(present.sum(dim=1).tolist(), default=0)} present"
    raise ShapeError(
        f"Each of the {len(rewards)} groups has {samples}, so nothing can be compared and every advantage would be 0."
        " A group needs at least 2 samples: with 1 the group's mean is the reward itself."
    )


def _group_sizes(rewards: Tensor, present: Tensor | None) -> Tensor:
    """Samples of each group, at least 1, of the rewards' dtype and shape [G, 1]."""
    if present is None:
        return torch.full_like(rewards[:, :1], float(rewards.shape[1]))
    return present.sum(dim=1, keepdim=True).clamp(min=1).to(rewards.dtype)
