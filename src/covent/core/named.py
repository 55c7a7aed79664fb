"""The losses of the papers as named calls of the one surrogate: which ratio, which clip range, which aggregation.

Each returns per-token terms and the aggregation that belongs to them; `covent.core.reduce.AGGREGATIONS` divides.
"""

from __future__ import annotations

from typing import NamedTuple

from covent.core.loss import clipped_objective
from covent.core.penalties import KLForm, kl_term
from covent.core.reduce import Aggregation, seq_mean_token_mean, seq_mean_token_sum_norm, token_mean
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError


class NamedLoss(NamedTuple):
    """One term a token, to be minimised, and how they become a loss."""

    per_token: Tensor
    """[B, T]; exactly 0 where the mask is False."""
    aggregation: Aggregation


def ppo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_ratio: float = 0.2,
    clip_ratio_c: float | None = None,
) -> NamedLoss:
    """Symmetric clip, every token of the batch alike; with clip_ratio_c the dual clip.

    Args: as `covent.core.loss.surrogate`.
    Source: arXiv 1707.06347, Eq. 7; dual clip: arXiv 1912.09729, Eq. 5.
    """
    terms = _clipped(logprobs, old_logprobs, advantages, mask, clip_ratio, clip_ratio, clip_ratio_c)
    return NamedLoss(terms, token_mean)


def grpo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_ratio: float = 0.2,
    reference_logprobs: Float[Tensor, "B T"] | None = None,
    kl_loss_coef: float = 0.0,
    kl_loss_type: KLForm = "k3",
) -> NamedLoss:
    """PPO's clip on group-standardised advantages, a KL to the reference policy, every response alike.

    Args: as `covent.core.loss.surrogate`; kl_loss_coef and kl_loss_type are verl's names.
    Raises: ShapeError for a kl_loss_coef without reference_logprobs.
    Source: DeepSeekMath, arXiv 2402.03300, Eqs. 3 and 4.
    """
    terms = _clipped(logprobs, old_logprobs, advantages, mask, clip_ratio, clip_ratio, None)
    if kl_loss_coef:
        if reference_logprobs is None:
            raise ShapeError(f"kl_loss_coef = {kl_loss_coef:g} needs the log-probs of the reference policy.")
        gap = (logprobs - reference_logprobs).masked_fill(~mask, 0.0)
        terms = terms + kl_term(gap.new_full(gap.shape, kl_loss_coef), kl_loss_type, gap, None, mask)
    return NamedLoss(terms, seq_mean_token_mean)


def dapo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_ratio_low: float = 0.2,
    clip_ratio_high: float = 0.28,
) -> NamedLoss:
    """Clip-higher: more room above 1 than below, so that rare tokens can grow; every token of the batch alike.

    Args: as `covent.core.loss.surrogate`.
    Source: DAPO, arXiv 2503.14476, Eq. 8.
    """
    terms = _clipped(logprobs, old_logprobs, advantages, mask, clip_ratio_low, clip_ratio_high, None)
    return NamedLoss(terms, token_mean)


def dr_grpo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    clip_ratio: float = 0.2,
) -> NamedLoss:
    """PPO's clip on group-centred advantages (not standardised), sums over tokens over a constant length.

    Args: as `covent.core.loss.surrogate`.
    Source: Dr.GRPO, arXiv 2503.20783.
    """
    terms = _clipped(logprobs, old_logprobs, advantages, mask, clip_ratio, clip_ratio, None)
    return NamedLoss(terms, seq_mean_token_sum_norm)


def _clipped(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> Tensor:
    log_ratio = (logprobs - old_logprobs).masked_fill(~mask, 0.0)
    kept = advantages.masked_fill(~mask, 0.0)
    objective = clipped_objective(log_ratio, kept, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    return -objective.value
