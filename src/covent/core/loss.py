"""The loss: per-token terms out. The caller sums them and divides once, by the counts of the whole optimizer batch.

One general law, `clipped_objective`, takes any log-ratio, an asymmetric clip range and a dual clip. `surrogate` (that
of a token), `gspo` (that of a response) and `cispo` (the clipped ratio as a weight) execute a plan; the losses of the
papers with their own settings are named calls in `covent.core.named`.

No log-ratio is held back. Where a term does not depend on the ratio (no advantage, cut by a clip, removed by the plan)
the ratio may overflow and the term and its gradient are exact all the same; where it does, an infinite ratio is an
infinite loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from covent.core.penalties import NO_INPUTS, PenaltyInputs, entropy_bonus_term, kl_term
from covent.core.plan import Plan
from covent.core.reduce import means_of_responses
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError


class LossTerms(NamedTuple):
    """Per-token terms of the loss, and where a clip cut them. All [B, T]."""

    policy: Tensor
    """-min(ratio A, clipped ratio A); 0 where the plan removes it."""
    kl: Tensor
    """kl_weight x KL to the sampling policy, in the plan's form."""
    cut_low: Tensor
    """Bool: ratio below the range and A < 0, so that the clip removes the gradient. CISPO: ratio below the range."""
    cut_high: Tensor
    """Bool: ratio above the range and A > 0. CISPO: ratio above the range."""
    cut_dual: Tensor
    """Bool: A < 0 and the ratio above the dual clip."""
    reference_kl: Tensor
    """reference_weight x KL to the reference policy; 0 for a plan without it."""
    bonus: Tensor
    """-entropy_weight x H; 0 for a plan without it. Always a mean over tokens, whatever the aggregation."""

    @property
    def aggregated(self) -> Tensor:
        """The sum of the terms that an aggregation mode weighs: all but the bonus."""
        return self.policy + self.kl + self.reference_kl


class Objective(NamedTuple):
    """What is maximised at each token, and where a clip removed its gradient."""

    value: Tensor
    cut_low: Tensor
    cut_high: Tensor
    cut_dual: Tensor


PolicyLoss = Callable[..., LossTerms]
"""(logprobs, old_logprobs, advantages, mask, plan, inputs) → terms: `surrogate`, `gspo` or `cispo`."""


def clipped_objective(
    log_ratio: Float[Tensor, "*shape"],
    advantages: Float[Tensor, "*shape"],
    *,
    clip_low: float | None,
    clip_high: float | None,
    dual_clip: float | None = None,
) -> Objective:
    """The clipped policy-gradient objective of any importance ratio.

        min(ratio A, clamp(ratio, 1 - clip_low, 1 + clip_high) A),     and where A < 0 at least dual_clip A

    Args:
      log_ratio: log of the current over the sampling policy, of a token or a response, nats; gradients flow. Infinite
        ones are harmless where A = 0 and where a clip cuts.
      advantages: no gradient.
      clip_low, clip_high: distances from 1; None for no bound on that side.
      dual_clip: > 1; bounds the loss of tokens with A < 0 whose ratio has grown. None for none.
    Source: PPO, arXiv 1707.06347, Eq. 7; asymmetric range: DAPO, arXiv 2503.14476; dual clip: arXiv 1912.09729, Eq. 5.

    Example:
      >>> log_ratio = torch.tensor([0.5, 1.5, 1.5, 5.0]).log()
      >>> advantages = torch.tensor([-1.0, 1.0, -1.0, -1.0])
      >>> clipped_objective(log_ratio, advantages, clip_low=0.2, clip_high=0.2, dual_clip=3.0).value
      tensor([-0.8000,  1.2000, -1.5000, -3.0000])
    """
    ratio = log_ratio.detach().exp()
    cut_low = cut_high = cut_dual = torch.zeros_like(ratio, dtype=torch.bool)
    # What the advantage is multiplied by where the ratio itself does not decide.
    bound = torch.ones_like(ratio)
    if clip_low is not None:
        cut_low = (ratio < 1 - clip_low) & (advantages < 0)
        bound = bound.masked_fill(cut_low, 1 - clip_low)
    if clip_high is not None:
        cut_high = (ratio > 1 + clip_high) & (advantages > 0)
        bound = bound.masked_fill(cut_high, 1 + clip_high)
    if dual_clip is not None:
        cut_dual = (ratio > dual_clip) & (advantages < 0)
        bound = bound.masked_fill(cut_dual, dual_clip)
    # The exp is taken only where it decides: beyond the range of a float its gradient would be 0 x inf, NaN. What is
    # NaN already stays so.
    decides = ~(cut_low | cut_high | cut_dual | (advantages == 0)) | log_ratio.isnan()
    live = log_ratio.masked_fill(~decides, 0.0).exp()
    return Objective(torch.where(decides, live, bound) * advantages, cut_low, cut_high, cut_dual)


