"""The loss of one optimizer batch by cause. A cause is a name and a per-token term; the terms add up to the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from covent.core.loss import surrogate
from covent.core.plan import Plan
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError

RATIO_CLIP = "ratio clip"
"""The PPO clip: minus the gradient of the tokens that it cuts."""


def loss_by_cause(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    plan: Plan,
    sets: Mapping[str, Bool[Tensor, " B"]],
) -> dict[str, Float[Tensor, "B T"]]:
    """Per-token terms of the surrogate under a plan, by cause.

        each set of responses    -ratio A of its tokens, as if there were neither clip nor control
        "ratio clip"             the policy term with the clip minus the one without
        "NAME: removed tokens"   the policy term with the tokens that control NAME takes out minus the one with them
        "NAME: kl", …            every other term that the plan has, by its name in `LossTerms`

    A clip and a control act by taking gradient away, so their terms are differences, and whatever the plan, the terms
    add up to the loss. What a control removes among the tokens that the clip has cut already is the clip's.

    Args:
      logprobs: of the current policy, nats; gradients flow.
      old_logprobs, advantages, mask, plan: as for `surrogate`.
      sets: names of sets of responses, such as right and wrong answers or the data sources, each with the rows that
        are in it; every response is in exactly one set.
    Returns: terms by cause, exactly 0 where the mask is False; a cause that does nothing has a term of zeros.
    Raises: ShapeError when a response is in no set or in several.
    """
    _must_partition(sets, mask)

    def policy_term(plan: Plan) -> Tensor:
        return surrogate(logprobs, old_logprobs, advantages, mask, plan).policy

    control = plan.reading.name
    clipped_plan = replace(plan, keeps_gradient=mask)
    plain = policy_term(replace(clipped_plan, clip_low=None, clip_high=None))
    clipped = policy_term(clipped_plan)
    whole = surrogate(logprobs, old_logprobs, advantages, mask, plan)
    terms = {name: torch.where(rows[:, None], plain, torch.zeros_like(plain)) for name, rows in sets.items()}
    terms[RATIO_CLIP] = clipped - plain
    terms[f"{control}: removed tokens"] = whole.policy - clipped
    others = {"kl": whole.kl}
    if plan.reference_weight is not None:
        others["reference_kl"] = whole.reference_kl
    if plan.entropy_weight is not None:
        others["bonus"] = whole.bonus
    # A term that is 0 everywhere is a constant; a multiple of 0 keeps it differentiable like the rest.
    return terms | {f"{control}: {name}": term + 0.0 * plain for name, term in others.items()}


def _must_partition(sets: Mapping[str, Tensor], mask: Tensor) -> None:
    counts = sum((rows.long() for rows in sets.values()), start=torch.zeros_like(mask[:, 0], dtype=torch.int64))
    wrong = (counts != 1).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ShapeError(
            f"Response {row} is in {int(counts[row])} of the sets {', '.join(sets) or '(none)'}; each response must be"
            f" in exactly one, or the parts would not add up."
        )
