"""Divergence from a reference policy, token by token: three estimators from the sampled token, and the exact one.

With y drawn from the policy pi in a state, d = log pi(y) - log ref(y):

    name    formula              E[value]                      E[gradient], samples held fixed
    k1      d                    KL(pi || ref)                 0: as a loss it does nothing but add noise
    k2      d² / 2               KL up to third order in d     the gradient of KL(pi || ref)
    k3      exp(-d) - 1 + d      KL(pi || ref)                 the gradient of KL(ref || pi), the other direction
    exact   sum pi (log pi - log ref)                          the gradient of KL(pi || ref)

So k1 and k3 are for reading, k2 and exact for a loss that should pull towards the reference along KL(pi || ref).
All of it is on-policy: under tokens of another policy every expectation needs importance weights. k3 and k1 are
unbiased only where ref > 0 implies pi > 0 and the reverse; a reference without the sampled token makes them infinite.
"""

from __future__ import annotations

import torch

from covent.core.shapes import Bool, Float, Tensor


def k1(
    logprobs: Float[Tensor, "*shape"], reference_logprobs: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The plain log ratio: unbiased for KL(pi || ref), of either sign, with a gradient that is 0 in expectation.

        d = log pi - log ref

    Args:
      logprobs: of the sampled tokens under the policy that sampled them, nats; gradients flow.
      reference_logprobs: of the same tokens, nats; gradients flow.
      mask: True where the token counts.
    Returns: nats; exactly 0 where the mask is False, whatever stands there.
    Source: J. Schulman, "Approximating KL divergence", 2020.
    """
    return (logprobs - reference_logprobs).masked_fill(~mask, 0.0)


def k2(
    logprobs: Float[Tensor, "*shape"], reference_logprobs: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Half the squared log ratio: biased in value, with the gradient of KL(pi || ref) in expectation.

        d² / 2          E[d²/2] - KL(pi || ref) is of third order in d

    Args, Returns, Source: as `k1`.
    """
    return 0.5 * k1(logprobs, reference_logprobs, mask).square()


def k3(
    logprobs: Float[Tensor, "*shape"], reference_logprobs: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The log ratio with a control variate: unbiased for KL(pi || ref), never negative, gradient of KL(ref || pi).

        exp(-d) - 1 + d

    Args, Returns, Source: as `k1`. Differs: no clamp (verl clamps d to ±20 and the result to ±10).

    Example:
      >>> logp, ref = torch.tensor([-1.0]), torch.tensor([-1.5])
      >>> round(k3(logp, ref, torch.tensor([True])).item(), 4)
      0.1065
    """
    # expm1, because exp(-d) - 1 loses every digit of a small d to rounding.
    d = k1(logprobs, reference_logprobs, mask)
    return torch.expm1(-d) + d


def exact_kl(
    logits: Float[Tensor, "*states V"], reference_logits: Float[Tensor, "*states V"]
) -> Float[Tensor, "*states"]:
    """KL divergence of softmax(logits) from softmax(reference_logits), over the whole vocabulary.

        sum over v of p log(p / q) - p + q          the last two cancel in the sum; each term is >= 0, so none cancels

    Args:
      logits: raw scores of the policy; reduced in float32 at least; gradients flow. -inf: probability 0.
      reference_logits: of the reference; gradients flow.
    Returns: nats, >= 0; +inf where the policy can take what the reference cannot.
    Source: the definition; unbiased in value and gradient, for the states at hand.

    Example:
      >>> exact_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]]))
      tensor([inf])
    """
    log_p, log_q = (
        (z if z.dtype == torch.float64 else z.float()).log_softmax(dim=-1) for z in (logits, reference_logits)
    )
    p, q = log_p.exp(), log_q.exp()
    possible = log_p != -torch.inf
    log_ratio = torch.where(possible, log_q, 0.0) - torch.where(possible, log_p, 0.0)
    # Where q is the larger by far, expm1 of their ratio could overflow although q itself does not.
    far = log_ratio > 1
    near = torch.where(far, 0.0, log_ratio)
    terms = torch.where(far, q - p - p * log_ratio, p * (torch.expm1(near) - near))
    return torch.where(possible, terms, q).sum(dim=-1)