def surrogate(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    plan: Plan,
    inputs: PenaltyInputs = NO_INPUTS,
) -> LossTerms:
    """The clipped policy-gradient surrogate under a plan, token by token.

        ratio = pi / pi_old        policy = -min(ratio f A, clamp(ratio, 1 - low, 1 + high) f A)
        kl = kl_weight KL(pi_old || pi)     reference_kl = reference_weight KL(pi || pi_ref)     bonus = -w H

    Args:
      logprobs: of the current policy, nats; gradients flow.
      old_logprobs: of the sampling policy, nats; no gradient.
      advantages: one value a token; no gradient. The plan's factor f multiplies it.
      mask: True where the token counts.
      plan: rows of the same responses.
      inputs: what the plan's other terms need.
    Returns: terms that are exactly 0 where the mask is False, whatever stands there.
    Raises: ShapeError when the plan has a term whose input is missing.
    Source: PPO, arXiv 1707.06347, Eq. 7; arXiv 2505.22617, Eqs. 12 and 14. Differs: the paper writes a KL at the
      chosen tokens; like its released code the default form is |log ratio| of the sampled token, whose gradient has
      constant size.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    return _terms(_objective(log_ratio, advantages, mask, plan), log_ratio, logprobs, mask, plan, inputs)


def gspo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    plan: Plan,
    inputs: PenaltyInputs = NO_INPUTS,
) -> LossTerms:
    """The surrogate with the ratio of the response, the geometric mean of its tokens' ratios.

        s = exp(mean over the response of log pi - log pi_old)     s_t = sg[s] pi_t / sg[pi_t]
        policy = -min(s_t f A, clamp(s_t, 1 - low, 1 + high) f A)

    All tokens of a response are cut together; each token's gradient is that of its own log-prob. A response must lie in
    one micro-batch as a whole. Aggregate with `seq-mean-token-mean`.

    Args, Returns, Raises: as `surrogate`.
    Source: GSPO, arXiv 2507.18071, Eqs. 5 and 7 (GSPO-token). Differs: verl bounds log s at 10; here nothing does.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    mean = means_of_responses(log_ratio.detach(), mask)[:, None]
    # Of pi alone: where pi_old is 0 the log-ratio is infinite, and inf - inf is NaN. Where pi itself is 0 there is no
    # gradient to give.
    own = (logprobs - logprobs.detach()).masked_fill(~mask | logprobs.detach().isinf(), 0.0)
    return _terms(_objective(mean + own, advantages, mask, plan), log_ratio, logprobs, mask, plan, inputs)


