"""TRL's micro-batches as columns of covent's optimizer batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from covent.core.keys import TokenIdentity
from covent.core.plan import Measured
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Bool, Float, Tensor

PROMPT, SAMPLE = "covent_prompt", "covent_sample"
OLD_LOGPROBS, OLD_ENTROPIES = "covent_old_logprobs", "covent_old_entropies"
"""The columns that covent adds to TRL's generation batch, which shuffles and splits them with its own."""


class Scores(NamedTuple):
    """What a forward pass says of the response tokens, [B, T]."""

    logprobs: Tensor
    """log pi at the sampling temperature, nats."""
    entropies: Tensor
    """Exact entropy at the sampling temperature, nats."""

    def detach(self) -> Scores:
        """The same values without gradient."""
        return Scores(self.logprobs.detach(), self.entropies.detach())


@dataclass(frozen=True)
class Columns:
    """What TRL knows of the responses of one micro-batch before it scores them. [B, T], without gradient."""

    mask: Bool[Tensor, "B T"]
    """True at the tokens that TRL's loss counts."""
    advantages: Float[Tensor, "B T"]
    identity: TokenIdentity
    old_logprobs: Tensor | None
    """None where TRL takes the current policy for the one that sampled."""
    sampler_logprobs: Tensor | None
    reference_logprobs: Tensor | None

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> Columns:
        """From the dictionary that TRL hands to its loss."""
        mask = inputs["completion_mask"].bool()
        if inputs.get("tool_mask") is not None:
            mask = mask & inputs["tool_mask"].bool()
        advantages = inputs["advantages"]
        if advantages.dim() == 1:
            advantages = advantages[:, None]
        old = inputs.get("old_per_token_logps")
        return cls(
            mask=mask,
            advantages=advantages.expand(mask.shape),
            identity=_identity(inputs[PROMPT], inputs[SAMPLE], mask),
            old_logprobs=inputs.get(OLD_LOGPROBS) if old is None else old,
            sampler_logprobs=inputs.get("sampling_per_token_logps"),
            reference_logprobs=inputs.get("ref_per_token_logps"),
        )


def _identity(prompt: Tensor, sample: Tensor, mask: Tensor) -> TokenIdentity:
    position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    return TokenIdentity(prompt[:, None].expand(mask.shape), sample[:, None].expand(mask.shape), position)


def measured(
    columns: Sequence[Columns], scores: Sequence[Scores], *, on_policy: bool, group: ProcessGroup | None
) -> Measured:
    """Micro-batches as one optimizer batch.

    Args:
      columns, scores: of the same micro-batches.
      on_policy: no optimizer step since they were sampled; the old log-probs are then the current ones, which rounding
        in half precision would otherwise hide.
      group: the ranks that hold the rest of the optimizer batch; None when it is all here.
    """
    logprobs = _at_least_float32(joined([each.logprobs for each in scores]))
    known = [each.old_logprobs for each in columns if each.old_logprobs is not None]
    old = joined(known).to(logprobs) if len(known) == len(columns) and not on_policy else logprobs
    sampler = [each.sampler_logprobs for each in columns if each.sampler_logprobs is not None]
    reference = [each.reference_logprobs for each in columns if each.reference_logprobs is not None]
    sampled = joined(sampler).to(logprobs) if len(sampler) == len(columns) else None
    return Measured(
        logprobs=logprobs,
        old_logprobs=old,
        entropies=joined([each.entropies for each in scores]).to(logprobs),
        advantages=joined([each.advantages for each in columns]).to(logprobs),
        mask=joined([each.mask for each in columns]),
        identity=TokenIdentity(
            *(joined(list(parts)) for parts in zip(*(each.identity for each in columns), strict=True))
        ),
        # An engine that could not score a token says NaN; there is then nothing to correct.
        sampler_logprobs=None if sampled is None else torch.where(sampled.isnan(), old, sampled),
        reference_logprobs=joined(reference).to(logprobs) if len(reference) == len(columns) else None,
        group=group,
    )


def _at_least_float32(values: Tensor) -> Tensor:
    """A policy in half precision gives TRL log-probs in half precision; what is made of them is not rounded again."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Rows of several micro-batches in one, padded with 0 or False to the longest response."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])
