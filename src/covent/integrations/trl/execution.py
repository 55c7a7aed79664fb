"""A plan executed in TRL's own loss, of which nothing is copied: through its advantages, its clip and its log-probs.

What a plan takes away or scales goes through the advantages that TRL reads, or, where TRL's ratio is that of a whole
response, through the gradient of the log-probs that it reads. Terms that TRL has no place for are added to its loss,
each token with the weight that TRL itself gives it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import torch

from covent.core.loss import LossTerms, clipped_objective, surrogate
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Plan
from covent.core.reduce import means_of_responses
from covent.core.shapes import Bool, Float, Tensor
from covent.integrations.trl.batch import Columns, Scores
from covent.integrations.trl.compatibility import CLIPPED


class Clip(NamedTuple):
    """What TRL's own settings become under a plan, and what of the plan they cannot express."""

    settings: dict[str, float]
    """Attributes of the trainer."""
    arguments: dict[str, float | None]
    """Settings of its config: TRL's two-sided clip."""
    unheard: str
    """A sentence on what of the plan's clip TRL's loss has no place for; empty if all of it acts."""


def clip_of(plan: Plan, loss_type: str) -> Clip:
    """The plan's clip in the terms of one of TRL's losses.

    Args:
      plan: None as a bound means none.
      loss_type: TRL's; "rloo" for RLOO, which clips the ratio of the response.
    """
    if not plan.sets_clip:
        return Clip({}, {}, "")
    low, high = (inf if bound is None else bound for bound in (plan.clip_low, plan.clip_high))
    if loss_type in CLIPPED:
        return Clip({"epsilon_low": low, "epsilon_high": high}, {"delta": plan.dual_clip}, "")
    dual = "" if plan.dual_clip is None else f" The dual clip at {plan.dual_clip:g} does not act."
    if loss_type == "rloo":
        return Clip({"epsilon_low": low, "epsilon_high": high}, {}, dual.strip())
    if loss_type == "cispo":
        lower = f" Its lower bound of {1 - low:g} does not act." if low < 1 else ""
        return Clip({"epsilon_high": 1 + high}, {}, (dual + lower).strip())
    return Clip({}, {}, f"TRL's {loss_type} has no clip of the ratio, so that of the control does not act.{dual}")


@contextmanager
def replaced(thing: Any, settings: dict[str, Any]) -> Iterator[None]:
    """Some attributes with other values for a while."""
    before = {name: getattr(thing, name) for name in settings}
    for name, value in settings.items():
        setattr(thing, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


def gate(plan: Plan, mask: Bool[Tensor, "B T"], dtype: torch.dtype) -> Tensor | None:
    """[B, T]: what each token's policy term is multiplied by, 0 where the plan removes it; None for 1 everywhere."""
    if plan.factor is None and bool((plan.keeps_gradient | ~mask).all()):
        return None
    kept = plan.keeps_gradient.to(dtype)
    return torch.where(mask, kept if plan.factor is None else kept * plan.factor.to(dtype), 1.0)


def gated(logprobs: Float[Tensor, "B T"], gate: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The same log-probs, with the gradient of each multiplied by its gate."""
    fixed = logprobs.detach()
    return fixed + gate * (logprobs - fixed)


def terms_of(plan: Plan, scores: Scores, columns: Columns) -> LossTerms:
    """The plan's loss, of which TRL computes the policy term; gradients flow."""
    old = scores.logprobs.detach() if columns.old_logprobs is None else columns.old_logprobs
    return surrogate(
        scores.logprobs,
        old.to(scores.logprobs),
        columns.advantages.to(scores.logprobs),
        columns.mask,
        plan,
        PenaltyInputs(scores.entropies, columns.reference_logprobs),
    )


def left_to_trl(plan: Plan) -> Plan:
    """The plan without what TRL computes itself: its KL to the reference policy has the form k3."""
    if plan.reference_weight is not None and plan.reference_form == "k3":
        return replace(plan, reference_weight=None)
    return plan


class Cuts(NamedTuple):
    """Tokens without gradient because of the clip in force, [B, T] bool."""

    low: Tensor
    high: Tensor


def cuts(scores: Scores, columns: Columns, *, level: str, low: float, high: float) -> Cuts:
    """Where TRL's clip cuts.

    Args:
      level: whose ratio is clipped: "token", "sequence" (its geometric mean), "sum" (RLOO's, of the response) or
        "none" for a loss without a clip.
      low, high: distances from 1 of the range in force.
    """
    nowhere = torch.zeros_like(columns.mask)
    if level == "none" or columns.old_logprobs is None:
        return Cuts(nowhere, nowhere)
    log_ratio = (scores.logprobs - columns.old_logprobs.to(scores.logprobs)).masked_fill(~columns.mask, 0.0)
    if level == "sequence":
        log_ratio = means_of_responses(log_ratio, columns.mask)[:, None].expand(log_ratio.shape)
    elif level == "sum":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand(log_ratio.shape)
    advantages = columns.advantages.to(log_ratio)
    found = clipped_objective(log_ratio, advantages, clip_low=low, clip_high=high)
    return Cuts(found.cut_low & columns.mask, found.cut_high & columns.mask)
