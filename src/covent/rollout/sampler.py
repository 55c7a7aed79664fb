"""The embedded sampler: a KV-cache decoding loop over any transformers causal LM, seeded token by token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from covent import stopping
from covent.core.keys import TokenIdentity, token_uniform
from covent.errors import NonFiniteError
from covent.rollout.batch import Responses, bad_logit, pad_left, positions_of, token_scores
from covent.rollout.forward import logits_of


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    groups: Sequence[int],
    num_samples: int,
    max_tokens: int,
    end_id: int,
    pad_id: int,
    key: int,
    temperature: float = 1.0,
) -> Responses:
    """Sample `num_samples` responses to each prompt; temperature 0 takes the most likely token.

    Each token's random number is a hash of (key, group, sample, position): the same response is drawn whatever else
    is in the batch, up to rounding of the model itself.

    Args:
      model: in evaluation mode.
      prompts: token ids, without padding.
      groups: the number of each prompt in the run; part of the key of every token.
      num_samples: responses a prompt.
      max_tokens: length limit of a response, the end token included.
      key: from `covent.core.keys.key(seed, purpose, step)`.
      temperature: of the sampling distribution; the sampler's log-probs are at this temperature (at 1 if it is 0).
    Returns: responses in prompt order, the samples of a prompt together.
    Raises:
      NonFiniteError: a logit is NaN or infinite.
      Stopped: a signal asked for it.
    """
    decoding = _Decoding(model, prompts, num_samples, pad_id)
    device = model.device
    group = torch.tensor(groups, device=device).repeat_interleave(num_samples)
    number = torch.arange(num_samples, device=device).repeat(len(prompts))
    alive = torch.ones_like(group, dtype=torch.bool)
    columns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for step in range(max_tokens):
        stopping.poll()
        logits = decoding.logits
        if bad := bad_logit(logits, alive):
            raise NonFiniteError(f"A logit of the sampler at token {step} is {bad}.", tensor="sampler's logits")
        token = _draw(logits, temperature, key, TokenIdentity(group, number, torch.full_like(group, step)))
        logprob, entropy = token_scores(logits, token, temperature or 1.0)
        columns.append((torch.where(alive, token, pad_id), alive, logprob, entropy))
        alive = alive & (token != end_id)
        if step + 1 == max_tokens or not bool(alive.any()):
            break
        decoding.advance(token)
    tokens, mask, logprobs, entropies = (torch.stack(column, dim=1) for column in zip(*columns, strict=True))
    return Responses(
        prompt_ids=decoding.prompt_ids,
        prompt_mask=decoding.prompt_mask,
        response_ids=tokens,
        mask=mask,
        logprobs=logprobs.masked_fill(~mask, 0.0),
        entropies=entropies.masked_fill(~mask, 0.0),
        truncated=alive,
        group=group,
        sample=number,
    )


class _Decoding:
    """A batch in the middle of being decoded: the key-value cache and the logits of the next token, [B, V].

    Each prompt passes through the model once; its cache is then repeated for the samples.
    """

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], num_samples: int, pad_id: int) -> None:
        self._model = model
        ids, mask = (tensor.to(model.device) for tensor in pad_left(prompts, pad_id))
        positions = positions_of(mask)
        self._cache = DynamicCache(config=model.config)
        logits = logits_of(
            model,
            keep=1,
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.batch_repeat_interleave(num_samples)
        self.logits: Tensor = logits[:, -1].repeat_interleave(num_samples, dim=0)
        self.prompt_ids, self.prompt_mask = (t.repeat_interleave(num_samples, dim=0) for t in (ids, mask))
        self._attention = self.prompt_mask.long()
        self._position = positions[:, -1:].repeat_interleave(num_samples, dim=0)

    def advance(self, token: Tensor) -> None:
        """Append one token to each response."""
        self._attention = torch.cat([self._attention, self._attention.new_ones(len(token), 1)], dim=1)
        self._position = self._position + 1
        logits = logits_of(
            self._model,
            keep=1,
            input_ids=token[:, None],
            attention_mask=self._attention,
            position_ids=self._position,
            past_key_values=self._cache,
            use_cache=True,
        )
        self.logits = logits[:, -1]


def _draw(logits: Tensor, temperature: float, key: int, identity: TokenIdentity) -> Tensor:
    """One token per row by inverting the cumulative distribution at a hashed uniform number."""
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)
    threshold = token_uniform(key, identity)[:, None] * cumulative[:, -1:]
    return (cumulative <= threshold).sum(dim=-1)
