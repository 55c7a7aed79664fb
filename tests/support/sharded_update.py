"""One update of a small model whose weights FSDP2 spreads over ranks, against the same update in one process.

    python -m tests.support.sharded_update NUM_RANKS STORE RESULT

Each rank holds other responses of one optimizer batch, twenty of 32 on the first of two; it writes the tokens that each
control chose of them, and the whole gradient.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import fully_shard

from covent.controls import AnyControl, ClipCov, KLCov, plan
from covent.core.keys import key
from covent.core.ranks import ProcessGroup
from covent.tasks import problems
from covent.train.model import LanguageModel
from covent.train.step import OptimizerBatch, accumulate, learner_scores, measure
from tests.support.forked import run_ranks
from tests.support.small_model import TASK, exact_model

CONTROLS: dict[str, AnyControl] = {
    "clip_cov": ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.05),
    "kl_cov": KLCov(kl_cov_ratio=0.05),
}
ENDS = {1: (0, 32), 2: (0, 20, 32)}
NUM_MICRO = 4
"""On each rank, of five responses or of three: FSDP2 wants as many forward passes of all of them."""


def optimizer_batch() -> OptimizerBatch:
    """8 samples to 4 prompts by a policy that has moved a little since."""
    model = exact_model()
    chosen = dict(zip(range(4), problems(TASK, "train", 1), strict=False))
    responses = model.sample(chosen, num_samples=8, max_tokens=10, key=key(0, "rollout"))
    old, _ = learner_scores(model.network, responses, temperature=1.0, at_once=8)
    advantages = torch.randn(32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return OptimizerBatch(responses, advantages, old, coverage=1.0, right=advantages > 0)


def moved_model() -> LanguageModel:
    """The policy of the update."""
    model, generator = exact_model(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, dtype=weight.dtype, generator=generator))
    return model


def update(model: LanguageModel, batch: OptimizerBatch, name: str, group: ProcessGroup | None) -> dict[str, Any]:
    """What a control chooses of these responses, and the gradient of the whole batch."""
    num_ranks = 1 if group is None else dist.get_world_size(group)
    at_once = -(-len(batch) // NUM_MICRO)
    # Before any forward pass, after which FSDP2 leaves weights of the root as a whole: their gradients are others.
    model.network.zero_grad()
    measured = measure(model, batch, temperature=1.0, at_once=at_once)
    measured = replace(measured, group=group)
    made = plan(measured, CONTROLS[name], key(0, "plan", 0))
    accumulate(model, batch, measured, made, temperature=1.0, at_once=at_once)
    return {
        "chosen": [
            list(token) for token in zip(*(column[made.chosen].tolist() for column in measured.identity), strict=True)
        ],
        # FSDP2 gives the mean over ranks, and the loss of a rank is its part of a sum.
        "gradient": {
            name: (whole(weight.grad) * num_ranks).tolist() for name, weight in model.network.named_parameters()
        },
    }


def whole(gradient: Any) -> Tensor:
    """A gradient with all its shards."""
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def _rank(rank: int, num_ranks: int, store: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    everything, model = optimizer_batch(), moved_model()
    for block in model.network.model.layers:
        fully_shard(block)
    fully_shard(model.network)
    rows = slice(*ENDS[num_ranks][rank : rank + 2])
    part = OptimizerBatch(
        everything.responses.rows(rows),
        everything.advantages[rows],
        everything.old_logprobs[rows],
        everything.coverage,
        everything.right[rows],
    )
    found = {name: update(model, part, name, dist.group.WORLD) for name in CONTROLS}
    own = {name: update(model, part, name, None)["chosen"] for name in CONTROLS}
    shards = sum(weight.to_local().numel() for weight in model.network.parameters())
    total = sum(weight.numel() for weight in model.network.parameters())
    Path(f"{result}.{rank}").write_text(json.dumps({**found, "of_own_rows": own, "shard": shards / total}))
    dist.destroy_process_group()


if __name__ == "__main__":
    run_ranks(_rank, int(sys.argv[1]), sys.argv[2], sys.argv[3])
