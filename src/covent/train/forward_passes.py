"""How responses are cut into forward passes: by their number, or by tokens. It changes results by rounding only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from covent.rollout.batch import Responses

Rows = slice | Tensor
"""Of some responses: neighbours, or int64 row numbers."""


class TokenBudget(NamedTuple):
    """The most that one forward pass may hold."""

    tokens: int
    """Prompts and responses, padding included. A response that is longer on its own goes alone."""
    responses: int


AtOnce = int | TokenBudget
"""The most that a forward pass may hold; a number is of responses."""


def forward_passes(responses: Responses, at_once: AtOnce) -> list[Rows]:
    """The rows of each forward pass; every response is in one of them.

    Under a token budget responses of like length go together, so that little of it is padding.
    """
    if not isinstance(at_once, TokenBudget):
        return [slice(first, first + at_once) for first in range(0, len(responses), at_once)]
    prompts, lengths = (found.tolist() for found in responses.lengths)
    order = sorted(range(len(responses)), key=lambda row: (lengths[row], prompts[row], row))
    device = responses.mask.device
    return [torch.tensor(rows, device=device) for rows in _packed(order, prompts, lengths, at_once)]


def _packed(order: list[int], prompts: list[int], lengths: list[int], budget: TokenBudget) -> Iterator[list[int]]:
    """Neighbours in `order`, as many at a time as fit."""
    rows: list[int] = []
    widest = 0
    for row in order:
        # Of a pass, the longest prompt and the longest response set the width.
        width = max(widest, prompts[row]) + lengths[row]
        if rows and (len(rows) == budget.responses or (len(rows) + 1) * width > budget.tokens):
            yield rows
            rows, widest = [], 0
        rows.append(row)
        widest = max(widest, prompts[row])
    if rows:
        yield rows


def part_of(responses: Responses, rows: Rows) -> Responses:
    """Some responses, ready for a forward pass: those of a token budget without common padding."""
    part = responses.rows(rows)
    return part if isinstance(rows, slice) else part.trimmed()


def as_wide(found: Tensor, responses: Responses) -> Tensor:
    """[b, t] results of a part, with as many columns as all responses have; the new ones are 0 and behind the mask."""
    return torch.nn.functional.pad(found, (0, responses.mask.shape[1] - found.shape[1]))


def in_order(parts: list[Tensor], passes: list[Rows]) -> Tensor:
    """Results of all passes as one tensor, in the order of the responses."""
    joined = torch.cat(parts)
    by_number = [rows for rows in passes if isinstance(rows, Tensor)]
    return joined[torch.cat(by_number).argsort()] if by_number else joined