def cispo(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    plan: Plan,
    inputs: PenaltyInputs = NO_INPUTS,
) -> LossTerms:
    """REINFORCE weighted by the clipped ratio: clipping bounds a token's weight and never removes its gradient.

        policy = -sg[clamp(pi / pi_old, 1 - low, 1 + high)] f A log pi

    Args, Returns, Raises: as `surrogate`.
    Raises: ShapeError also for a plan with a dual clip, which CISPO does not know.
    Source: MiniMax-M1, arXiv 2506.13585, Eqs. 4 and 5; its lower bound is off (a low range of 1).
    """
    if plan.dual_clip is not None:
        raise ShapeError(f"CISPO has no dual clip, and the plan asks for one at {plan.dual_clip:g}. Leave it out.")
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    ratio = log_ratio.detach().exp()
    nowhere = torch.zeros_like(mask)
    low = nowhere if plan.clip_low is None else ratio < 1 - plan.clip_low
    high = nowhere if plan.clip_high is None else ratio > 1 + plan.clip_high
    if plan.clip_low is not None:
        ratio = ratio.clamp(min=1 - plan.clip_low)
    if plan.clip_high is not None:
        ratio = ratio.clamp(max=1 + plan.clip_high)
    advantages = _advantages(advantages, mask, plan)
    weight = ratio.masked_fill((advantages == 0) | ~plan.keeps_gradient, 0.0) * advantages
    value = weight * logprobs.masked_fill(~mask | (weight == 0) & logprobs.isinf(), 0.0)
    return _terms(Objective(value, low, high, nowhere), log_ratio, logprobs, mask, plan, inputs)


POLICY_LOSSES: dict[str, PolicyLoss] = {"vanilla": surrogate, "gspo": gspo, "cispo": cispo}
"""verl's `loss_mode` → the loss that executes a plan. Clip-Cov and KL-Cov are plans, not losses."""


def ppo_cut(
    log_ratio: Float[Tensor, "B T"], advantages: Float[Tensor, "B T"], *, clip_low: float, clip_high: float
) -> Bool[Tensor, "B T"]:
    """Tokens whose policy gradient the PPO clip removes: ratio beyond the range on the side the advantage pushes to."""
    ratio = log_ratio.exp()
    return ((ratio < 1 - clip_low) & (advantages < 0)) | ((ratio > 1 + clip_high) & (advantages > 0))


def _log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """Masked positions are replaced before exp, so that a NaN or an overflow there cannot reach the gradient."""
    return (logprobs - old_logprobs).masked_fill(~mask, 0.0)


def _advantages(advantages: Tensor, mask: Tensor, plan: Plan) -> Tensor:
    if plan.factor is not None:
        advantages = plan.factor * advantages
    return advantages.masked_fill(~mask, 0.0)


def _objective(log_ratio: Tensor, advantages: Tensor, mask: Tensor, plan: Plan) -> Objective:
    return clipped_objective(
        # Without gradient at a token that the plan removes, where an infinite ratio would make one of 0 x inf.
        torch.where(plan.keeps_gradient, log_ratio, log_ratio.detach()),
        _advantages(advantages, mask, plan),
        clip_low=plan.clip_low,
        clip_high=plan.clip_high,
        dual_clip=plan.dual_clip,
    )


def _terms(
    objective: Objective, log_ratio: Tensor, logprobs: Tensor, mask: Tensor, plan: Plan, inputs: PenaltyInputs
) -> LossTerms:
    """The policy term where the plan keeps it, and the plan's other terms."""
    nothing = torch.zeros_like(log_ratio)
    kl = reference_kl = bonus = nothing
    if plan.kl_form is not None:
        # KL(pi_old || pi): the sampled token is one of pi_old.
        kl = kl_term(plan.kl_weight, plan.kl_form, -log_ratio, inputs.exact_kl, mask)
    if plan.reference_weight is not None:
        if inputs.reference_logprobs is None:
            raise ShapeError("A plan asks for a KL to the reference policy, and no reference log-probs were given.")
        gap = (logprobs - inputs.reference_logprobs).masked_fill(~mask, 0.0)
        reference_kl = kl_term(plan.reference_weight, plan.reference_form, gap, inputs.exact_reference_kl, mask)
    if plan.entropy_weight is not None:
        bonus = entropy_bonus_term(plan.entropy_weight, inputs.entropies, mask)
    return LossTerms(
        policy=torch.where(plan.keeps_gradient & mask, -objective.value, nothing),
        kl=kl,
        cut_low=objective.cut_low & mask,
        cut_high=objective.cut_high & mask,
        cut_dual=objective.cut_dual & mask,
        reference_kl=reference_kl,
        bonus=bonus,
    )
