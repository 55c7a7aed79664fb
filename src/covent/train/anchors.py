"""Frozen copies of the policy that KL terms look back at; only those that the run's controls need."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from covent.controls import AnyControl, KLCov, ReferenceKL


@dataclass(frozen=True)
class Anchors:
    """Networks without gradient; None where no control needs one."""

    old: PreTrainedModel | None = None
    """The policy that sampled the rollout, for a KL over the vocabulary; the log-probs alone need no network."""
    reference: PreTrainedModel | None = None
    """The policy at the start of the run."""

    @classmethod
    def of(cls, network: PreTrainedModel, controls: Sequence[AnyControl]) -> Anchors:
        """Copies of the network as it is now, for these controls."""
        needs_old = any(isinstance(control, KLCov) and control.kl_form == "exact" for control in controls)
        needs_reference = any(isinstance(control, ReferenceKL) for control in controls)
        return cls(_frozen(network) if needs_old else None, _frozen(network) if needs_reference else None)

    def renew_old(self, network: PreTrainedModel) -> None:
        """Called before each rollout: the policy that samples it is the network as it is now."""
        if self.old is not None:
            self.old.load_state_dict(network.state_dict())


NO_ANCHORS = Anchors()


def _frozen(network: PreTrainedModel) -> PreTrainedModel:
    frozen = copy.deepcopy(network)
    frozen.requires_grad_(False)
    return frozen
