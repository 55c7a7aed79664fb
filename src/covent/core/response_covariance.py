"""Covariance with whole responses as actions: the quantity of the paper's Fig. 8."""

from __future__ import annotations

from covent.core.reduce import response_means
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError


def group_covariances(response_logprobs: Float[Tensor, "G K"], advantages: Float[Tensor, "G K"]) -> Float[Tensor, " G"]:
    """Theorem 1's covariance of each prompt over its group, a response being one action.

        Cov over the group of ( l, exp(l) A ),   l = (1/|y|) sum_t log pi(y_t),   with 1/K

    Args:
      response_logprobs: length-normalised, nats; `covent.core.reduce.response_means` makes them. No gradient flows.
      advantages: one a response.
    Returns: nats times advantage units, one a prompt; mean over prompts of one difficulty for the figure's right side.
    Raises: ShapeError for groups of one, whose covariance is always 0.
    Source: arXiv 2505.22617, Eqs. 8 and 9. The paper does not say whether pi(y|x) in the second slot is normalised by
      length too, nor the divisor: here it is (the plain product of probabilities underflows), and 1/K as in Eq. 10.

    Example:
      >>> import torch
      >>> group_covariances(torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[1.0, -1.0]]))
      tensor([0.1300])
    """
    if response_logprobs.shape[1] < 2:
        raise ShapeError("Groups of 1 response: a covariance over the group needs at least 2.")
    logprobs = response_logprobs.detach()
    weighted = logprobs.exp() * advantages
    deviation = logprobs - logprobs.mean(dim=1, keepdim=True)
    return (deviation * (weighted - weighted.mean(dim=1, keepdim=True))).mean(dim=1)


def response_covariance(
    logprobs: Float[Tensor, "B T"], advantages: Float[Tensor, "G K"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """The left panel of Fig. 8: `group_covariances`, averaged over the prompts of the batch.

    Args:
      logprobs: of each token under the measured policy, nats; the K responses to a prompt in consecutive rows.
      advantages: one a response, one row a prompt.
      mask: True where the token counts.
    Returns: nats times advantage units.
    Raises: ShapeError when B is not G x K or a group has one response; EmptyMaskError for a response without token.
    Source: arXiv 2505.22617, Eqs. 8 and 9.
    """
    if len(logprobs) != advantages.numel():
        raise ShapeError(f"{len(logprobs)} responses do not make {'x'.join(map(str, advantages.shape))} groups.")
    return group_covariances(response_means(logprobs, mask).view(advantages.shape), advantages).mean()
