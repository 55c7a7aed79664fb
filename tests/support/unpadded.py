"""Scores of a response the slow way: no padding, no cache, no company, sums in Python."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from covent.rollout.batch import Responses
from covent.train.model import LanguageModel


@torch.no_grad()
def alone(model: LanguageModel, batch: Responses, row: int, temperature: float = 1.0) -> list[tuple[float, float]]:
    """(log-prob at the temperature, entropy at 1) of each token of a response: no padding, no cache, no company."""
    prompt = batch.prompt_ids[row][batch.prompt_mask[row]].tolist()
    response = batch.response_ids[row][batch.mask[row]].tolist()
    logits = model.network(input_ids=torch.tensor([prompt + response])).logits[0].tolist()
    found = []
    for index, token in enumerate(response):
        z = logits[len(prompt) + index - 1]
        total = math.fsum(math.exp(v) for v in z)
        entropy = -math.fsum(math.exp(v) / total * (v - math.log(total)) for v in z)
        log_total = math.log(math.fsum(math.exp(v / temperature) for v in z))
        found.append((z[token] / temperature - log_total, entropy))
    return found


def listed(batch: Responses, row: int, *columns: Tensor) -> list[tuple[float, ...]]:
    return list(zip(*(column[row][batch.mask[row]].tolist() for column in columns), strict=True))


def as_list(values: list[tuple[float, ...]]) -> list[float]:
    return [value for pair in values for value in pair]
