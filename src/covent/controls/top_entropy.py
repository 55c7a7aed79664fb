"""80/20 masking: only the tokens of highest entropy, the forks of a response, keep their policy gradient."""

from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.core.plan import Measured, Plan, selection_reading, unclipped_plan
from covent.core.selection import top_tokens_with_ties
from covent.core.shapes import Tensor


class TopEntropy(BaseModel):
    """Settings of 80/20 masking, with TRL's name. Shares are fractions, never percent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["top_entropy"] = "top_entropy"
    top_entropy_quantile: float = Field(default=0.2, ge=0, le=1)
    """Share of the tokens, those of highest entropy, that keep their policy gradient: 0.2 in the paper. 1 keeps all, 0
    all but the highest."""


def top_entropy(measured: Measured, settings: TopEntropy, key: int) -> Plan:
    """The plan of 80/20 masking over the whole optimizer batch.

        kept = tokens with H >= the (1 - top_entropy_quantile) quantile of H; the policy term of the others is 0

    The others still count in the denominator, as in TRL, and penalties act on all tokens. The reading counts the tokens
    that lose their gradient.

    Args:
      measured: the whole optimizer batch.
      settings: see `TopEntropy`.
      key: unused; nothing is drawn at random.
    Source: Beyond the 80/20 Rule, arXiv 2506.01939; TRL's `top_entropy_quantile`. Differs: TRL takes the quantile over
      one micro-batch of all ranks; here it is over the optimizer batch. Entropies that agree to about 6e-6 of
      themselves tie.
    """
    kept = top_entropy_tokens(measured, settings.top_entropy_quantile)
    removed = measured.mask & ~kept
    num_removed = measured.total_of(removed)
    note = ""
    if num_removed == 0 and measured.num_tokens > 1 and settings.top_entropy_quantile < 1:
        note = "The tokens of highest entropy tie with all others, so top_entropy chose none to remove."
    reading = selection_reading(
        measured,
        settings.type,
        asked_frac=1 - settings.top_entropy_quantile,
        num_candidates=measured.num_tokens,
        num_selected=num_removed,
        note=note,
    )
    return replace(unclipped_plan(measured, reading), chosen=removed, keeps_gradient=kept)


def top_entropy_tokens(measured: Measured, quantile: float) -> Tensor:
    """Bool [B, T]: the tokens whose entropy is at least the (1 - quantile) quantile over the whole optimizer batch.

    The quantile interpolates linearly between neighbours of the sorted entropies, so the tokens at or above it are
    those at or above the entropy of rank ceil((1 - quantile)(n - 1)).
    """
    last = measured.num_tokens - 1
    # 1 - 0.2 is not 0.8 in binary: the decimal that was meant decides which token is the last.
    lowest = ceil((1 - Fraction(str(quantile))) * last)
    return top_tokens_with_ties(measured.entropies, measured.mask, last - lowest + 1, group=measured.group)
