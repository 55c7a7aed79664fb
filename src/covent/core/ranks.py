"""Sums, extremes and gathered rows over the ranks of an optional process group.

Without a group a value is already that of the whole batch and comes back as it is. Every rank must make the same calls
in the same order, as in any collective communication.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from covent.core.shapes import Int64, Tensor

ProcessGroup = dist.ProcessGroup


def total(value: Tensor, group: ProcessGroup | None) -> Tensor:
    """Sum of a tensor over ranks, element by element."""
    if group is None:
        return value
    value = value.clone()
    dist.all_reduce(value, op=dist.ReduceOp.SUM, group=group)
    return value


def largest(value: Tensor, group: ProcessGroup | None) -> Tensor:
    """Maximum of a tensor over ranks, element by element."""
    if group is None:
        return value
    value = value.clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=group)
    return value


def gathered(rows: Int64[Tensor, "n c"], limit: int, group: ProcessGroup) -> Int64[Tensor, "m c"]:
    """The rows of all ranks, one rank after the other.

    Args:
      rows: of this rank, at most `limit`.
      limit: the same on every rank; that many rows travel.
    """
    padded = rows.new_zeros(limit, rows.shape[1])
    padded[: len(rows)] = rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device), group=group)
    tables = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(tables, padded, group=group)
    return torch.cat([table[: int(count)] for table, count in zip(tables, counts, strict=True)])
