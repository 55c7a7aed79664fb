"""Clip-Cov: a few tokens drawn at random from a band of high covariance lose their policy gradient."""

from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covent.core.loss import ppo_cut
from covent.core.plan import Measured, Plan, selection_reading, unclipped_plan
from covent.core.selection import count_of_share, random_tokens, tokens_in_band


class ClipCov(BaseModel):
    """Settings of Clip-Cov, with verl's names. Shares are fractions, never percent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["clip_cov"] = "clip_cov"
    clip_cov_ratio: float = Field(default=2e-4, gt=0, le=1)
    """Share of the tokens of the optimizer batch that lose their gradient. The paper uses 2e-4; batches of a few
    thousand tokens need 20 to 50 times as much, or the share is less than one token."""
    clip_cov_lb: float = 1.0
    """Lower end of the covariance band."""
    clip_cov_ub: float = 5.0
    """Upper end of the covariance band."""
    clip_ratio_low: float = Field(default=1.0, gt=0, le=1)
    """PPO clip beside it: 1 and 1 in the paper's scripts, which leaves only ratios above 2 to be cut."""
    clip_ratio_high: float = Field(default=1.0, gt=0)
    """The upper end of the same clip, at a ratio of 1 + clip_ratio_high."""

    @model_validator(mode="after")
    def _band_is_ordered(self) -> Self:
        if self.clip_cov_lb >= self.clip_cov_ub:
            raise ValueError(f"clip_cov_lb ({self.clip_cov_lb}) must be below clip_cov_ub ({self.clip_cov_ub})")
        return self


def clip_cov(measured: Measured, settings: ClipCov, key: int) -> Plan:
    """The plan of Clip-Cov over the whole optimizer batch.

        candidates = tokens with lb <= cov <= ub that the PPO clip does not cut
        chosen     = floor(clip_cov_ratio N) of them, at random; their policy term is 0

    Args:
      measured: the whole optimizer batch; N is the number of its tokens that carry gradient.
      settings: see `ClipCov`.
      key: decides the draw.
    Source: arXiv 2505.22617, Eqs. 11 and 12. Differs: like the released code, tokens that the PPO clip already cuts
      are no candidates. Unlike it, the share is taken over the optimizer batch and not over each micro-batch, the
      band is closed, its ends are compared on the tie grid (`tokens_in_band`), and a share of less than one token
      selects none.
    """
    cut = ppo_cut(
        measured.logprobs - measured.old_logprobs,
        measured.advantages,
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
    )
    ends = settings.clip_cov_lb, settings.clip_cov_ub
    candidates = ~cut & tokens_in_band(measured.covariances(), measured.mask, *ends, group=measured.group)
    num_candidates = measured.total_of(candidates)
    asked = count_of_share(settings.clip_cov_ratio, measured.num_tokens)
    chosen = random_tokens(candidates, asked, measured.identity, key=key, group=measured.group)
    band = f"[{settings.clip_cov_lb:g}, {settings.clip_cov_ub:g}]"
    note = ""
    if asked == 0:
        note = f"clip_cov_ratio {settings.clip_cov_ratio:g} of {measured.num_tokens} tokens is less than one token."
    elif num_candidates == 0:
        note = f"No token that the PPO clip leaves lies in {band}; Clip-Cov chose none."
    reading = selection_reading(
        measured,
        settings.type,
        asked_frac=settings.clip_cov_ratio,
        num_candidates=num_candidates,
        num_selected=min(asked, num_candidates),
        note=note,
        advice=f"They are all that lie in {band}, and {asked} were asked: lower clip_cov_ratio or widen the band.",
    )
    return replace(
        unclipped_plan(measured, reading),
        chosen=chosen,
        keeps_gradient=measured.mask & ~chosen,
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
        sets_clip=True,
    )
