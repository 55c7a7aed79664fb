"""The LM head's rows on a few gloo ranks.

Run as a program it is those ranks: `python -m tests.support.head_ranks NUM_RANKS FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from covent.core.lm_head import (
    HeadReadings,
    logprob_and_entropy_from_hidden,
    sharded,
    token_readings_from_hidden,
)
from tests.support.forked import run_ranks

NUM, VOCABULARY = 9, 23
SHARDS = {2: [0, 11, 23], 3: [0, 1, 20, 23]}
SETTINGS = {"softcap": 6.0, "workspace_bytes": 5 * VOCABULARY * 8, "token_chunk": 4, "vocab_chunk": 6}


def given_head() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, weight, bias and tokens of all ranks together."""
    generator = torch.Generator().manual_seed(60)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((NUM, 5), (VOCABULARY, 5), (VOCABULARY,))
    )
    return hidden, weight, bias, torch.randint(0, VOCABULARY, (NUM,), generator=generator)


def parts(first: int, last: int, group: dist.ProcessGroup | None) -> tuple[HeadReadings, list[Tensor]]:
    """Readings, and gradients of these rows of the LM head and of all hidden states."""
    hidden, weight, bias, tokens = given_head()
    leaves = [t.clone().requires_grad_() for t in (hidden, weight[first:last], bias[first:last])]
    mask, each = torch.arange(NUM) != 4, torch.linspace(0.5, 2.0, NUM, dtype=torch.float64)
    found = token_readings_from_hidden(
        leaves[0], leaves[1], tokens, bias=leaves[2], mask=mask, temperature=each, group=group, **SETTINGS
    )
    upstream = torch.arange(NUM, dtype=torch.float64) - 2
    ((upstream.clamp(min=0) * found.logprob).sum() + (upstream.clamp(min=1) - 1).dot(found.entropy)).backward()
    return found, [leaf.grad for leaf in leaves]


def _rank(rank: int, num_ranks: int, folder: Path) -> None:
    """Writes what one rank sees, and the bytes that it sent forward in each call."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num_ranks)
    sent, gather = [], dist.all_gather

    def counted(into: list[Tensor], tensor: Tensor, **settings: object) -> None:
        sent.append(tensor.nbytes)
        gather(into, tensor, **settings)

    sharded.dist.all_gather = counted
    first, last = SHARDS[num_ranks][rank : rank + 2]
    readings, gradients = parts(first, last, dist.group.WORLD)
    hidden, weight, _, tokens = given_head()
    logprob_and_entropy_from_hidden(hidden.float(), weight[first:last].float(), tokens, group=dist.group.WORLD)
    named = {name: value.detach().contiguous() for name, value in readings._asdict().items()}
    named |= dict(zip(("hidden", "weight", "bias"), gradients, strict=True))
    save_file({**named, "sent": torch.tensor(sent)}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    run_ranks(_rank, int(sys.argv[1]), Path(sys.argv[2]))
