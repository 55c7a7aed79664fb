"""The task of recipes/verl/cpu.yaml: sums of two digits, a model with random weights, and a reward.

    python recipes/verl/sums.py sums

writes the model and the prompts to the folder `sums`, as verl reads them; verl finds the reward, `compute_score`, here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DIGITS = [str(digit) for digit in range(10)]
WORDS = ["<pad>", "<eos>", "<unk>", *DIGITS, "+", "="]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
    """What is trained: a digit in the first place, more for the right one. `acc` is whether it is right."""
    first = (solution_str.split() or [""])[0]
    right = first == ground_truth
    return {"score": 1.0 if right else 0.2 * (first in DIGITS), "acc": float(right)}


def make_prompts(folder: Path) -> None:
    """a + b modulo 10."""
    import pandas

    rows = [
        {
            "data_source": "sums",
            "prompt": [{"role": "user", "content": f"{a} + {b} ="}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str((a + b) % 10)},
            "extra_info": {"split": "train", "index": 10 * a + b},
        }
        for a in range(10)
        for b in range(10)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "sums.parquet")


def make_model(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 0) -> None:
    """A small language model with random weights, and one token a word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    places = {word: place for place, word in enumerate(WORDS)}
    raw = Tokenizer(models.WordLevel(places, unk_token="<unk>"))  # noqa: S106 - a special token, no password
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",  # noqa: S106 - a special token, no password
        eos_token="<eos>",  # noqa: S106 - a special token, no password
        unk_token="<unk>",  # noqa: S106 - a special token, no password
        chat_template=TEMPLATE,
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    made = Path(sys.argv[1])
    (made / "model").mkdir(parents=True)
    make_model(made / "model")
    make_prompts(made)
