"""No entropy control: the PPO clip alone, as GRPO uses it; asymmetric ranges give DAPO's clip-higher."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from covent.core.plan import Measured, Plan
from covent.readings import ControlReading


class PPOClip(BaseModel):
    """Settings of the plain surrogate."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["ppo_clip"] = "ppo_clip"
    clip_ratio_low: float = Field(default=0.2, gt=0, le=1)
    """The ratio is clamped to at least 1 - clip_ratio_low."""
    clip_ratio_high: float = Field(default=0.2, gt=0)
    """The ratio is clamped to at most 1 + clip_ratio_high; 0.28 is DAPO's clip-higher."""


def ppo_clip(measured: Measured, settings: PPOClip, key: int) -> Plan:
    """The plan of the plain clipped surrogate: every token keeps its gradient, no KL term.

    Source: PPO, arXiv 1707.06347; clip-higher, arXiv 2503.14476.
    """
    return Plan(
        chosen=torch.zeros_like(measured.mask),
        keeps_gradient=measured.mask,
        kl_weight=torch.zeros_like(measured.logprobs),
        clip_low=settings.clip_ratio_low,
        clip_high=settings.clip_ratio_high,
        reading=ControlReading(
            name=settings.type,
            asked_frac=None,
            num_tokens=measured.num_tokens,
            num_candidates=None,
            num_selected=0,
            took_all_candidates=False,
        ),
    )
