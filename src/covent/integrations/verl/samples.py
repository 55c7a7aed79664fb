"""Some responses of an optimizer step with their token columns, as a worker hands them to the driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from covent.core.plan import Measured
from covent.integrations.verl.batch import padded
from covent.integrations.verl.window import Window


@dataclass(frozen=True)
class Sample:
    """One response of the first rank; one entry a token that verl's loss counts."""

    prompt: int
    sample: int
    prompt_ids: list[int]
    token_ids: list[int]
    advantage: float
    logprobs: list[float]
    entropies: list[float]
    covariances: list[float]
    selected: list[bool]


def samples_of(window: Window, whole: Measured, data: Any, number: int) -> list[Sample]:
    """Of high and of low advantage in turn. The covariances are of all ranks, so every rank must call it.

    Args:
      window: passed.
      whole: its measurement, with the group of all ranks.
      data: verl's mini-batch of this rank.
      number: how many at most.
    """
    if number == 0 or whole.num_tokens == 0:
        return []
    covariances = whole.covariances()
    chosen = _chosen(window)
    first = whole.advantages.gather(1, whole.mask.int().argmax(dim=1, keepdim=True)).squeeze(1)
    order = torch.argsort(first, descending=True, stable=True).tolist()
    alternating = dict.fromkeys(place for pair in zip(order, reversed(order), strict=True) for place in pair)
    responses, prompts = padded(data["responses"]), data["prompts"]
    kept = [place for place in alternating if bool(whole.mask[place].any())][:number]
    found = []
    for place in kept:
        mask = whole.mask[place]
        columns = (whole.logprobs, whole.entropies, covariances, chosen)
        logprobs, entropies, own, selected = (column[place][mask].tolist() for column in columns)
        found.append(
            Sample(
                prompt=int(whole.identity.prompt[place, 0]),
                sample=int(whole.identity.sample[place, 0]),
                prompt_ids=prompts[place].tolist(),
                token_ids=responses[place][: len(mask)][mask.to(responses.device)].tolist(),
                advantage=float(first[place]),
                logprobs=logprobs,
                entropies=entropies,
                covariances=own,
                selected=selected,
            )
        )
    return found


def _chosen(window: Window) -> torch.Tensor:
    """Bool [B, T]: the tokens that a plan chose, in the rows of the mini-batch."""
    chosen = torch.zeros_like(window.columns.mask)
    for micro in window.passed:
        if micro.plan is not None:
            width = min(chosen.shape[1], micro.plan.chosen.shape[1])
            chosen[micro.rows, :width] = micro.plan.chosen[:, :width]
    return chosen
