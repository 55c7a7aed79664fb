"""What else a policy might have said: the most likely tokens at each place of a response."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from covent.rollout.batch import Responses, response_logits


@torch.no_grad()
def top_alternatives(
    model: PreTrainedModel, responses: Responses, num: int, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """The `num` most likely tokens at each place, most likely first, whether or not one of them was sampled.

    One response is scored at a time, so that no more logits than those of one response are held.

    Args:
      model: the policy; no gradient flows.
      responses: B responses.
      num: at most the size of the vocabulary.
      temperature: of sampling, as for the log-probs of `covent.rollout.batch.score`.
    Returns: token ids and log-probs, [B, T, num] each; junk behind the mask.
    """
    found = []
    for row in range(len(responses)):
        logits = response_logits(model, responses.rows(slice(row, row + 1)))
        top = (logits.float() / temperature).log_softmax(dim=-1).topk(num, dim=-1)
        found.append((top.indices, top.values))
    ids, logprobs = (torch.cat(column) for column in zip(*found, strict=True))
    return ids, logprobs
