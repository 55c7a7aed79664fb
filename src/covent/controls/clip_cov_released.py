"""Clip-Cov as the paper's released code and verl have it: chosen inside each micro-batch. For comparison."""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from covent.controls.clip_cov import ClipCov
from covent.core.loss import ppo_cut
from covent.core.plan import Measured, Plan, selection_reading, unclipped_plan
from covent.core.selection import random_tokens


class ClipCovReleased(ClipCov):
    """Settings of Clip-Cov, and the micro-batch in which it chooses."""

    type: Literal["clip_cov_released"] = "clip_cov_released"  # type: ignore[assignment]  # another name for the same settings
    responses_per_micro_batch: int = Field(default=8, ge=1)
    """Neighbouring rows of the optimizer batch that the selection sees at a time. The result depends on it."""


def clip_cov_released(measured: Measured, settings: ClipCovReleased, key: int) -> Plan:
    """The plan of Clip-Cov with the semantics of its released code.

        in each micro-batch of n tokens: candidates = tokens with lb < cov < ub that the PPO clip does not cut;
        max(floor(clip_cov_ratio n), 1) of them at random lose their policy term

    The covariance is centred in the micro-batch, so one response alone, whose advantage is constant, has none. It is
    the one control that depends on the order of rows, on micro-batches and on ranks, and it is here to show by how
    much; use `clip_cov`.

    Args:
      measured: the whole optimizer batch, rows in the order in which micro-batches take them.
      settings: see `ClipCovReleased`.
      key: decides the draw, by token identity.
    Source: the released code of arXiv 2505.22617, `compute_policy_loss_clip_cov`, and verl 0.9.1's of that name.
      Differs: they draw with torch.randperm from the global generator; the set of candidates and the count are theirs.
    """
    cut = ppo_cut(
        measured.logprobs - measured.old_logprobs,
        measured.advantages,
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
    )
    chosen = torch.zeros_like(measured.mask)
    may_be_chosen = torch.zeros_like(measured.mask)
    counts = []
    for rows, part in measured.micro_batches(settings.responses_per_micro_batch):
        covariances = part.covariances_as_released()
        candidates = (
            part.mask & ~cut[rows] & (covariances > settings.clip_cov_lb) & (covariances < settings.clip_cov_ub)
        )
        asked = max(int(settings.clip_cov_ratio * part.num_tokens), 1)
        chosen[rows] = random_tokens(candidates, asked, part.identity, key=key)
        may_be_chosen[rows] = candidates
        counts.append((part.total_of(candidates), asked))
    reading = selection_reading(
        measured,
        settings.type,
        asked_frac=settings.clip_cov_ratio,
        num_candidates=measured.total_of(may_be_chosen),
        num_selected=measured.total_of(chosen),
        micro_batches=counts,
        advice="Lower clip_cov_ratio, widen the band, or take more responses a micro-batch.",
    )
    return replace(
        unclipped_plan(measured, reading),
        chosen=chosen,
        keeps_gradient=measured.mask & ~chosen,
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
        sets_clip=True,
    )
