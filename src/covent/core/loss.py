"""The loss: per-token terms out. The caller sums them and divides once, by the count of the whole optimizer batch."""

from __future__ import annotations

from typing import NamedTuple

import torch

from covent.core.plan import Plan
from covent.core.shapes import Bool, Float, Tensor


class LossTerms(NamedTuple):
    """Per-token terms of the loss, and which side of the clip range cut them. All [B, T]."""

    policy: Tensor
    """-min(ratio A, clipped ratio A); 0 where the plan removes it."""
    kl: Tensor
    """kl_weight |log pi - log pi_old|."""
    cut_low: Tensor
    """Bool: ratio below the range and A < 0, so that the clip removes the gradient."""
    cut_high: Tensor
    """Bool: ratio above the range and A > 0."""


def surrogate(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    plan: Plan,
) -> LossTerms:
    """The clipped policy-gradient surrogate under a plan, token by token.

        ratio = pi / pi_old        policy = -min(ratio A, clamp(ratio, 1 - low, 1 + high) A)
        kl = kl_weight |log pi - log pi_old|

    Args:
      logprobs: of the current policy, nats; gradients flow.
      old_logprobs: of the sampling policy, nats; no gradient.
      advantages: one value a token; no gradient.
      mask: True where the token counts.
      plan: rows of the same responses.
    Returns: terms that are exactly 0 where the mask is False, whatever stands there.
    Source: PPO, arXiv 1707.06347, Eq. 7; arXiv 2505.22617, Eqs. 12 and 14. Differs: the paper writes a KL at the
      chosen tokens; like its released code this is |log ratio| of the sampled token, whose gradient has constant size.
    """
    # Masked positions are replaced before exp, so that a NaN or an overflow there cannot reach the gradient.
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    ratio = log_ratio.exp()
    advantages = advantages.masked_fill(~mask, 0.0)
    objective = ratio * advantages
    cut_low, cut_high = _cuts(ratio.detach(), advantages, plan)
    if plan.clip_low is not None and plan.clip_high is not None:
        clipped = ratio.clamp(1 - plan.clip_low, 1 + plan.clip_high) * advantages
        objective = torch.minimum(objective, clipped)
    policy = torch.where(plan.keeps_gradient & mask, -objective, torch.zeros_like(objective))
    kl = torch.where((plan.kl_weight > 0) & mask, plan.kl_weight * log_ratio.abs(), torch.zeros_like(objective))
    return LossTerms(policy, kl, cut_low & mask, cut_high & mask)


def ppo_cut(
    log_ratio: Float[Tensor, "B T"], advantages: Float[Tensor, "B T"], *, clip_low: float, clip_high: float
) -> Bool[Tensor, "B T"]:
    """Tokens whose policy gradient the PPO clip removes: ratio beyond the range on the side the advantage pushes to."""
    ratio = log_ratio.exp()
    return ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))


def _cuts(ratio: Tensor, advantages: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    nowhere = torch.zeros_like(ratio, dtype=torch.bool)
    low = (ratio < 1 - plan.clip_low) & (advantages < 0) if plan.clip_low is not None else nowhere
    high = (ratio > 1 + plan.clip_high) & (advantages > 0) if plan.clip_high is not None else nowhere
    return low, high
