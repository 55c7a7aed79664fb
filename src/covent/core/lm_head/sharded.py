"""The LM head split by rows over the ranks of a process group: 16 bytes a token forward, one sum of dh backward."""

from __future__ import annotations

import torch
import torch.distributed as dist

from covent.core.lm_head.sums import merged
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Tensor


def first_row(num_rows: int, device: torch.device, group: ProcessGroup) -> tuple[int, int]:
    """Number of this rank's first row, and of rows on all ranks, with the shards in order of rank."""
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(sizes, torch.tensor([num_rows], device=device), group=group)
    counts = [int(size) for size in sizes]
    return sum(counts[: dist.get_rank(group)]), sum(counts)


def merged_over_ranks(sums: Tensor, temperature: Tensor | float, group: ProcessGroup) -> Tensor:
    """The sums over the whole vocabulary, merged in order of rank: the same bits on every rank."""
    parts = [torch.empty_like(sums) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, sums.contiguous(), group=group)
    whole = parts[0]
    for part in parts[1:]:
        whole = merged(whole, part, temperature)
    return whole
