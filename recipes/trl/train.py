"""GRPO in TRL with covent, from a YAML file: the whole of it on one page.

    python recipes/trl/train.py recipes/trl/cpu.yaml
    torchrun --nproc_per_node 8 recipes/trl/train.py recipes/trl/clip_cov_7b.yaml trl.output_dir=out

A recipe has the sections `covent` (CoventConfig) and `trl` (GRPOConfig), the model, the data, and how many responses an
optimizer step takes and how many steps a rollout; gradient accumulation follows from these and the number of ranks.
Words after the file are `key=value` with dots into sections.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig

from covent.integrations.trl import CoventConfig, CoventGRPOTrainer

DIGITS = [str(digit) for digit in range(10)]
WORDS = ["<pad>", "<eos>", *DIGITS, "+", "="]


def main(words: list[str]) -> None:
    """Train as a recipe says."""
    recipe = read(Path(words[0]), words[1:])
    model, tokenizer = made_model(**recipe["model"]) if isinstance(recipe["model"], dict) else (recipe["model"], None)
    trainer = CoventGRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward(recipe["reward"]),
        args=arguments(recipe, world=int(os.environ.get("WORLD_SIZE", "1"))),
        train_dataset=sums() if recipe["data"] == "sums" else Dataset.from_json(recipe["data"]),
        covent=CoventConfig.model_validate(recipe["covent"]),
    )
    trainer.train()


def read(path: Path, overrides: list[str]) -> dict[str, Any]:
    """The recipe with its overrides."""
    recipe: dict[str, Any] = yaml.safe_load(path.read_text())
    for override in overrides:
        name, _, value = override.partition("=")
        *sections, last = name.split(".")
        place = recipe
        for section in sections:
            place = place[section]
        place[last] = yaml.safe_load(value)
    return recipe


def arguments(recipe: dict[str, Any], *, world: int) -> GRPOConfig:
    """TRL's config, with the split of an optimizer step that gives it its number of responses."""
    at_once = recipe["trl"]["per_device_train_batch_size"] * world
    accumulation, rest = divmod(recipe["responses_per_update"], at_once)
    if rest or not accumulation:
        raise SystemExit(
            f"responses_per_update = {recipe['responses_per_update']} is no multiple of per_device_train_batch_size x"
            f" ranks = {at_once}."
        )
    return GRPOConfig(
        gradient_accumulation_steps=accumulation,
        steps_per_generation=accumulation * recipe["updates_per_rollout"],
        **recipe["trl"],
    )


def reward(name: str) -> Any:
    """A reward function of this file, or `module:function`: any callable that TRL takes."""
    module, colon, function = name.partition(":")
    return getattr(import_module(module), function) if colon else globals()[name]


def right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 where the first word is the answer."""
    return [float((text.split() or [""])[0] == expected) for text, expected in zip(completions, answer, strict=True)]


def sums() -> Dataset:
    """a + b modulo 10."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    return Dataset.from_list([{"prompt": f"{a} + {b} =", "answer": str((a + b) % 10)} for a, b in pairs])


def made_model(*, hidden_size: int, num_layers: int) -> tuple[Qwen2ForCausalLM, PreTrainedTokenizerFast]:
    """A small Qwen2 with random weights, and one token a word."""
    raw = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<pad>"))  # noqa: S106 - a special token, no password
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")  # noqa: S106 - a special token, no password
    config = Qwen2Config(
        vocab_size=len(WORDS),
        hidden_size=hidden_size,
        intermediate_size=2 * hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config), tokenizer


if __name__ == "__main__":
    main(sys.argv[1:])
