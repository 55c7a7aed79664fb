"""Which response tokens the policy wrote, in responses that hold tool output or several turns.

A token that was put there by a tool or by another speaker carries no gradient, counts in no denominator, shifts no
centre of the covariance and cannot be chosen by a control: it is left out of `Measured.mask`. It stays in the context.
"""

from __future__ import annotations

from covent.core.shapes import Bool, Int64, Tensor


def policy_tokens(mask: Bool[Tensor, "B T"], tool_mask: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The response tokens that the policy itself wrote.

    Args:
      mask: True at response tokens, False at padding.
      tool_mask: TRL's name and sense: True at tokens of the policy, False at tool output and other speakers' turns.

    Example:
      >>> import torch
      >>> mask, wrote = torch.tensor([[True, True, True, False]]), torch.tensor([[True, False, True, True]])
      >>> policy_tokens(mask, wrote).tolist()
      [[True, False, True, False]]
    """
    return mask & tool_mask


def turns(policy: Bool[Tensor, "B T"]) -> Int64[Tensor, "B T"]:
    """Number of the policy's turn that each token belongs to, from 0; -1 at tokens that the policy did not write.

    Args:
      policy: from `policy_tokens`; a turn is a run of neighbouring tokens.

    Example:
      >>> import torch
      >>> turns(torch.tensor([[True, True, False, True, False]])).tolist()
      [[0, 0, -1, 1, -1]]
    """
    starts = policy.clone()
    starts[:, 1:] &= ~policy[:, :-1]
    return (starts.long().cumsum(dim=1) - 1).masked_fill(~policy, -1)


def last_turn(policy: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """The tokens of each response's last turn, for training on the final answer alone.

    Example:
      >>> import torch
      >>> last_turn(torch.tensor([[True, True, False, True, False]])).tolist()
      [[False, False, False, True, False]]
    """
    number = turns(policy)
    return policy & (number == number.amax(dim=1, keepdim=True))
