"""The covariance between log-probability and advantage, token by token, and the shape of its tail."""

from __future__ import annotations

from typing import NamedTuple

import torch

from covent.core.reduce import masked_mean
from covent.core.selection import count_of_share
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import EmptyMaskError
from covent.readings import COVARIANCE_EDGES, CovarianceTail

TOP_SHARES = (0.0002, 0.002, 0.02, 0.2, 0.5)
"""The shares of the paper's Table 1: 0.02, 0.2, 2, 20 and 50 %."""

_QUANTILES = {"min": 0.0, "p01": 0.01, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


class Center(NamedTuple):
    """The two means of a covariance, taken once over the whole optimizer batch."""

    logprob: Tensor
    advantage: Tensor


def batch_center(logprobs: Float[Tensor, "B T"], advantages: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Center:
    """Mean log-prob and mean advantage over the tokens that count; no gradient flows.

    Raises: EmptyMaskError when no token counts.
    """
    return Center(masked_mean(logprobs.detach(), mask), masked_mean(advantages.detach(), mask))


def token_covariance(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    center: Center,
) -> Float[Tensor, "B T"]:
    """Each token's contribution to the covariance of log-probability and advantage.

        c[b,t] = (log pi[b,t] - mean log pi) (A[b,t] - mean A)          the mean of c over the mask is Cov(log pi, A)

    Args:
      logprobs: log pi(token | context) of the measured policy, nats; no gradient flows.
      advantages: one value a token.
      mask: True where the token counts.
      center: the two means, measured once over the whole optimizer batch by `batch_center`.
    Returns: nats times advantage units; exactly 0 where the mask is False.
    Source: arXiv 2505.22617, Eq. 10. Differs: the centre is an argument, so that micro-batches cannot change it.

    Example:
      >>> logp, adv = torch.tensor([[-1.0, -3.0]]), torch.tensor([[1.0, -1.0]])
      >>> mask = torch.ones(1, 2, dtype=torch.bool)
      >>> token_covariance(logp, adv, mask, center=batch_center(logp, adv, mask))
      tensor([[1., 1.]])
    """
    product = (logprobs.detach() - center.logprob) * (advantages - center.advantage)
    return product.masked_fill(~mask, 0.0)


def vanilla_center(
    logprobs: Float[Tensor, "B T"], advantages: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Center:
    """Mean log-prob and mean of pi A over the tokens that count: the centre of `vanilla_token_covariance`.

    Raises: EmptyMaskError when no token counts.
    """
    return batch_center(logprobs, _policy_weighted(logprobs, advantages), mask)


def vanilla_token_covariance(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    center: Center,
) -> Float[Tensor, "B T"]:
    """Each token's contribution to the covariance with the other slot: that of vanilla policy gradient, Theorem 1.

        c[b,t] = (log pi[b,t] - mean log pi) (pi[b,t] A[b,t] - mean pi A)

    Args:
      logprobs, advantages, mask: as in `token_covariance`; no gradient flows.
      center: from `vanilla_center`, once over the whole optimizer batch.
    Returns: nats times advantage units; exactly 0 where the mask is False. A constant added to A changes it.
    Source: arXiv 2505.22617, Theorem 1, with the tokens of a batch as the sample.

    Example:
      >>> logp, adv = torch.tensor([[0.5, 0.25]]).log(), torch.tensor([[1.0, -1.0]])
      >>> mask = torch.ones(1, 2, dtype=torch.bool)
      >>> vanilla_token_covariance(logp, adv, mask, center=vanilla_center(logp, adv, mask))
      tensor([[0.1300, 0.1300]])
    """
    return token_covariance(logprobs, _policy_weighted(logprobs, advantages), mask, center=center)


def _policy_weighted(logprobs: Tensor, advantages: Tensor) -> Tensor:
    return logprobs.detach().exp() * advantages


def covariance_tail(covariances: Float[Tensor, " N"]) -> CovarianceTail:
    """Mean, spread, quantiles and tail of the token covariances of one optimizer batch.

    Args:
      covariances: the values of the tokens that count, in any order.
    Returns: see `CovarianceTail`; entries of a top share smaller than one token are None.
    Raises: EmptyMaskError when there is no token.
    Source: arXiv 2505.22617, Table 1.
    """
    num_tokens = covariances.numel()
    if num_tokens == 0:
        raise EmptyMaskError("No token, so no covariance.")
    ordered = covariances.double().sort(descending=True).values
    positive_sum = float(ordered.clamp(min=0).sum())
    top_means: dict[str, float | None] = {}
    positive_shares: dict[str, float | None] = {}
    for share in TOP_SHARES:
        count = count_of_share(share, num_tokens)
        top = ordered[:count]
        top_means[str(share)] = float(top.mean()) if count else None
        positive_shares[str(share)] = float(top.clamp(min=0).sum()) / positive_sum if count and positive_sum else None
    ascending = ordered.flip(0)
    levels = torch.tensor(list(_QUANTILES.values()), dtype=torch.float64)
    # Nearest-rank positions: torch.quantile has an element limit, and an interpolated value is no token's covariance.
    positions = (levels * (num_tokens - 1)).round().long()
    return CovarianceTail(
        mean=float(ordered.mean()),
        std=float(ordered.std(correction=0)),
        quantiles=dict(zip(_QUANTILES, ascending[positions].tolist(), strict=True)),
        top_means=top_means,
        positive_shares=positive_shares,
        histogram=_histogram(ordered),
    )


def _histogram(values: Tensor) -> list[int]:
    """Tokens in each bin of `COVARIANCE_EDGES`."""
    edges = torch.tensor(COVARIANCE_EDGES, dtype=torch.float64)
    return torch.bucketize(values.cpu(), edges).bincount(minlength=len(edges) + 1).tolist()
