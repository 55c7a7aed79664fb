"""No entropy control: the PPO clip alone, as GRPO uses it; asymmetric ranges give DAPO's clip-higher."""

from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.core.plan import Measured, Plan, no_selection, unclipped_plan


class PPOClip(BaseModel):
    """Settings of the plain surrogate."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["ppo_clip"] = "ppo_clip"
    clip_ratio_low: float = Field(default=0.2, gt=0, le=1)
    """The ratio is clamped to at least 1 - clip_ratio_low."""
    clip_ratio_high: float = Field(default=0.2, gt=0)
    """The ratio is clamped to at most 1 + clip_ratio_high; 0.28 is DAPO's clip-higher."""
    clip_ratio_c: float | None = Field(default=None, gt=1)
    """Dual clip: where the advantage is negative, the loss grows no further than at this ratio; verl's default is 3.
    None for none."""


def ppo_clip(measured: Measured, settings: PPOClip, key: int) -> Plan:
    """The plan of the plain clipped surrogate: every token keeps its gradient, no KL term.

    Source: PPO, arXiv 1707.06347; clip-higher, arXiv 2503.14476; dual clip, arXiv 1912.09729.
    """
    return replace(
        unclipped_plan(measured, no_selection(measured, settings.type)),
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
        dual_clip=settings.clip_ratio_c,
        sets_clip=True,
    )
