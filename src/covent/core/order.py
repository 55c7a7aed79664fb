"""The first k elements in a lexicographic order of integer columns, exactly, over any split of them into ranks.

Two routes to the same answer. Radix histograms: the bin that holds the k-th element is found digit by digit from counts
that add up over ranks, so the traffic is some kilobytes whatever the number of elements. Gathering: each rank sends its
own first k; one exchange instead of one per digit, the better way for small k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from covent.core import ranks
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Bool, Int64, Tensor
from covent.errors import ShapeError

_DIGIT_BITS = 11
"""2048 bins: 16 KB a rank and digit, and a 32-bit key takes three digits of 11, 11 and 10 bits."""

_GATHER_LIMIT = 512
"""Up to so many elements, gathering four columns of them is no more traffic than the histograms of one digit."""


class Cut(NamedTuple):
    """Where the first k elements end."""

    before: Tensor
    """Bool [N]: strictly before the last of the first k, or one of a tie that fits as a whole."""
    tied: Tensor
    """Bool [N]: equal to the last in every column, where the tie does not fit."""
    room: int
    """How many of the tied, over all ranks, still belong to the first k."""


def first(
    columns: Sequence[Int64[Tensor, " N"]], count: int, *, group: ProcessGroup | None = None
) -> Bool[Tensor, " N"]:
    """The first `count` elements over all ranks, in ascending lexicographic order of the columns.

    Args:
      columns: most significant first; together they tell any two elements apart.
      count: over all ranks, the same on each; fewer elements are taken as a whole.
      group: the ranks that hold the other elements; None for a whole batch.
    Returns: True at those of this rank's elements that are among the first.
    Raises: ShapeError when equal elements straddle the cut, so that the columns leave the choice open.
    """
    if group is not None and count <= _GATHER_LIMIT:
        return first_by_gathering(columns, count, group=group)
    return first_by_histograms(columns, count, group=group)


def first_by_histograms(
    columns: Sequence[Int64[Tensor, " N"]], count: int, *, group: ProcessGroup | None = None
) -> Bool[Tensor, " N"]:
    """`first` by radix histograms."""
    found = cut(columns, count, group=group)
    if found.room:
        raise _indistinct()
    return found.before


def first_by_gathering(
    columns: Sequence[Int64[Tensor, " N"]], count: int, *, group: ProcessGroup
) -> Bool[Tensor, " N"]:
    """`first` by gathering each rank's own first `count` elements.

    Source: the k-floats protocol of exact distributed top-k; the whole key travels, so ties need no second exchange.
    """
    own = first_by_histograms(columns, count)
    table = ranks.gathered(torch.stack([column[own] for column in columns], dim=1), count, group)
    if len(table) <= count:
        return own
    order = torch.arange(len(table), device=table.device)
    # Stable sorts from the least to the most significant column.
    for column in reversed(table.unbind(dim=1)):
        order = order[column[order].argsort(stable=True)]
    last, following = table[order[count - 1]], table[order[count]]
    if bool((last == following).all()):
        raise _indistinct()
    return own & _is_before(columns, following)


def cut(columns: Sequence[Int64[Tensor, " N"]], count: int, *, group: ProcessGroup | None = None) -> Cut:
    """Where the first `count` elements over all ranks end, by radix histograms.

    Each digit of each column, from the most significant: count the elements by digit, over all ranks; the bin in which
    the running count reaches what is wanted holds the end; elements in earlier bins are in, in later bins out, and the
    next digit looks at that bin alone.
    """
    before = torch.zeros_like(columns[0], dtype=torch.bool)
    none = torch.zeros_like(before)
    if count <= 0:
        return Cut(before, none, 0)
    if int(ranks.total(torch.tensor(len(before), device=before.device), group)) <= count:
        return Cut(~before, none, 0)
    rest = torch.arange(len(before), device=before.device)
    room = count
    for digits, bits in _digits(columns, group):
        values = digits[rest]
        counts = ranks.total(torch.bincount(values, minlength=1 << bits), group).cpu()
        reached = counts.cumsum(0)
        place = int(torch.searchsorted(reached, room))
        before[rest[values < place]] = True
        rest = rest[values == place]
        inside = int(counts[place])
        room -= int(reached[place]) - inside
        if room == inside:
            before[rest] = True
            return Cut(before, none, 0)
    none[rest] = True
    return Cut(before, none, room)


def _digits(columns: Sequence[Tensor], group: ProcessGroup | None) -> Iterator[tuple[Tensor, int]]:
    """(digit of every element, its number of bits), only as many digits as the range of the values needs."""
    # ~x is -x - 1, so that the negative of the smallest integer does not overflow.
    ends = torch.stack([_highest(torch.stack([column, ~column])) for column in columns])
    for column, (high, inverted_low) in zip(columns, ranks.largest(ends, group).tolist(), strict=True):
        low = ~inverted_low
        # Wraps like an unsigned integer; each digit below masks the sign's copies away.
        offset = column - low
        width = (high - low).bit_length()
        while width > 0:
            bits = min(width, _DIGIT_BITS)
            width -= bits
            yield (offset >> width) & ((1 << bits) - 1), bits


def _highest(pair: Tensor) -> Tensor:
    """Maximum of each row; the smallest integer where a rank has no element."""
    if pair.shape[1] == 0:
        return pair.new_full((len(pair),), torch.iinfo(torch.int64).min)
    return pair.max(dim=1).values


def _is_before(columns: Sequence[Tensor], limit: Tensor) -> Tensor:
    """Lexicographically before one row."""
    before = torch.zeros_like(columns[0], dtype=torch.bool)
    for column, value in zip(reversed(columns), reversed(limit.tolist()), strict=True):
        before = (column < value) | ((column == value) & before)
    return before


def _indistinct() -> ShapeError:
    return ShapeError(
        "Two tokens with the same (prompt, sample, position) tie for the last place, so the choice between them would"
        " depend on their rows. Give every token of the optimizer batch its own identity."
    )
