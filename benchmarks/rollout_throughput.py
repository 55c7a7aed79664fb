"""The sampler against `model.generate` of transformers, side by side in one process: tokens a CPU second.

Random weights, and no end token, so that every variant decodes the same number of tokens from the same prompts. covent
returns the log-prob and the exact entropy of every token too; `generate` returns tokens, and its third variant computes
the same two from the logits that it can keep. In each round all variants run, in another order. CPU time of one thread:
on a shared machine it grows with what runs beside it and never shrinks, so the least of all rounds is the best measure,
and it stands beside the median.

    python -m benchmarks.rollout_throughput --rounds 7
    python -m benchmarks.rollout_throughput --table
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from benchmarks.law_tables import write_table
from covent.provenance import commit
from covent.rollout.batch import pad_left, token_scores
from covent.rollout.sampler import sample
from covent.tasks import ClockSettings, ClockTask, problems
from covent.train.config import ModelSettings
from covent.train.model import load_model

RESULT = Path(__file__).parent / "results" / "rollout_throughput.json"
PAGE = Path(__file__).parents[1] / "docs" / "trainer.md"
SAMPLES = 8
MODELS = {
    "the default model (width 64, 2 layers, 19 words)": {"prompts": 32, "tokens": 24},
    "width 256, 4 layers, vocabulary 32,768": {
        "prompts": 8,
        "tokens": 8,
        "hidden": 256,
        "layers": 4,
        "vocabulary": 32_768,
    },
}
OURS, BARE, SAME = "covent", "generate", "generate, with log-probs and entropies"


def network(settings: dict[str, Any]) -> tuple[Any, list[list[int]]]:
    """A model with random weights, and the prompts of the default task in its ids."""
    task = ClockTask(ClockSettings(), 0)
    small = load_model(ModelSettings(), task, seed=0, dtype=torch.float32, device="cpu")
    prompts = [small.encode_problem(problem) for problem in islice(problems(task, "train", 0), settings["prompts"])]
    if "hidden" not in settings:
        return small.network, prompts
    config = Qwen2Config(
        vocab_size=settings["vocabulary"],
        hidden_size=settings["hidden"],
        intermediate_size=4 * settings["hidden"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config).eval(), prompts


def variants(model: Any, prompts: list[list[int]], tokens: int) -> dict[str, Callable[[], int]]:
    """What is timed, by name; each returns the tokens that it sampled."""
    ids, mask = pad_left(prompts, 0)
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": tokens,
        "num_return_sequences": SAMPLES,
        "pad_token_id": 0,
        "eos_token_id": None,
    }

    def ours() -> int:
        groups = list(range(len(prompts)))
        found = sample(
            model, prompts, groups=groups, num_samples=SAMPLES, max_tokens=tokens, end_id=-1, pad_id=0, key=1
        )
        return int(found.mask.sum())

    @torch.no_grad()
    def bare() -> int:
        found = model.generate(ids, attention_mask=mask.long(), **settings)
        return found[:, ids.shape[1] :].numel()

    @torch.no_grad()
    def same() -> int:
        found = model.generate(
            ids,
            attention_mask=mask.long(),
            **settings,
            output_logits=True,
            return_dict_in_generate=True,
        )
        sampled = found.sequences[:, ids.shape[1] :]
        for place, logits in enumerate(found.logits):
            token_scores(logits, sampled[:, place], 1.0)
        return sampled.numel()

    return {OURS: ours, BARE: bare, SAME: same}


def measured(rounds: int) -> dict[str, Any]:
    """CPU seconds of each variant in each round."""
    found: dict[str, Any] = {
        "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread",
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "commit": commit(),
        "settings": {"models": MODELS, "samples": SAMPLES, "rounds": rounds},
        "models": {},
    }
    for name, settings in MODELS.items():
        model, prompts = network(settings)
        calls = variants(model, prompts, settings["tokens"])
        seconds: dict[str, list[float]] = {each: [] for each in calls}
        counts = {each: call() for each, call in calls.items()}
        assert len(set(counts.values())) == 1, counts
        for number in range(rounds):
            order = list(calls)[number % len(calls) :] + list(calls)[: number % len(calls)]
            for each in order:
                start = time.process_time()
                calls[each]()
                seconds[each].append(time.process_time() - start)
        found["models"][name] = {"tokens": counts[OURS], "cpu_seconds": seconds}
    return found


def table(found: dict[str, Any]) -> str:
    """Tokens a CPU second, by the least of all rounds and by their median."""
    lines = ["| model | responses | sampler | tokens/s | median | of `generate` |", "|---|---:|---|---:|---:|---:|"]
    settings = found["settings"]
    for name, each in found["models"].items():
        best = {variant: each["tokens"] / min(seconds) for variant, seconds in each["cpu_seconds"].items()}
        for variant, seconds in each["cpu_seconds"].items():
            rate = each["tokens"] / median(seconds)
            share = best[variant] / best[BARE]
            responses = settings["models"][name]["prompts"] * settings["samples"]
            lines.append(f"| {name} | {responses} | {variant} | {best[variant]:,.0f} | {rate:,.0f} | {share:.2f} |")
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    lines += ["", f"float32, {settings['rounds']} rounds, {found['hardware']}; {versions}."]
    return "\n".join(lines)


def main() -> None:
    """Measure, keep the result, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        torch.set_num_threads(1)
        RESULT.write_text(json.dumps(measured(arguments.rounds), indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    print(table(found))
    write_table(PAGE, "throughput", table(found))


if __name__ == "__main__":
    main()
