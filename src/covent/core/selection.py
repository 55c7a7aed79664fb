"""Choosing tokens over the whole optimizer batch: exactly so many, the same ones for every split, order and row."""

from __future__ import annotations

import torch

from covent.core.keys import TokenIdentity, token_hash
from covent.core.shapes import Bool, Float, Tensor

# Two scores closer than this, relative to the largest, are a tie. The same token measured in batches of another shape
# differs by a few units in the last place, and equal tokens of equal responses are common, so without a grid the
# choice among ties would depend on the shape of the batch. 2^-18 is some 30 float32 roundings.
_TIE_GRID = 2.0**-18


def count_of_share(share: float, num_tokens: int) -> int:
    """floor(share x num_tokens), with products that only rounding puts below a whole number counted as that number.

    Example:
      >>> int(0.29 * 100), count_of_share(0.29, 100), count_of_share(0.002, 499)
      (28, 29, 0)
    """
    return int(share * num_tokens * (1 + 1e-12))


def top_tokens(
    scores: Float[Tensor, "B T"],
    eligible: Bool[Tensor, "B T"],
    count: int,
    identity: TokenIdentity,
) -> Bool[Tensor, "B T"]:
    """The `count` eligible tokens of highest score.

    Ties (scores closer than 4e-6 of the largest) go to the lower (prompt, sample, position).

    Args:
      scores: any unit; only their order matters.
      eligible: tokens that may be chosen.
      count: how many; at most the number of eligible tokens are taken.
      identity: who each token is.
    Returns: True at the chosen tokens, exactly min(count, eligible) of them.
    """
    chosen = torch.zeros_like(eligible)
    rows = eligible.flatten().nonzero().squeeze(1)
    count = min(count, rows.numel())
    if count == 0:
        return chosen
    candidates = scores.detach().double().flatten()[rows]
    largest = float(candidates.abs().max())
    if largest > 0:
        grid = 2.0 ** float(torch.tensor(largest, dtype=torch.float64).log2().floor()) * _TIE_GRID
        candidates = (candidates / grid).round()
    order = torch.arange(rows.numel(), device=rows.device)
    # Stable sorts from the least to the most significant key.
    for values in (identity.position, identity.sample, identity.prompt):
        order = order[values.flatten()[rows][order].argsort(stable=True)]
    order = order[candidates[order].argsort(descending=True, stable=True)]
    chosen.view(-1)[rows[order[:count]]] = True
    return chosen


def random_tokens(
    eligible: Bool[Tensor, "B T"], count: int, identity: TokenIdentity, *, key: int
) -> Bool[Tensor, "B T"]:
    """`count` eligible tokens, each subset equally likely over keys.

    The tokens with the smallest hash of (key, identity) are taken, so the choice depends on nothing else.

    Args:
      eligible: tokens that may be chosen.
      count: how many; at most the number of eligible tokens are taken.
      identity: who each token is.
      key: from `covent.core.keys.key(seed, purpose, optimizer step)`.
    Returns: True at the chosen tokens, exactly min(count, eligible) of them.
    """
    chosen = torch.zeros_like(eligible)
    rows = eligible.flatten().nonzero().squeeze(1)
    hashes = token_hash(key, identity).flatten()[rows]
    chosen.view(-1)[rows[hashes.argsort(stable=True)[: min(count, rows.numel())]]] = True
    return chosen
