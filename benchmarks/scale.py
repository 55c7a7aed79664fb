"""What the exact choice over a whole optimizer batch costs on many ranks: CPU time and traffic, measured and projected.

    python -m benchmarks.scale                     # 1, 2, 4, 8 gloo processes, up to 10^7 tokens; some minutes
    python -m benchmarks.scale --table             # writes docs/scale.md again

Each rank holds its part of one made-up batch and makes the plan of KL-Cov and of Clip-Cov with the paper's shares, as a
trainer does before an optimizer step. A checksum over the chosen tokens must be the same for every number of ranks.
Results: benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.law_tables import with_table
from covent import controls
from covent.controls import AnyControl, ClipCov, KLCov
from covent.core.keys import TokenIdentity, key, token_hash, token_uniform
from covent.core.plan import Measured

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "scale.json"
PAGE = ROOT / "docs" / "scale.md"
LENGTH = 1000
"""Tokens a response; 8 responses a prompt."""
WORLDS = (1, 2, 4, 8)
TOKENS = (10**5, 10**6, 10**7)
ROUNDS = 3
CONTROLS: dict[str, AnyControl] = {"kl_cov": KLCov(kl_cov_ratio=0.002), "clip_cov": ClipCov(clip_cov_ratio=0.0002)}
"""The paper's shares for the 7B model."""

RANKS, ALL_TOKENS = 1024, 10**9
"""Of the projection."""
LATENCY_S, BANDWIDTH = 20e-6, 25e9
"""Of one message between machines, and bytes a second of one link (200 Gbit/s): assumed, not measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument("--json", type=Path, default=RESULT)
    asked = parser.parse_args()
    if not asked.table:
        rows = [row for tokens in TOKENS for world in WORLDS for row in measured(world, tokens)]
        found = {"hardware": platform.machine(), "torch": torch.__version__, "rounds": ROUNDS, "rows": rows}
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(asked.json.read_text(encoding="utf-8"))
    text = PAGE.read_text(encoding="utf-8")
    for name, table in {"measured": measured_table(found), "projected": projected_table(found)}.items():
        text = with_table(text, name, table)
    PAGE.write_text(text, encoding="utf-8")


def measured(world: int, tokens: int) -> list[dict[str, Any]]:
    """One row a control: medians over rounds, of the slowest rank."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world, tokens, folder), nprocs=world)
        parts = [json.loads(Path(folder, str(rank)).read_text(encoding="utf-8")) for rank in range(world)]
    rows = []
    for name in CONTROLS:
        of_ranks = [part[name] for part in parts]
        rows.append(
            {
                "control": name,
                "ranks": world,
                "tokens": tokens,
                "cpu_s": max(median(each["cpu_s"]) for each in of_ranks),
                "calls": of_ranks[0]["calls"],
                "bytes_sent": of_ranks[0]["bytes_sent"],
                "bytes_received": of_ranks[0]["bytes_received"],
                "num_selected": sum(each["num_selected"] for each in of_ranks),
                "checksum": sum(each["checksum"] for each in of_ranks) % 2**32,
            }
        )
    return rows


