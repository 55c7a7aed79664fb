"""One optimizer step of the embedded trainer on a random model of the shape of Qwen2.5-0.5B, with and without logits.

    python benchmarks/lm_head_training.py --json benchmarks/results/lm_head_training.json

A step is what `covent train` does between two rollouts: measure the batch without gradient, plan, forward and backward,
clip, update. Each way has a process of its own; the time is CPU time on one thread, of every step after the first.
float32 weights and plain SGD: Adam would add the same 4 GB to both. Needs 12 GB and a quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_head import _status, hardware
from transformers import Qwen2Config, Qwen2ForCausalLM

from covent import __version__
from covent.controls import EntropyBonus, plan
from covent.core.keys import key
from covent.provenance import commit
from covent.rollout import batch
from covent.rollout.batch import Responses
from covent.train.model import LanguageModel
from covent.train.step import OptimizerBatch, execute, learner_scores, measure


class Size(NamedTuple):
    """Of the model and of the batch."""

    hidden_size: int = 896
    intermediate_size: int = 4864
    num_layers: int = 24
    num_heads: int = 14
    num_kv_heads: int = 2
    vocabulary: int = 151_936
    num_responses: int = 4
    prompt_tokens: int = 32
    response_tokens: int = 256


NUM_STEPS = 4
"""The first one warms up and is not reported."""
WAYS = {"logits": 10**9, "LM head": 1}
"""The smallest vocabulary that is scored without logits."""


def model_of(size: Size) -> LanguageModel:
    """Random weights, tied as in the original."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_kv_heads,
        tie_word_embeddings=True,
    )
    return LanguageModel(Qwen2ForCausalLM(config).eval(), None)


def responses_of(size: Size) -> Responses:
    """Random tokens; the second half of the responses is half as long."""
    generator = torch.Generator().manual_seed(1)
    rows, shape = torch.arange(size.num_responses), (size.num_responses, size.response_tokens)
    prompts = torch.randint(size.vocabulary, (size.num_responses, size.prompt_tokens), generator=generator)
    length = torch.where(rows < size.num_responses // 2, size.response_tokens, size.response_tokens // 2)
    return Responses(
        prompt_ids=prompts,
        prompt_mask=torch.ones_like(prompts, dtype=torch.bool),
        response_ids=torch.randint(size.vocabulary, shape, generator=generator),
        mask=torch.arange(size.response_tokens) < length[:, None],
        logprobs=torch.zeros(shape),
        entropies=torch.zeros(shape),
        truncated=rows < 0,
        group=rows // 2,
        sample=rows % 2,
    )


def step(way: str, size: Size) -> dict[str, Any]:
    """`NUM_STEPS` steps in this process."""
    torch.set_num_threads(1)
    batch.HEAD_FROM_VOCABULARY = WAYS[way]
    model, responses = model_of(size), responses_of(size)
    optimizer = torch.optim.SGD(model.network.parameters(), lr=1e-3)
    at_once = len(responses)
    old, _ = learner_scores(model.network, responses, temperature=1.0, at_once=at_once)
    advantages = torch.tensor([1.0, -1.0]).repeat(len(responses) // 2)
    given = OptimizerBatch(responses, advantages, old, 1.0, advantages > 0)
    seconds = []
    for _ in range(NUM_STEPS):
        start = time.process_time()
        measured = measure(model, given, temperature=1.0, at_once=at_once)
        made = plan(measured, EntropyBonus(entropy_coef=0.01), key(0))
        outcome = execute(model, optimizer, given, measured, made, temperature=1.0, at_once=at_once, grad_clip=1.0)
        seconds.append(round(time.process_time() - start, 2))
    return {
        "seconds": seconds[1:],
        "peak_mib": round(_status("VmHWM") / 1024),
        "loss": outcome.loss,
        "grad_norm": outcome.grad_norm,
        "entropy": float(measured.entropies[measured.mask].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "lm_head_training.json")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=len(Size._fields), default=list(Size()))
    arguments = parser.parse_args()
    size = Size(*arguments.size)
    if arguments.way:
        print(json.dumps(step(arguments.way, size)))
        return
    found = {}
    for way in WAYS:
        words = [sys.executable, __file__, "--way", way, "--size", *map(str, size)]
        found[way] = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    result = {
        "size": size._asdict(),
        "command": "benchmarks/lm_head_training.py",
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"covent": __version__, "torch": torch.__version__},
        "ways": found,
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
