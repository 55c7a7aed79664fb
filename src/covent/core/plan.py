"""What is measured before an optimizer step, and the plan that a control makes of it.

One optimizer step is Measure → Plan → Loss: measure the whole optimizer batch without gradient, let a control turn
the measurement into a plan, execute the plan micro-batch by micro-batch. A plan holds per-token tensors, so it can be
cut into micro-batches; what it chose cannot depend on how it is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from covent.core.covariance import batch_center, token_covariance
from covent.core.keys import TokenIdentity
from covent.core.shapes import Tensor
from covent.readings import ControlReading

# Relative errors of the last place that add up in a log-prob or a mean before a difference is more than rounding.
_ROUNDINGS = 64


@dataclass(frozen=True)
class Measured:
    """One optimizer batch under the policy at that optimizer step. Tensors are [B, T], without gradient."""

    logprobs: Tensor
    """log pi of the current policy, nats."""
    old_logprobs: Tensor
    """log pi of the policy that sampled, evaluated by the learner, nats."""
    entropies: Tensor
    """Exact entropy of the current policy, T = 1, nats."""
    advantages: Tensor
    mask: Tensor
    """True at the response tokens that carry gradient."""
    identity: TokenIdentity

    @property
    def num_tokens(self) -> int:
        return int(self.mask.sum())

    def covariances(self) -> Tensor:
        """Token covariance of log pi and advantage, centred over this whole batch; see `token_covariance`."""
        center = batch_center(self.logprobs, self.advantages, self.mask)
        return token_covariance(self.logprobs, self.advantages, self.mask, center=center)

    def covariances_are_equal(self) -> bool:
        """Whether the covariances of all tokens agree up to rounding, so that none is higher than another."""
        covariances = self.covariances()[self.mask]
        scale = self.logprobs[self.mask].abs().max() * self.advantages[self.mask].abs().max()
        noise = _ROUNDINGS * torch.finfo(covariances.dtype).eps * scale
        return bool(covariances.max() - covariances.min() <= noise)


@dataclass(frozen=True)
class Plan:
    """How the loss treats each token of one optimizer batch. Per-token tensors are [B, T]."""

    chosen: Tensor
    """Bool: the tokens that the control chose; none for a control without selection."""
    keeps_gradient: Tensor
    """Bool: False removes the token's policy term. The token still counts in the denominator."""
    kl_weight: Tensor
    """Factor of |log pi - log pi_old| at each token, >= 0."""
    clip_low: float | None
    """PPO clip: the ratio is clamped to at least 1 - clip_low; None for no clip at all."""
    clip_high: float | None
    """PPO clip: the ratio is clamped to at most 1 + clip_high; None for no clip at all."""
    reading: ControlReading
    """What was asked and what was chosen."""

    def rows(self, index: slice) -> Plan:
        """The plan of some of the responses."""
        return replace(
            self,
            chosen=self.chosen[index],
            keeps_gradient=self.keeps_gradient[index],
            kl_weight=self.kl_weight[index],
        )


def on_policy_noise(logprobs: Tensor) -> Tensor:
    """Largest |log ratio| that rounding alone explains, per token, nats.

    The same policy evaluated in batches of another shape gives log-probs that differ in their last places. A term with
    a kink at ratio 1, such as |log ratio|, must not act on that noise.
    """
    return _ROUNDINGS * torch.finfo(logprobs.dtype).eps * (1 + logprobs.abs())
