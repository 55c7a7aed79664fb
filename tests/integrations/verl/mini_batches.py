"""verl's own engine on recorded mini-batches, on as many ranks as it is started with.

    torchrun --nproc_per_node 2 -m tests.integrations.verl.mini_batches runs.json

Every rank takes its rows of each mini-batch. What is left behind: who was chosen in each optimizer step, and the final
weights.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import verl.trainer.ppo.v1  # noqa: F401 - imported for what it does
from safetensors.torch import save_file
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.trainer.config import CheckpointConfig
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, HFModelConfig, TrainingWorkerConfig
from verl.workers.config.optimizer import FSDPOptimizerConfig
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import response_from_nested

from covent.integrations.verl import CoventPolicyLossConfig
from covent.integrations.verl.batch import PROMPT, SAMPLE
from covent.integrations.verl.worker import CoventTrainingWorker
from recipes.verl.sums import WORDS

RESPONSES, GROUP, LENGTH, STEPS = 16, 4, 12, 4


def random_responses(seed: int, number: int, length: int, *, ragged: bool = True) -> dict[str, list[torch.Tensor]]:
    """Prompts and responses with advantages, the same however many ranks take them, and noise for old log-probs.

    Args:
      seed: of all of it.
      number: of responses.
      length: of the longest.
      ragged: from 2 tokens on; else all are as long.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, list[Any]] = {name: [] for name in ("prompts", "responses", "advantages", "noise")}
    for _ in range(number):
        lengths = torch.randint(2, length + 1, (2,), generator=generator).tolist() if ragged else (length, length)
        found["prompts"].append(torch.randint(3, len(WORDS), (lengths[0],), generator=generator))
        found["responses"].append(torch.randint(3, len(WORDS), (lengths[1],), generator=generator))
        advantage = torch.randn(1, generator=generator)
        found["advantages"].append(advantage.expand(lengths[1]).contiguous())
        found["noise"].append(0.3 * torch.randn(lengths[1], generator=generator))
    return found


