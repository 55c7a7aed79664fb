"""Terms beside the policy term: how far the policy is from another one, and its entropy. Per-token terms out."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError

KLForm = Literal["abs", "k1", "k2", "k3", "exact"]
"""How a KL term is formed from the log ratio at the sampled token; `exact` sums over the vocabulary instead."""


class PenaltyInputs(NamedTuple):
    """What the terms beside the policy term need of one micro-batch, [B, T], only where a plan asks for it."""

    entropies: Tensor | None = None
    """Exact entropy of the current policy; gradients flow."""
    reference_logprobs: Tensor | None = None
    """log pi of the reference policy, nats; no gradient."""
    exact_kl: Tensor | None = None
    """KL(pi_old || pi) over the vocabulary at each position; gradients flow."""
    exact_reference_kl: Tensor | None = None
    """KL(pi || pi_ref) over the vocabulary at each position; gradients flow."""


NO_INPUTS = PenaltyInputs()
"""For plans whose terms need nothing beyond the log-probs."""


def divergence(log_ratio: Float[Tensor, "*shape"], form: KLForm) -> Float[Tensor, "*shape"]:
    """An estimate of KL(p || q) from the log ratio at a token sampled from p.

        r = log p - log q        k1 = r        k2 = r^2 / 2        k3 = exp(-r) - 1 + r        abs = |r|

    As a value: k1 and k3 are unbiased, k2 is biased by third order, abs is no estimate of a KL at all (it is first
    order where a KL is second). As a loss in the parameters of p: the expected gradient of k2 is right on-policy, that
    of k1 is zero, that of k3 is KL(q || p)'s. In the parameters of q, k1 and k3 have the right expected gradient. abs
    has a gradient of constant size, and none at r = 0.

    Args:
      log_ratio: nats; gradients flow.
      form: not `exact`, which no log ratio can give.
    Raises: ShapeError for `exact`.
    Source: Schulman, "Approximating KL divergence", 2020; abs: the released code of arXiv 2505.22617.

    Example:
      >>> [round(divergence(torch.tensor(0.1), form).item(), 4) for form in ("abs", "k1", "k2", "k3")]
      [0.1, 0.1, 0.005, 0.0048]
    """
    if form == "exact":
        raise ShapeError("The exact KL is a sum over the vocabulary; a log ratio at one token does not give it.")
    return _FORMS[form](log_ratio)


_FORMS = {
    "abs": torch.abs,
    "k1": lambda r: r,
    "k2": lambda r: 0.5 * r.square(),
    "k3": lambda r: torch.expm1(-r) + r,
}


def exact_divergence(log_p: Float[Tensor, "*states V"], log_q: Float[Tensor, "*states V"]) -> Float[Tensor, "*states"]:
    """KL(p || q) = sum over v of p_v (log p_v - log q_v); entries with p_v = 0 add nothing.

    Args: normalised log-probabilities, nats; gradients flow to both.
    """
    live = log_p != -torch.inf
    gap = torch.where(live, log_p, 0.0) - torch.where(live, log_q, 0.0)
    return torch.where(live, log_p.exp() * gap, 0.0).sum(dim=-1)


def kl_term(
    weight: Float[Tensor, "B T"],
    form: KLForm,
    log_ratio: Float[Tensor, "B T"],
    exact: Tensor | None,
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, "B T"]:
    """weight x KL at each token; exactly 0 without gradient where the weight is 0 or the mask False, whatever is there.

    Args:
      weight: >= 0.
      form: `exact` takes the values of `exact`, the others the log ratio.
      log_ratio: log p - log q at the sampled token; gradients flow.
      exact: KL over the vocabulary, or None.
      mask: True where the token counts.
    Raises: ShapeError when the form is `exact` and no exact KL is given.
    """
    acts = (weight > 0) & mask
    if form != "exact":
        # Filled before the exp of k3, whose gradient would be 0 x inf where it overflows.
        values = divergence(log_ratio.masked_fill(~acts, 0.0), form)
    elif exact is None:
        raise ShapeError("A plan asks for the exact KL, and no exact KL was computed for this micro-batch.")
    else:
        values = exact.masked_fill(~acts, 0.0)
    return torch.where(acts, weight * values, torch.zeros_like(values))


def entropy_bonus_term(
    weight: Float[Tensor, "B T"], entropies: Tensor | None, mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """-weight x H at each token; exactly 0 where the weight is 0 or the mask False.

    Raises: ShapeError when no entropies are given.
    """
    if entropies is None:
        raise ShapeError("A plan asks for an entropy bonus, and no entropies were given for this micro-batch.")
    acts = (weight != 0) & mask
    return torch.where(acts, -weight * entropies.masked_fill(~mask, 0.0), torch.zeros_like(weight))
