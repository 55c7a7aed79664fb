"""Truncated importance weights between the engine that sampled and the learner, whose log-probs differ a little."""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.core.plan import Measured, Plan, no_selection, unclipped_plan
from covent.errors import ConfigError


class TruncatedImportance(BaseModel):
    """Settings of the weights, with verl's names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["truncated_importance"] = "truncated_importance"
    rollout_is: Literal["token", "sequence"] = "token"
    """`token`: each token has its own weight. `sequence`: all tokens of a response have the product of theirs."""
    rollout_is_threshold: float = Field(default=2.0, gt=0)
    """No weight is larger."""


def truncated_importance(measured: Measured, settings: TruncatedImportance, key: int) -> Plan:
    """The plan of truncated importance weights: each token's advantage is multiplied by its weight.

        w = min(pi_old(learner) / pi_sampler, rollout_is_threshold)        no gradient flows through w

    The weight corrects for the engine alone; the ratio pi / pi_old of the surrogate corrects for the updates since.

    Args:
      measured: the whole optimizer batch, with sampler_logprobs.
      settings: see `TruncatedImportance`.
      key: unused; nothing is drawn at random.
    Raises: ConfigError when the batch has no sampler_logprobs.
    Source: truncated importance sampling, Ionides 2008, as in verl's `rollout_is` and TRL's `vllm_importance_sampling`.
      Differs: verl also bounds the log ratio at 20.
    """
    if measured.sampler_logprobs is None:
        raise ConfigError(
            "control 'truncated_importance' needs the sampling engine's own log-probs (Measured.sampler_logprobs), and"
            " this optimizer batch has none. Have the engine return them."
        )
    old, sampler = measured.old_logprobs, measured.sampler_logprobs
    # Where they agree there is nothing to correct, even if both say -inf.
    gap = (old - sampler).masked_fill(~measured.mask | (old == sampler), 0.0)
    if settings.rollout_is == "sequence":
        gap = gap.sum(dim=1, keepdim=True).expand_as(gap)
    weights = gap.exp()
    truncated = measured.mask & (weights > settings.rollout_is_threshold)
    note = "The importance weights of some tokens were truncated." if measured.total_of(truncated) else ""
    return replace(
        unclipped_plan(measured, no_selection(measured, settings.type, note)),
        factor=weights.clamp(max=settings.rollout_is_threshold),
    )
