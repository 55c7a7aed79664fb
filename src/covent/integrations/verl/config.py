"""covent's settings among verl's: what `actor_rollout_ref.actor.policy_loss._target_` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from verl.workers.config import PolicyLossConfig


@dataclass
class CoventPolicyLossConfig(PolicyLossConfig):  # type: ignore[misc]  # verl has no types
    """verl's settings of the policy loss and, under the same names, those of `covent.integrations.CoventConfig`."""

    scope: str = "window"
    seed: int = 0
    control: Any = None
    run_folder: Any = None
    name: str = ""
    accuracy: Any = None
    right_from: float = 1.0
    law_every: int = 5
    samples_kept: int = 4
