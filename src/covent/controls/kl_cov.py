"""KL-Cov: the tokens of highest covariance are held near the policy that sampled them by a KL term."""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.core.penalties import KLForm
from covent.core.plan import Measured, Plan, on_policy_noise, selection_reading, unclipped_plan
from covent.core.selection import count_of_share, top_tokens


class KLCov(BaseModel):
    """Settings of KL-Cov, with verl's names. Shares are fractions, never percent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["kl_cov"] = "kl_cov"
    kl_cov_ratio: float = Field(default=2e-3, gt=0, le=1)
    """Share of the tokens of the optimizer batch that get the KL term. The paper uses 2e-3 (7B) and 2e-4 (32B);
    batches of a few thousand tokens need 20 to 50 times as much."""
    ppo_kl_coef: float = Field(default=1.0, gt=0)
    """Factor of the KL term, the paper's beta."""
    kl_form: KLForm = "abs"
    """How the KL to the policy that sampled is formed: `abs`, |log ratio| as in the released code; `k2` or `k3`, which
    grow smoothly from 0; `exact` over the vocabulary, as the paper writes it."""


def kl_cov(measured: Measured, settings: KLCov, key: int) -> Plan:
    """The plan of KL-Cov over the whole optimizer batch.

        chosen = floor(kl_cov_ratio N) tokens of highest cov;  their loss gets ppo_kl_coef KL(pi_old || pi)

    There is no PPO clip. On the first optimizer step of a rollout the policy is the one that sampled: the log ratio
    is 0 and the term has no gradient, in any form. That is said in the reading, and rounding noise is not allowed to
    undo it. Covariances that are negative are ranked like any other: the highest are taken even if none is positive.
    Where all covariances are equal no token is highest, and none is chosen.

    Args:
      measured: the whole optimizer batch; N is the number of its tokens that carry gradient.
      settings: see `KLCov`.
      key: unused; KL-Cov draws nothing at random.
    Source: arXiv 2505.22617, Eqs. 13 and 14. Differs: by default |log ratio| of the sampled token as in the released
      code; the share is taken over the optimizer batch and not over each micro-batch, and less than one token selects
      none.
    """
    asked = count_of_share(settings.kl_cov_ratio, measured.num_tokens)
    all_equal = measured.covariances_are_equal()
    count = 0 if all_equal else asked
    chosen = top_tokens(measured.covariances(), measured.mask, count, measured.identity, group=measured.group)
    log_ratio = (measured.logprobs - measured.old_logprobs).abs()
    acts = chosen & (log_ratio > on_policy_noise(measured.logprobs))
    note = ""
    if asked == 0:
        note = f"kl_cov_ratio {settings.kl_cov_ratio:g} of {measured.num_tokens} tokens is less than one token."
    elif all_equal:
        note = "All tokens have the same covariance, so none is highest; KL-Cov chose none."
    elif measured.total_of(acts) == 0:
        note = "On-policy: the log ratio of every chosen token is 0, so the KL term has no gradient in this step."
    reading = selection_reading(
        measured,
        settings.type,
        asked_frac=settings.kl_cov_ratio,
        num_candidates=measured.num_tokens,
        num_selected=measured.total_of(chosen),
        note=note,
        advice="No covariance decides then: lower kl_cov_ratio.",
    )
    return replace(
        unclipped_plan(measured, reading),
        chosen=chosen,
        # Only the kink of |log ratio| turns rounding into a gradient; the smooth forms may act everywhere.
        kl_weight=(acts if settings.kl_form == "abs" else chosen).to(measured.logprobs.dtype) * settings.ppo_kl_coef,
        kl_form=settings.kl_form,
        # No clip at all is what KL-Cov says of it: an unbounded range, not silence.
        sets_clip=True,
    )
