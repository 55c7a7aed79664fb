"""The loss of one optimizer batch by cause. A cause is a name and a per-token term; the terms add up to the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch

from covent.core.loss import LossTerms
from covent.core.plan import Plan
from covent.core.shapes import Bool, Tensor
from covent.errors import ShapeError

RATIO_CLIP = "ratio clip"
"""The PPO clip, dual clip included: minus the gradient of the tokens that it cuts."""


class CauseTerms(NamedTuple):
    """Per-token terms [B, T] by cause; all of them together are the loss."""

    aggregated: dict[str, Tensor]
    """What the aggregation mode weighs, as `LossTerms.aggregated`."""
    token_mean: dict[str, Tensor]
    """The entropy bonus, always a mean over tokens."""


def loss_by_cause(
    terms_of: Callable[[Plan], LossTerms],
    plan: Plan,
    mask: Bool[Tensor, "B T"],
    sets: Mapping[str, Bool[Tensor, " B"]],
) -> CauseTerms:
    """Per-token terms of a loss under a plan, by cause.

        each set of responses    the policy term of its tokens as if there were neither factor, clip nor control:
                                 -ratio A for the surrogate
        "NAME: factor"           the policy term with control NAME's factors minus the one without
        "ratio clip"             the policy term with the clip, too, minus that
        "NAME: removed tokens"   the whole policy term minus that: without the tokens that control NAME takes out
        "NAME: kl", "NAME: reference_kl", "NAME: bonus"     the other terms of the plan, by their names in `LossTerms`

    Clip, factors and removal act by changing a gradient, so their terms are differences in this order, and whatever
    the plan, the terms add up to the loss. What a control removes among the tokens that the clip has cut already is the
    clip's. Composed controls share one NAME.

    Args:
      terms_of: the loss of this micro-batch under any plan: `surrogate`, `gspo` or `cispo` with all else given.
        Gradients flow.
      plan: that is executed, rows of the same responses.
      mask: True where a token counts.
      sets: names of sets of responses, such as right and wrong answers or the data sources, each with the rows that
        are in it; every response is in exactly one set.
    Returns: terms by cause, exactly 0 where the mask is False. A cause that does nothing has a term of zeros or none.
    Raises: ShapeError when a response is in no set or in several.
    """
    _must_partition(sets, mask)

    def policy_term(**kept: object) -> Tensor:
        return terms_of(replace(bare, **kept)).policy

    name = plan.reading.name
    bare = replace(
        plan,
        keeps_gradient=mask,
        kl_form=None,
        factor=None,
        clip_low=None,
        clip_high=None,
        dual_clip=None,
        reference_weight=None,
        entropy_weight=None,
    )
    whole = terms_of(plan)
    plain = policy_term()
    weighted = plain if plan.factor is None else policy_term(factor=plan.factor)
    clip = {"clip_low": plan.clip_low, "clip_high": plan.clip_high, "dual_clip": plan.dual_clip}
    clipped = policy_term(factor=plan.factor, **clip)
    terms = {each: torch.where(rows[:, None], plain, torch.zeros_like(plain)) for each, rows in sets.items()}
    if plan.factor is not None:
        terms[f"{name}: factor"] = weighted - plain
    terms[RATIO_CLIP] = clipped - weighted
    terms[f"{name}: removed tokens"] = whole.policy - clipped
    if plan.kl_form is not None:
        terms[f"{name}: kl"] = whole.kl
    if plan.reference_weight is not None:
        terms[f"{name}: reference_kl"] = whole.reference_kl
    return CauseTerms(terms, {} if plan.entropy_weight is None else {f"{name}: bonus": whole.bonus})


def _must_partition(sets: Mapping[str, Tensor], mask: Tensor) -> None:
    counts = sum((rows.long() for rows in sets.values()), start=torch.zeros_like(mask[:, 0], dtype=torch.int64))
    wrong = (counts != 1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ShapeError(
            f"Response {row} is in {int(counts[row])} of the sets {', '.join(sets) or '(none)'}; each response must be"
            f" in exactly one, or the parts would not add up."
        )