def tensors(made: dict[str, list[torch.Tensor]], rows: list[int], *, step: int) -> TensorDict:
    """Some of a mini-batch's responses as verl's driver hands them to a worker."""
    prompts, responses = ([made[name][row] for row in rows] for name in ("prompts", "responses"))
    whole = [torch.cat(pair) for pair in zip(prompts, responses, strict=True)]
    number = len(made["responses"])
    columns = {
        "input_ids": ragged(whole),
        "position_ids": ragged([torch.arange(len(each)) for each in whole]),
        "prompts": ragged(prompts),
        "responses": ragged(responses),
        "response_mask": ragged([torch.ones_like(each) for each in responses]),
        "loss_mask": ragged([torch.ones_like(each) for each in responses]),
        "advantages": ragged([made["advantages"][row] for row in rows]),
        PROMPT: torch.tensor([(step * number + row) // GROUP for row in rows]),
        SAMPLE: torch.tensor([row % GROUP for row in rows]),
    }
    found = TensorDict(columns, batch_size=len(rows))
    tu.assign_non_tensor(found, temperature=1.0, global_batch_size=number, calculate_entropy=False, compute_loss=True)
    return found


def ragged(rows: list[torch.Tensor]) -> torch.Tensor:
    """Rows of different lengths as verl has them."""
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def worker(model: str, micro: int, kind: type = CoventTrainingWorker, **loss: Any) -> Any:
    """covent's worker around verl's FSDP2 engine, or verl's own."""
    engine = FSDPEngineConfig(
        strategy="fsdp2",
        micro_batch_size_per_gpu=micro,
        infer_micro_batch_size_per_gpu=micro,
        use_dynamic_bsz=False,
        use_torch_compile=False,
        mixed_precision={"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
    )
    made = kind(
        TrainingWorkerConfig(
            model_type="language_model",
            model_config=HFModelConfig(
                path=model,
                use_remove_padding=False,
                enable_gradient_checkpointing=False,
                override_config={"attn_implementation": "eager"},
            ),
            engine_config=engine,
            # Adam divides by root v + eps; at its own 1e-8 the rounding of a gradient near 0 would be a whole step.
            optimizer_config=FSDPOptimizerConfig(
                lr=1e-3, total_training_steps=100, weight_decay=0.0, override_optimizer_config={"eps": 1e-3}
            ),
            checkpoint_config=CheckpointConfig(),
        )
    )
    made.reset()
    actor = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=GROUP,
        ppo_micro_batch_size_per_gpu=micro,
        fsdp_config=engine,
        policy_loss=CoventPolicyLossConfig(**loss),
    )
    made.set_loss_fn(partial(ppo_loss, config=actor))
    return made


def run(given: dict[str, Any]) -> None:
    """One run."""
    rank, world = dist.get_rank() if dist.is_initialized() else int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    assert world == given["world"]
    made = worker(given["model"], given["micro"], **given["loss"])
    rows = list(range(rank * RESPONSES // world, (rank + 1) * RESPONSES // world))
    # The old log-probs are those of the first weights, a little off, and the policy moves away from them.
    batches = [random_responses(step, RESPONSES, LENGTH) for step in range(STEPS)]
    olds = [scored(made, tensors(batches[step], rows, step=step)) for step in range(STEPS)]
    chosen: list[tuple[int, ...]] = []
    selections = []
    read = type(made)._read

    def note(self: CoventTrainingWorker, window: Any, *rest: Any) -> None:
        for micro in window.passed:
            if micro.plan is not None:
                part = window.part(micro.rows, micro.plan.chosen.shape[1])
                names = torch.stack([column[micro.plan.chosen] for column in part.identity], dim=1)
                chosen.extend((window.update, *name) for name in names.tolist())
        selections.append(window.num_selections)
        read(self, window, *rest)

    passes = [0] * STEPS
    scores = made._scores

    def count(data: TensorDict) -> Any:
        passes[step] += 1
        return scores(data)

    made._read, made._scores = note.__get__(made), count
    for step in range(STEPS):
        data = tensors(batches[step], rows, step=step)
        if given["on_policy"]:
            data = with_old(data, *scored(made, data.copy()))
        else:
            data = with_old(data, *olds[step], noise=[batches[step]["noise"][row] for row in rows])
        made.just_scored = made.just_scored and given["on_policy"] == "known"
        with made.engine.train_mode():
            made.train_batch(data)
    folder = Path(given["folder"])
    (folder / f"chosen-{rank}.json").write_text(json.dumps(chosen))
    (folder / f"selections-{rank}.json").write_text(json.dumps(selections))
    (folder / f"passes-{rank}.json").write_text(json.dumps(passes))
    weights = {name: whole(weight) for name, weight in made.engine.module.named_parameters()}
    if rank == 0:
        save_file(weights, folder / "weights.safetensors")
        readings = [update.reading.metrics() | {"grad_norm": update.grad_norm} for update in made.updates]
        (folder / "log.json").write_text(json.dumps(readings))


def scored(made: Any, data: TensorDict) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Log-probs and entropies of the responses under the weights as they are, by verl's engine as verl asks it."""
    tu.assign_non_tensor(data, compute_loss=False, calculate_entropy=True)
    output = made.infer_batch(data)
    found = [response_from_nested(output[name], data["response_mask"]) for name in ("log_probs", "entropy")]
    return list(found[0].unbind()), list(found[1].unbind())


def with_old(
    data: TensorDict,
    logprobs: list[torch.Tensor],
    entropies: list[torch.Tensor],
    noise: list[torch.Tensor] | None = None,
) -> TensorDict:
    """The mini-batch with what verl scored, the log-probs a little off where there is noise."""
    off = logprobs if noise is None else [each + more for each, more in zip(logprobs, noise, strict=True)]
    data["old_log_probs"], data["entropy"] = ragged(off), ragged(entropies)
    return data


def whole(weight: torch.Tensor) -> torch.Tensor:
    """Of a shard on each rank."""
    return (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach().clone()


if __name__ == "__main__":
    torch.set_num_threads(1)
    for given in json.loads(Path(sys.argv[1]).read_text()):
        run(given)
    dist.destroy_process_group()
