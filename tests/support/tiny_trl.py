"""A real TRL trainer on a toy task in a second: a random Qwen2, sums of two digits, a reward for the right digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from trl import GRPOConfig, RLOOConfig

WORDS = ["<pad>", "<eos>", "<unk>", *(str(digit) for digit in range(10)), "+", "="]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))  # noqa: S106 - a special token, no password
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",  # noqa: S106 - a special token, no password
        eos_token="<eos>",  # noqa: S106 - a special token, no password
        unk_token="<unk>",  # noqa: S106 - a special token, no password
    )


def network(
    *, hidden: int = 32, layers: int = 2, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Qwen2ForCausalLM:
    """A Qwen2 at random weights; in float64 its norms are too, which transformers computes in float32."""
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(WORDS),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
        )
    ).to(dtype)
    if dtype is torch.float64:
        for parent in list(model.modules()):
            for name, norm in list(parent.named_children()):
                if isinstance(norm, Qwen2RMSNorm):
                    exact = torch.nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=dtype)
                    exact.weight = norm.weight
                    setattr(parent, name, exact)
    return model


def low_digits(completions: list[str], **_: Any) -> list[float]:
    """Share of the words that are digits below 5."""
    return [
        sum(word.isdigit() and int(word) < 5 for word in text.split()) / max(1, len(text.split()))
        for text in completions
    ]


def starts_low(completions: list[str], **_: Any) -> list[float]:
    """1 if the first word is a digit below 5."""
    firsts = [(text.split() or [""])[0] for text in completions]
    return [float(first.isdigit() and int(first) < 5) for first in firsts]


def sums() -> Dataset:
    """64 prompts."""
    return Dataset.from_list([{"prompt": f"{a} + {b} ="} for a in range(8) for b in range(8)])


def arguments(folder: Path, *, rloo: bool = False, **settings: Any) -> Any:
    """TRL's config for one core."""
    wanted = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "seed": 0,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        # A reference policy is loaded by name, and this model has none.
        "beta": 0.0,
        **settings,
    }
    return (RLOOConfig if rloo else GRPOConfig)(**wanted)


def trainer(kind: type, folder: Path, *, model: Any = None, reward: Any = low_digits, **settings: Any) -> Any:
    """A trainer of some class on the toy task; `covent` goes to the trainer, the rest to TRL's config."""
    own = {"covent": settings.pop("covent")} if "covent" in settings else {}
    return kind(
        model=network() if model is None else model,
        reward_funcs=reward,
        args=arguments(folder, rloo="RLOO" in kind.__name__, **settings),
        train_dataset=sums(),
        eval_dataset=sums().select(range(8)) if "eval_strategy" in settings else None,
        processing_class=tokenizer(),
        **own,
    )
