"""KL-Cov as the paper's released code and verl have it: chosen inside each micro-batch. For comparison."""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from covent.core.plan import Measured, Plan, selection_reading, unclipped_plan
from covent.core.selection import top_tokens


class KLCovReleased(BaseModel):
    """Settings of KL-Cov, with verl's names, and the micro-batch in which it chooses."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["kl_cov_released"] = "kl_cov_released"
    kl_cov_ratio: float = Field(default=2e-3, gt=0, le=1)
    """A fraction, as in verl; the paper's repository has `k_percent`, a hundred times this number."""
    ppo_kl_coef: float = Field(default=1.0, gt=0)
    """Factor of the KL term; verl's default is 0.1."""
    responses_per_micro_batch: int = Field(default=8, ge=1)
    """Neighbouring rows of the optimizer batch that the selection sees at a time. The result depends on it."""


def kl_cov_released(measured: Measured, settings: KLCovReleased, key: int) -> Plan:
    """The plan of KL-Cov with the semantics of its released code.

        in each micro-batch of n tokens: max(1, floor(kl_cov_ratio n)) tokens of highest cov, centred in the
        micro-batch; their loss gets ppo_kl_coef |log pi - log pi_old|

    At least one token of every micro-batch, whatever its covariance; and no protection of the kink at log ratio 0, so
    rounding switches the term on. Like `clip_cov_released` it depends on rows, micro-batches and ranks, to show by how
    much; use `kl_cov`.

    Args:
      measured: the whole optimizer batch, rows in the order in which micro-batches take them.
      settings: see `KLCovReleased`.
      key: unused; nothing is drawn at random.
    Source: the released code of arXiv 2505.22617, `compute_policy_loss_kl_cov`, and verl 0.9.1's of that name.
      Differs: among tied covariances torch.topk takes whichever it meets; here the lower token identity goes first.
    """
    chosen = torch.zeros_like(measured.mask)
    counts = []
    for rows, part in measured.micro_batches(settings.responses_per_micro_batch):
        asked = max(int(settings.kl_cov_ratio * part.num_tokens), 1)
        chosen[rows] = top_tokens(part.covariances_as_released(), part.mask, asked, part.identity)
        counts.append((part.num_tokens, asked))
    reading = selection_reading(
        measured,
        settings.type,
        asked_frac=settings.kl_cov_ratio,
        num_candidates=measured.num_tokens,
        num_selected=measured.total_of(chosen),
        micro_batches=counts,
        advice="No covariance decides then: lower kl_cov_ratio, or take more responses a micro-batch.",
    )
    return replace(
        unclipped_plan(measured, reading),
        chosen=chosen,
        kl_weight=chosen.to(measured.logprobs.dtype) * settings.ppo_kl_coef,
        kl_form="abs",
        sets_clip=True,
    )
