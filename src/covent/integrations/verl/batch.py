"""verl's mini-batches as columns of covent's optimizer batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from covent.core.keys import TokenIdentity
from covent.core.plan import Measured
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Bool, Float, Tensor

PROMPT, SAMPLE, ROW = "covent_prompt", "covent_sample", "covent_row"
"""The columns that covent adds to verl's: who a response is, and its row in the mini-batch of this rank."""

SAMPLES = "covent_samples"
"""Beside the columns of a rollout of which responses are to be kept."""


@dataclass(frozen=True)
class Columns:
    """What verl knows of the responses of a mini-batch before it scores them. [B, T], without gradient."""

    mask: Bool[Tensor, "B T"]
    """True at the tokens that verl's loss counts."""
    advantages: Float[Tensor, "B T"]
    old_logprobs: Float[Tensor, "B T"]
    identity: TokenIdentity
    old_entropies: Tensor | None = None
    """Of the policy that `old_logprobs` are of; None where verl took the sampling engine's log-probs for them."""
    sampler_logprobs: Tensor | None = None
    reference_logprobs: Tensor | None = None

    @classmethod
    def of(cls, data: Any) -> Columns:
        """From verl's TensorDict, with covent's columns in it."""
        mask = padded(data["response_mask"]).bool()
        prompt, sample = (data[name].reshape(-1, 1).expand(mask.shape) for name in (PROMPT, SAMPLE))
        position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        return cls(
            mask=mask,
            advantages=padded(data["advantages"]),
            old_logprobs=padded(data["old_log_probs"]),
            identity=TokenIdentity(prompt, sample, position),
            old_entropies=_optional(data, "entropy"),
            sampler_logprobs=_optional(data, "rollout_log_probs"),
            reference_logprobs=_optional(data, "ref_log_prob"),
        )


def measured(
    columns: Columns,
    logprobs: Float[Tensor, "B T"],
    entropies: Float[Tensor, "B T"],
    *,
    on_policy: bool,
    group: ProcessGroup | None,
) -> Measured:
    """The responses of this rank as its part of an optimizer batch.

    Args:
      columns: of the same responses.
      logprobs, entropies: of the current policy, nats.
      on_policy: the old log-probs are of this very policy; rounding would otherwise hide it.
      group: the ranks that hold the rest of the optimizer batch; None when it is all here.
    """
    reference, sampler = columns.reference_logprobs, columns.sampler_logprobs
    return Measured(
        logprobs=logprobs,
        old_logprobs=logprobs if on_policy else columns.old_logprobs.to(logprobs),
        entropies=entropies,
        advantages=columns.advantages.to(logprobs),
        mask=columns.mask,
        identity=columns.identity,
        sampler_logprobs=None if sampler is None else sampler.to(logprobs),
        reference_logprobs=None if reference is None else reference.to(logprobs),
        group=group,
    )


def identities(keys: list[str], prompts: dict[str, int]) -> dict[str, Tensor]:
    """Number of the prompt and of the response to it, for each of verl's keys `uid_session_output`.

    Args:
      keys: of the responses; verl's padding has keys of its own.
      prompts: uid → number in the run.

    Example:
      >>> identities(["b_0_0", "a_1_0", "a_0_0", "pad_0_0"], {"a": 4, "b": 5})
      {'covent_prompt': tensor([ 5,  4,  4, -1]), 'covent_sample': tensor([0, 1, 0, 0])}
    """
    parts = [key.rsplit("_", 2) for key in keys]
    of_prompt: dict[str, list[tuple[int, int]]] = {}
    for uid, session, output in parts:
        of_prompt.setdefault(uid, []).append((int(session), int(output)))
    places = {(uid, *each): place for uid, several in of_prompt.items() for place, each in enumerate(sorted(several))}
    return {
        PROMPT: torch.tensor([prompts.get(uid, -1) for uid, *_ in parts]),
        SAMPLE: torch.tensor([places[uid, int(session), int(output)] for uid, session, output in parts]),
    }


def padded(column: Tensor) -> Tensor:
    """Ragged rows as verl pads them, with 0 to the longest."""
    return column.to_padded_tensor(0) if column.is_nested else column


def fitted(column: Tensor, width: int) -> Tensor:
    """The same rows with another number of positions."""
    return torch.nn.functional.pad(column, (0, width - column.shape[1]))


def _optional(data: Any, name: str) -> Tensor | None:
    return padded(data[name]) if name in data.keys() else None  # noqa: SIM118 - a TensorDict
