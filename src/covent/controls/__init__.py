"""Entropy controls: one file each, a pure function `(Measured, settings, key) → Plan`.

To add a published control: a settings model with a new `type`, a function that returns a plan, and one line in
`Control` and `_PLANS` below. Nothing else changes, in the embedded trainer or in an integration.
"""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from covent.controls.clip_cov import ClipCov, clip_cov
from covent.controls.kl_cov import KLCov, kl_cov
from covent.controls.ppo_clip import PPOClip, ppo_clip
from covent.core.plan import Measured, Plan

Control = Annotated[PPOClip | ClipCov | KLCov, Field(discriminator="type")]
"""The settings of any control, told apart by `type`."""

_PLANS: dict[type, Callable[[Measured, Any, int], Plan]] = {PPOClip: ppo_clip, ClipCov: clip_cov, KLCov: kl_cov}


def plan(measured: Measured, settings: PPOClip | ClipCov | KLCov, key: int) -> Plan:
    """The plan of the control that these settings belong to.

    Args:
      measured: the whole optimizer batch.
      settings: of any control.
      key: from `covent.core.keys.key(seed, purpose, optimizer step)`; decides every random choice.
    """
    return _PLANS[type(settings)](measured, settings, key)


__all__ = ["ClipCov", "Control", "KLCov", "PPOClip", "clip_cov", "kl_cov", "plan", "ppo_clip"]
