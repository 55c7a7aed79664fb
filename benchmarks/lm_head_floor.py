"""The floor that times of the LM head are divided by: its three matrix products alone.

    python benchmarks/lm_head_floor.py --case bf16

lm_head.py times the same products in turn with everything else, so that both see the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from lm_head_cases import CASES, Inputs
from torch import Tensor

from covent.core.lm_head.tiles import tile_size


def floor(hidden: Tensor, weight: Tensor) -> Callable[[], None]:
    """The three products alone, by covent's own tiles into buffers that are there: 6 N d V operations."""
    hidden, weight = hidden.detach(), weight.detach()
    rows, columns = map(min, tile_size(hidden.device, hidden.dtype, None, None), (len(hidden), len(weight)))
    tile, of_hidden = torch.empty(rows * columns, dtype=hidden.dtype), torch.empty_like(hidden[:rows])
    of_weight = torch.empty_like(weight)

    def products() -> None:
        for h in hidden.split(rows):
            for first in range(0, len(weight), columns):
                w = weight[first : first + columns]
                z = tile[: len(h) * len(w)].view(len(h), len(w))
                torch.mm(h, w.T, out=z)
                torch.mm(z, w, out=of_hidden[: len(h)])
                torch.mm(z.T, h, out=of_weight[first : first + columns])

    return products


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=[name for name, case in CASES.items() if not case.sweep], default="bf16")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case, seconds = CASES[arguments.case], []
    inputs = Inputs.of(case)
    products = floor(inputs.hidden, inputs.weight)
    for _ in range(arguments.repeats):
        start = time.process_time()
        products()
        seconds.append(time.process_time() - start)
    median = statistics.median(seconds)
    rate = 6 * case.num_tokens * case.width * case.vocabulary / median / 1e9
    print(f"{median:.4f} s, {rate:,.0f} GFLOP/s; from {min(seconds):.4f} to {max(seconds):.4f} s")


if __name__ == "__main__":
    main()
