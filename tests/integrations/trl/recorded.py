"""TRL runs on recorded completions, as a program that torchrun can start on several ranks.

python -m tests.integrations.trl.recorded RUNS.json

Each entry names the file of completions (written if it is not there: the model then samples), the control and scope,
how the optimizer batch is split, and where the outcome goes: the chosen tokens of every optimizer step by identity, one
file a rank, and the final weights of rank 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from covent.integrations.trl import CoventGRPOTrainer
from covent.integrations.trl.window import MicroBatch
from tests.support.tiny_trl import network, trainer

ROWS = 32
"""Responses of one optimizer step, over all ranks and micro-batches."""


class RecordedTrainer(CoventGRPOTrainer):
    """Replays completions by their row in the generation batch of all ranks, and keeps what was chosen."""

    completions: list[list[list[int]]]
    replays: bool
    num_sampled = 0

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if not self.replays:
            found = super()._generate_single_turn(prompt_ids, *args, **kwargs)
            self.completions.append(found[0])
            return found
        first = self.accelerator.process_index * len(prompt_ids)
        self.num_sampled += 1
        return self.completions[self.num_sampled - 1][first : first + len(prompt_ids)], None

    def _covent_passed(self, micro: MicroBatch) -> None:
        update = self.state.global_step
        if micro.plan is not None:
            rows = zip(*(column[micro.plan.chosen].tolist() for column in micro.columns.identity), strict=True)
            self.chosen += [[update, *token] for token in rows]
        super()._covent_passed(micro)


def run(settings: dict[str, Any]) -> None:
    """One run."""
    folder = Path(settings["folder"])
    recorded = Path(settings["completions"])
    micro_batches = settings["accumulation"]
    world = settings["world"]
    model = network(dtype=torch.float64)
    # TRL adds up the gradient of the LM head in float32 whatever its dtype, 2e-8 off from one split to another; all
    # other weights learn in float64.
    model.lm_head.weight.requires_grad_(False)
    made = trainer(
        RecordedTrainer,
        folder / "trl",
        model=model,
        covent={"control": settings["control"], "scope": settings["scope"]},
        per_device_train_batch_size=ROWS // world // micro_batches,
        gradient_accumulation_steps=micro_batches,
        steps_per_generation=micro_batches,
        num_iterations=2,
        max_steps=settings["steps"],
        max_completion_length=8,
        learning_rate=1e-3,
        loss_type=settings.get("loss_type", "dapo"),
        **({"ddp_backend": "gloo"} if world > 1 else {}),
    )
    assert made.accelerator.num_processes == world
    assert (dist.get_world_size() if world > 1 else 1) == world
    made.replays = recorded.is_file()
    made.completions = json.loads(recorded.read_text()) if made.replays else []
    made.chosen = []
    made.train()
    rank = made.accelerator.process_index
    (folder / f"chosen-{rank}.json").write_text(json.dumps(made.chosen))
    if rank == 0:
        weights = {name: weight.detach().contiguous().clone() for name, weight in made.model.named_parameters()}
        save_file(weights, folder / "weights.safetensors")
        (folder / "log.json").write_text(json.dumps(made.state.log_history))
        if not made.replays:
            recorded.write_text(json.dumps(made.completions))


if __name__ == "__main__":
    for settings in json.loads(Path(sys.argv[1]).read_text()):
        run(settings)
