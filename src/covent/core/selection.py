"""Choosing tokens over the whole optimizer batch: exactly so many, the same ones for every split, order and row.

With a process group the optimizer batch lies on several ranks; counts are then over all of them, every rank makes the
same calls, and each gets the choice among its own tokens.
"""

from __future__ import annotations

import math
import sys

import torch

from covent.core import ranks
from covent.core.keys import TokenIdentity, token_hash
from covent.core.order import cut, first
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import NonFiniteError

# Scores are rounded to multiples of this part of the power of two below the largest: 1.9e-6 to 3.8e-6 of it. The same
# token measured in batches of another shape differs by a few units in the last place, and equal tokens of equal
# responses are common, so without a grid the choice among ties would depend on the shape of the batch. 2^-18 is some 30
# float32 roundings. The grid also makes the order-preserving integer key of a score: at most 20 bits, two digits of the
# radix histograms.
_TIE_GRID = 2.0**-18

# The same for values that are compared by their ratio, such as entropies, whose rounding errors shrink with them: so
# many last bits of float32 do not count. 2^6 units in the last place is a relative 4e-6 to 8e-6.
_TIE_BITS = 6


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
    *,
    group: ProcessGroup | None = None,
) -> Bool[Tensor, "B T"]:
    """The `count` eligible tokens of highest score.

    Scores are rounded to the tie grid, multiples of 2e-6 to 4e-6 of the largest; those that round to the same multiple
    tie, and the lower (prompt, sample, position) goes first.

    Args:
      scores: any unit; only their order matters.
      eligible: tokens that may be chosen.
      count: how many over all ranks; at most the number of eligible tokens are taken.
      identity: who each token is.
      group: the ranks that hold the rest of the batch; None when it is all here.
    Returns: True at the chosen tokens, exactly min(count, eligible) of them over all ranks.
    Raises:
      NonFiniteError: a score that is not finite cannot be ranked.
      ShapeError: two tokens of one identity tie for the last place.
    """
    rows = eligible.flatten().nonzero().squeeze(1)
    scores = scores.detach().double().flatten()[rows]
    keys = -(scores / _tie_grid(scores, group)).round().long()
    return _placed(eligible, rows, first([keys, *_identity_of(identity, rows)], count, group=group))


def tokens_in_band(
    scores: Float[Tensor, "B T"],
    eligible: Bool[Tensor, "B T"],
    low: float,
    high: float,
    *,
    group: ProcessGroup | None = None,
) -> Bool[Tensor, "B T"]:
    """The eligible tokens whose score lies in [low, high]; both ends belong to it.

    Scores and ends are compared on the tie grid, so a score within half a multiple of an end may count as on it, and
    rounding cannot put a score that is equal to an end on this or the other side.

    Args:
      scores, eligible, group: as for `top_tokens`. The grid is that of the eligible tokens of all ranks.
      low, high: unit of the scores.
    Raises: NonFiniteError for an eligible score that is not finite.
    """
    rows = eligible.flatten().nonzero().squeeze(1)
    scores = scores.detach().double().flatten()[rows]
    grid = _tie_grid(scores, group)
    multiples, ends = (scores / grid).round(), (scores.new_tensor([low, high]) / grid).round()
    return _placed(eligible, rows, (multiples >= ends[0]) & (multiples <= ends[1]))


def top_tokens_with_ties(
    scores: Float[Tensor, "B T"],
    eligible: Bool[Tensor, "B T"],
    count: int,
    *,
    group: ProcessGroup | None = None,
) -> Bool[Tensor, "B T"]:
    """The eligible tokens whose score is at least the `count`-th highest: `count` of them, or more where scores tie.

    Ties are scores that agree to about 6e-6 of themselves: the rule for quantities whose smallest values are as
    precise as their largest, such as entropies.

    Args, Raises: as `top_tokens`; nothing needs to tell tied tokens apart.
    """
    rows = eligible.flatten().nonzero().squeeze(1)
    found = cut([-_ratio_keys(scores.detach().flatten()[rows])], count, group=group)
    return _placed(eligible, rows, found.before | found.tied)


def random_tokens(
    eligible: Bool[Tensor, "B T"],
    count: int,
    identity: TokenIdentity,
    *,
    key: int,
    group: ProcessGroup | None = None,
) -> Bool[Tensor, "B T"]:
    """`count` eligible tokens, each subset equally likely over keys.

    The tokens with the smallest hash of (key, identity) are taken, so the choice depends on nothing else.

    Args:
      eligible: tokens that may be chosen.
      count: how many over all ranks; at most the number of eligible tokens are taken.
      identity: who each token is.
      key: from `covent.core.keys.key(seed, purpose, optimizer step)`.
      group: the ranks that hold the rest of the batch; None when it is all here.
    Returns: True at the chosen tokens, exactly min(count, eligible) of them over all ranks.
    Raises: ShapeError when two tokens of one identity tie for the last place.
    """
    rows = eligible.flatten().nonzero().squeeze(1)
    hashes = token_hash(key, identity).flatten()[rows]
    return _placed(eligible, rows, first([hashes, *_identity_of(identity, rows)], count, group=group))


def _identity_of(identity: TokenIdentity, rows: Tensor) -> list[Tensor]:
    return [column.flatten()[rows] for column in identity]


def _placed(eligible: Tensor, rows: Tensor, taken: Tensor) -> Tensor:
    chosen = torch.zeros_like(eligible)
    chosen.view(-1)[rows[taken]] = True
    return chosen


def _tie_grid(scores: Tensor, group: ProcessGroup | None) -> float:
    """Width of the tie grid, in the unit of the scores."""
    _check_finite(scores)
    own = scores.abs().max() if scores.numel() else scores.new_zeros(())
    largest = float(ranks.largest(own, group))
    # A largest score of exactly 1 or 2, as rewards of 0 and 1 often give, may come out a little lower in another order
    # of summation; the grid must not halve with it.
    power = 2.0 ** math.floor(math.log2(largest) + 1e-6) if largest else 0.0
    return max(power * _TIE_GRID, sys.float_info.min)


def _ratio_keys(scores: Tensor) -> Tensor:
    """Integers in the order of the float32 scores, without their last bits."""
    _check_finite(scores)
    bits = scores.float().view(torch.int32).long()
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered + (1 << (_TIE_BITS - 1))) >> _TIE_BITS


def _check_finite(scores: Tensor) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise NonFiniteError(
            f"{int((~torch.isfinite(scores)).sum())} of {scores.numel()} scores are not finite, so the tokens cannot be"
            " ranked. Look for NaN or infinity in the log-probs, entropies or advantages of this optimizer batch."
        )
