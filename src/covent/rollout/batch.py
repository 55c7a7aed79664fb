"""Responses as padded tensors, and the forward pass that scores them. The one place that shifts by a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from covent.core.entropy import logprob_and_entropy
from covent.core.keys import TokenIdentity
from covent.core.lm_head import logprob_and_entropy_from_hidden
from covent.errors import NonFiniteError
from covent.rollout.forward import has_plain_head, head_logits, head_weight, last_hidden, logits_of


@dataclass(frozen=True)
class Responses:
    """B responses: prompts padded on the left to P tokens, responses padded on the right to T tokens."""

    prompt_ids: Tensor
    """[B, P] int64."""
    prompt_mask: Tensor
    """[B, P] bool: False at padding."""
    response_ids: Tensor
    """[B, T] int64, the end token included."""
    mask: Tensor
    """[B, T] bool: True at response tokens."""
    logprobs: Tensor
    """[B, T] log-probs of the sampler at the sampling temperature, nats."""
    entropies: Tensor
    """[B, T] exact entropy of the sampler at T = 1, nats."""
    truncated: Tensor
    """[B] bool: no end token within the length limit."""
    group: Tensor
    """[B] int64: number of the prompt's group in the run."""
    sample: Tensor
    """[B] int64: number of the response in its group."""

    def __len__(self) -> int:
        return len(self.response_ids)

    @property
    def identity(self) -> TokenIdentity:
        shape = self.response_ids.shape
        position = torch.arange(shape[1], device=self.group.device).expand(shape)
        return TokenIdentity(self.group[:, None].expand(shape), self.sample[:, None].expand(shape), position)

    def rows(self, index: Tensor | slice) -> Responses:
        """Some of the responses, with the same padding."""
        return Responses(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def to(self, device: torch.device) -> Responses:
        """The same responses on another device."""
        return Responses(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """[B] tokens of each prompt, and of each response."""
        return self.prompt_mask.sum(dim=1), self.mask.sum(dim=1)

    def trimmed(self) -> Responses:
        """The same responses without columns that are padding in every row."""
        num_prompt, num_response = (int(length.max()) for length in self.lengths)
        cut: dict[str, Tensor] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            if field.name.startswith("prompt"):
                column = column[:, column.shape[1] - num_prompt :]
            elif column.dim() == 2:
                column = column[:, :num_response]
            cut[field.name] = column
        return Responses(**cut)


def join(parts: Sequence[Responses]) -> Responses:
    """All responses in one batch, padded to the longest prompt and response."""
    num_prompt = max(part.prompt_ids.shape[1] for part in parts)
    num_response = max(part.response_ids.shape[1] for part in parts)
    columns: dict[str, Tensor] = {}
    for field in fields(Responses):
        pieces = [getattr(part, field.name) for part in parts]
        if field.name.startswith("prompt"):
            pieces = [torch.nn.functional.pad(piece, (num_prompt - piece.shape[1], 0)) for piece in pieces]
        elif pieces[0].dim() == 2:
            pieces = [torch.nn.functional.pad(piece, (0, num_response - piece.shape[1])) for piece in pieces]
        columns[field.name] = torch.cat(pieces)
    return Responses(**columns)


def pad_left(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, P] and mask [B, P] of prompts of different lengths, aligned at their ends."""
    width = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return ids, torch.arange(width)[None, :] >= width - lengths[:, None]


def positions_of(mask: Tensor) -> Tensor:
    """Position ids of left-padded rows: the first token that is no padding has position 0."""
    return (mask.long().cumsum(dim=1) - 1).clamp(min=0)


HEAD_FROM_VOCABULARY = 16_384
"""Entries from which on a model is scored by `covent.core.lm_head`, without logits. It depends on the model alone, so
that the way responses are batched never changes which of two computations, equal to rounding, is made."""

HEAD_WORKSPACE_BYTES = 256 << 20
"""What may hold logits from a forward to its backward pass; a micro-batch of few tokens fits: nothing is made twice."""


def response_logits(model: PreTrainedModel, responses: Responses) -> Tensor:
    """Logits [B, T, V] that predict each response token, at T = 1. Gradients flow to the model."""
    return logits_of(model, keep=responses.response_ids.shape[1] + 1, **_model_inputs(responses))[:, :-1]


def state_logits(model: PreTrainedModel, responses: Responses, chosen: Tensor) -> Tensor:
    """Logits [S, V] that predict some of the response tokens, at T = 1. Gradients flow to the model.

    Args:
      chosen: [B, T] bool. With a large vocabulary no logits of other tokens are made.
    """
    if scores_without_logits(model):
        return head_logits(model, _response_hidden(model, responses)[chosen])
    return response_logits(model, responses)[chosen]


def _response_hidden(model: PreTrainedModel, responses: Responses) -> Tensor:
    """Last hidden states [B, T, D] that predict each response token. Gradients flow to the model."""
    hidden = last_hidden(model, **_model_inputs(responses))
    return hidden[:, -responses.response_ids.shape[1] - 1 : -1]


def _model_inputs(responses: Responses) -> dict[str, Any]:
    mask = torch.cat([responses.prompt_mask, responses.mask], dim=1)
    return {
        "input_ids": torch.cat([responses.prompt_ids, responses.response_ids], dim=1),
        "attention_mask": mask.long(),
        "position_ids": positions_of(mask),
        "use_cache": False,
    }


def scores_without_logits(model: PreTrainedModel) -> bool:
    """Whether `score` goes by the LM head's tiles: a large vocabulary, and a head that is nothing but a product."""
    head = model.get_output_embeddings()
    return has_plain_head(model) and head.out_features >= HEAD_FROM_VOCABULARY


def bad_logit(logits: Tensor, mask: Tensor) -> str:
    """`nan` or `inf` if such a logit stands at a token of the mask, `-inf` if all its logits are; otherwise empty.

    A single -inf is an entry of the vocabulary that is switched off, and does no harm.

    Args:
      logits: [..., V].
      mask: [...]; what stands behind it may be anything.
    """
    # The maximum of a row with NaN is NaN.
    most = logits.detach().amax(dim=-1)
    bad = most[mask & ~most.isfinite()]
    return str(float(bad[0])) if len(bad) else ""


def score(model: PreTrainedModel, responses: Responses, *, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-prob and exact entropy of each response token under the model, [B, T], nats; gradients flow.

    The log-prob is at the sampling temperature, so that ratios compare the policies that act; the entropy is at T = 1.
    Positions behind the mask hold finite junk.

    Raises: NonFiniteError when a logit of a response token is NaN or +inf, when all are -inf, or when the token itself
      has probability 0.
    """
    if not scores_without_logits(model):
        logits = response_logits(model, responses)
        require_finite(logits, responses.mask)
        logprobs, entropies = token_scores(logits, responses.response_ids, temperature)
        _require_possible(logprobs, responses.mask)
        return logprobs, entropies
    hidden, (weight, bias) = _response_hidden(model, responses), head_weight(model)

    def at(temperature: float) -> tuple[Tensor, Tensor]:
        return logprob_and_entropy_from_hidden(
            hidden,
            weight,
            responses.response_ids,
            bias=bias,
            mask=responses.mask,
            temperature=temperature,
            workspace_bytes=HEAD_WORKSPACE_BYTES,
        )

    logprobs, entropies = at(1.0)
    # The head gives NaN where a logit is NaN or inf, and where none is finite.
    if bool((responses.mask & entropies.detach().isnan()).any()):
        raise NonFiniteError("A logit of the learner is NaN or infinite.", tensor="learner's logits")
    _require_possible(logprobs, responses.mask)
    return (logprobs if temperature == 1.0 else at(temperature)[0]), entropies


def _require_possible(logprobs: Tensor, mask: Tensor) -> None:
    """A response token of probability 0 was sampled by another policy than the model, or the model is broken."""
    if bool((mask & logprobs.detach().isneginf()).any()):
        raise NonFiniteError("A response token has probability 0 under the learner.", tensor="learner's logits")


def require_finite(logits: Tensor, mask: Tensor) -> None:
    """Raises: NonFiniteError when a logit at a token of the mask is NaN or infinite."""
    if bad := bad_logit(logits, mask):
        raise NonFiniteError(f"A logit of the learner is {bad}.", tensor="learner's logits")


def token_scores(logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-prob of each token at the sampling temperature, and exact entropy at T = 1, nats."""
    logprobs, entropies = logprob_and_entropy(logits, tokens)
    if temperature != 1.0:
        logprobs, _ = logprob_and_entropy(logits, tokens, temperature=temperature)
    return logprobs, entropies
