"""Entropy estimated from the sampled tokens alone, for engines that keep log-probs and no logits.

Each estimate is a mean over tokens, so its target is the mean entropy of the states that were visited. Its standard
error is over clusters: by default each response is one; with several responses to a prompt, pass the prompts' numbers
if the prompts too are a sample.
"""

from __future__ import annotations

import torch

from covent.core.reduce import Estimate, clustered_mean
from covent.core.shapes import Bool, Float, Int64, Tensor


def sampled_entropy(
    logprobs: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], *, clusters: Int64[Tensor, " B"] | None = None
) -> Estimate:
    """Mean of -log pi over tokens that pi itself sampled: unbiased for the entropy in each state.

        mean over tokens of -log pi(y)

    Args:
      logprobs: log pi(token | context) of the policy that sampled, nats, at the temperature of the sampling. No
        gradient flows: the gradient of this mean is 0 in expectation and not the entropy's.
      mask: True where the token counts.
      clusters: number of each response's cluster; None: each response is its own.
    Returns: the estimate and its standard error, nats.
    Raises: EmptyMaskError when no token counts.
    Source: the definition of entropy as an expectation; tinker and NeMo-RL log this quantity.

    Example:
      >>> logp, mask = torch.tensor([[-1.0, -3.0], [-2.0, 0.0]]), torch.tensor([[True, True], [True, False]])
      >>> sampled_entropy(logp, mask)
      Estimate(value=tensor(2.), standard_error=tensor(0.))
    """
    logprobs = logprobs.detach()
    return clustered_mean(-logprobs, torch.ones_like(logprobs), mask, _clusters(clusters, logprobs))


def importance_sampled_entropy(
    logprobs: Float[Tensor, "B T"],
    sampler_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clusters: Int64[Tensor, " B"] | None = None,
) -> Estimate:
    """Entropy of pi from tokens that another policy mu sampled: unbiased in the states that mu visited.

        mean over tokens of w (-log pi),   w = pi(y) / mu(y)

    Args:
      logprobs: log pi of the tokens, nats. Gradients flow, through w too, and their expectation is the gradient of
        pi's entropy in those states.
      sampler_logprobs: log mu of the same tokens, nats; no gradient.
      mask, clusters: as in `sampled_entropy`.
    Returns: the estimate and its standard error, nats. The error grows with the spread of w, and is itself too small
      when a few large weights have not been drawn yet.
    Raises: EmptyMaskError when no token counts.
    Source: NeMo-RL's `approx_entropy`. Differs: weights are the policy's over the sampler's and are not truncated.
    """
    kept = logprobs.masked_fill(~mask, 0.0)
    ratio = (kept - sampler_logprobs.detach().masked_fill(~mask, 0.0)).exp()
    return clustered_mean(-kept * ratio, torch.ones_like(kept), mask, _clusters(clusters, logprobs))


def self_normalised_entropy(
    logprobs: Float[Tensor, "B T"],
    sampler_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clusters: Int64[Tensor, " B"] | None = None,
) -> Estimate:
    """As `importance_sampled_entropy`, over the sum of the weights: less spread, a bias of order 1/n.

        sum of w (-log pi) / sum of w

    Args: as `importance_sampled_entropy`; no gradient flows.
    Returns: the estimate and its standard error, nats. It weighs states by the weights drawn in them.
    Raises: EmptyMaskError when no token counts.
    """
    kept = logprobs.detach().masked_fill(~mask, 0.0)
    ratio = (kept - sampler_logprobs.detach().masked_fill(~mask, 0.0)).exp()
    return clustered_mean(-kept, ratio, mask, _clusters(clusters, logprobs))


def _clusters(clusters: Tensor | None, logprobs: Tensor) -> Tensor:
    return torch.arange(len(logprobs), device=logprobs.device) if clusters is None else clusters