def _rank(rank: int, world: int, tokens: int, folder: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    batch = part_of_batch(rank, world, tokens)
    found = {}
    for name, control in CONTROLS.items():
        seconds = []
        for _ in range(ROUNDS):
            start = time.process_time()
            with _counted() as traffic:
                plan = controls.plan(batch, (control,), key(0, "plan", 0))
            seconds.append(time.process_time() - start)
        chosen = token_hash(1, batch.identity)[plan.chosen]
        found[name] = {
            "cpu_s": seconds,
            **traffic,
            "num_selected": int(plan.chosen.sum()),
            "checksum": int((chosen & 0xFFFFFFFF).sum()) % 2**32,
        }
    Path(folder, str(rank)).write_text(json.dumps(found), encoding="utf-8")
    if world > 1:
        dist.destroy_process_group()


def part_of_batch(rank: int, world: int, tokens: int) -> Measured:
    """A rank's rows of a batch that does not depend on the number of ranks: every number is a hash of its token."""
    number = torch.arange(rank, tokens // LENGTH, world)
    shape = (len(number), LENGTH)
    identity = TokenIdentity(
        (number // 8)[:, None].expand(shape),
        (number % 8)[:, None].expand(shape),
        torch.arange(LENGTH).expand(shape),
    )
    # Log-probs of which most are near 0 and few far below; a reward for 4 responses of 10.
    logprobs = token_uniform(2, identity).pow(6).neg().mul(12).float()
    right = (token_uniform(3, TokenIdentity(*(column[:, :1] for column in identity))) < 0.4).float()
    return Measured(
        logprobs=logprobs,
        old_logprobs=logprobs + 0.01,
        entropies=-logprobs,
        advantages=((right - 0.4) / 0.24**0.5).expand(shape).contiguous(),
        mask=torch.ones(shape, dtype=torch.bool),
        identity=identity,
        group=dist.group.WORLD if dist.is_initialized() else None,
    )


@contextmanager
def _counted() -> Iterator[dict[str, int]]:
    """Collective calls of this rank, the bytes that it gives to them, and those that it gets."""
    traffic = {"calls": 0, "bytes_sent": 0, "bytes_received": 0}
    reduce, gather = dist.all_reduce, dist.all_gather

    def count(sent: Tensor, received: int) -> None:
        size = sent.numel() * sent.element_size()
        traffic["calls"] += 1
        traffic["bytes_sent"] += size
        traffic["bytes_received"] += size * received

    def all_reduce(tensor: Tensor, *args: Any, **settings: Any) -> Any:
        count(tensor, 1)
        return reduce(tensor, *args, **settings)

    def all_gather(tensors: list[Tensor], tensor: Tensor, *args: Any, **settings: Any) -> Any:
        count(tensor, len(tensors))
        return gather(tensors, tensor, *args, **settings)

    dist.all_reduce, dist.all_gather = all_reduce, all_gather
    try:
        yield traffic
    finally:
        dist.all_reduce, dist.all_gather = reduce, gather


def measured_table(found: dict[str, Any]) -> str:
    """A row for each control, number of tokens and number of ranks."""
    lines = [
        "| control | tokens | ranks | chosen | CPU s a rank | ns a token | calls | KB it gives | KB it gets |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(found["rows"], key=lambda row: (row["control"], row["tokens"], row["ranks"])):
        per_token = row["cpu_s"] / (row["tokens"] / row["ranks"]) * 1e9
        lines.append(
            f"| {row['control']} | {row['tokens']:,} | {row['ranks']} | {row['num_selected']:,} | {row['cpu_s']:.3f} |"
            f" {per_token:.0f} | {row['calls']} | {row['bytes_sent'] / 1024:.1f} | {row['bytes_received'] / 1024:.1f} |"
        )
    return "\n".join(lines)


def projected_table(found: dict[str, Any]) -> str:
    """The largest measured batch on one rank, and what it would be on many ranks."""
    lines = [
        "| control | CPU s a rank | calls | KB a rank gives | time of the messages, s |",
        "|---|---|---|---|---|",
    ]
    for name in CONTROLS:
        of = [row for row in found["rows"] if row["control"] == name]
        # The traffic of most tokens and ranks; the time of as many tokens as a rank would have, one rank alone.
        traffic = max(of, key=lambda row: (row["tokens"], row["ranks"]))
        alone = next(row for row in of if row["ranks"] == 1 and row["tokens"] == 10**6)
        cpu = alone["cpu_s"] * (ALL_TOKENS / RANKS) / alone["tokens"]
        messages = messages_s(traffic["calls"], traffic["bytes_sent"])
        lines.append(
            f"| {name} | {cpu:.2f} | {traffic['calls']} | {traffic['bytes_sent'] / 1024:.1f} | {messages:.4f} |"
        )
    return "\n".join(lines)


def messages_s(calls: int, size: int) -> float:
    """Tree all-reduce: 2 log2(ranks) messages one after the other a call, each with the whole of what a rank gives."""
    depth = 2 * (RANKS - 1).bit_length()
    return depth * (calls * LATENCY_S + size / BANDWIDTH)


if __name__ == "__main__":
    main()
