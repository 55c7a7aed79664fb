"""The language model and its tokenizer: a small Qwen2 made here, or a downloaded one from a folder. Same code after."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Literal

import torch
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from covent.errors import ConfigError
from covent.rollout.batch import Responses, join
from covent.rollout.forward import use_bfloat16
from covent.rollout.sampler import sample
from covent.rollout.vllm_engine import VllmEngine
from covent.store.durable import disk_errors, replace_folder
from covent.tasks import Problem, Task, taught
from covent.train.adapters import add_lora, has_lora, merged_weights, save_adapter
from covent.train.config import ModelSettings, SamplerSettings, TrainConfig
from covent.train.model_folder import load_folder

_PAD, _END = "<pad>", "<eos>"


@dataclass(frozen=True)
class LanguageModel:
    """A causal LM with its tokenizer. Prompts and responses are text outside, token ids inside."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    engine: VllmEngine | None = None
    """What samples; None: the embedded sampler."""

    @property
    def end_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.end_id if pad is None else int(pad)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def entropies_of(self) -> Literal["sampler", "learner"]:
        """Whose entropies sampled responses carry: an engine does not say its own."""
        return "sampler" if self.engine is None else "learner"

    def sampled_by(self, settings: SamplerSettings, *, responses_per_forward: int) -> LanguageModel:
        """The same model with the sampler of these settings.

        Args:
          responses_per_forward: that the learner scores at a time, where the sampler gives no entropies.
        """
        if settings.engine == "torch":
            return self
        engine = VllmEngine(
            lambda network: merged_weights(network) if has_lora(network) else network.state_dict(),
            settings.gpu_memory_utilization,
            settings.max_model_len,
            responses_per_forward,
        )
        return replace(self, engine=engine)

    def sample(
        self,
        problems: Mapping[int, Problem],
        *,
        num_samples: int,
        max_tokens: int,
        key: int,
        temperature: float = 1.0,
        at_once: int | None = None,
    ) -> Responses:
        """Responses to problems, in their order, the samples of a problem together: `covent.rollout.sampler.sample`.

        Args:
          problems: by the number of their group.
          at_once: the embedded sampler decodes that many responses at a time; None: all. An engine bounds its own
            memory.
        """
        prompts, groups = [self.encode_problem(problem) for problem in problems.values()], list(problems)
        draw = sample if self.engine is None else self.engine.sample
        size = len(groups) if self.engine or at_once is None else max(1, at_once // num_samples)
        parts = [
            draw(
                self.network,
                prompts[first : first + size],
                groups=groups[first : first + size],
                num_samples=num_samples,
                max_tokens=max_tokens,
                end_id=self.end_id,
                pad_id=self.pad_id,
                key=key,
                temperature=temperature,
            )
            for first in range(0, len(groups), size)
        ]
        return join(parts)

    def encode_prompt(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_problem(self, problem: Problem) -> list[int]:
        """Token ids of what the model reads: a chat through the tokenizer's template, plain text as it is.

        Raises: ConfigError: a chat, and the tokenizer has no template, or one that fails on it.
        """
        if not problem.messages:
            return self.encode_prompt(problem.prompt)
        if self.tokenizer.chat_template is None:
            raise ConfigError(
                f"{problem.place or 'A prompt'} is a chat, and this model's tokenizer has no chat template. Use a"
                " model with one, or task.prompt_form=text to give the model the last message alone."
            )
        messages = [dict(message) for message in problem.messages]
        try:
            return list(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
        except Exception as error:  # a template is the model's own program, run by transformers in jinja's sandbox
            raise ConfigError(
                f"The chat template of this model's tokenizer fails on {problem.place or 'a prompt'}:"
                f" {type(error).__name__}: {error}. Use task.prompt_form=text, or mend the template."
            ) from error

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response that follows a prompt, the end token included."""
        return [*self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"], self.end_id]

    def decode(self, ids: list[int]) -> str:
        """The text of a response without its end token. Any other special token stays, for the verifier to see."""
        ended = bool(ids) and ids[-1] == self.end_id
        return str(self.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=False)).strip()

    def decode_all(self, responses: Responses) -> list[str]:
        """The texts of a batch of responses, in its order."""
        ids, masks = responses.response_ids.cpu(), responses.mask.cpu()
        return [self.decode(row[mask].tolist()) for row, mask in zip(ids, masks, strict=True)]

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config and tokenizer; `model.path` of a later run can name the folder.

        LoRA is merged into the weights, and lies beside them in `adapter` too. The folder is there whole or not at all.
        Raises: DiskError.
        """

        def fill(temporary: Path) -> None:
            lora = has_lora(self.network)
            try:
                self.network.save_pretrained(temporary, state_dict=merged_weights(self.network) if lora else None)
                if lora:
                    save_adapter(self.network, temporary / "adapter")
            except SafetensorError as error:
                raise OSError(None, str(error)) from error
            self.tokenizer.save_pretrained(temporary)

        with disk_errors(f"Saving the model to {folder}", f"then: covent resume {folder.parent}"):
            replace_folder(folder, fill)


def load_model(settings: ModelSettings, task: Task, *, seed: int, dtype: torch.dtype, device: str) -> LanguageModel:
    """The model of these settings, in evaluation mode (no dropout anywhere, so that ratios are exact).

    Args:
      dtype: of arithmetic. With bfloat16, weights that are trained are float32 all the same; those that LoRA freezes
        are bfloat16.
    Raises:
      MissingPathError: `settings.path` is no folder of a transformers model with safetensors weights.
      ConfigError: the model cannot do what the settings ask of it.
    """
    frozen = settings.lora_rank > 0
    weights = torch.float32 if dtype == torch.bfloat16 and not frozen else dtype
    if settings.path is None:
        model = _small(settings, task, seed)
    else:
        model = LanguageModel(*load_folder(settings.path, weights))
    model.network.to(dtype=weights)
    if frozen:
        add_lora(model.network, settings, seed=seed)
    model.network.to(device=device)
    model.network.eval()
    if dtype == torch.bfloat16:
        use_bfloat16(model.network)
    if settings.gradient_checkpointing:
        _recompute_blocks(model.network)
    return model


def _recompute_blocks(network: PreTrainedModel) -> None:
    # Newer and older transformers.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(network, name) for name in names if hasattr(network, name))
    try:
        # The other kind, `use_reentrant`, gives no gradient where what comes in is frozen.
        enable({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(f"model.gradient_checkpointing = true: {error}") from error


def trained(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes, by name: with LoRA its matrices alone."""
    return {name: weight for name, weight in network.named_parameters() if weight.requires_grad}


def weights_hash(model: LanguageModel) -> str:
    """SHA-256 over the names and bytes of all weights, first 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def max_response_tokens(config: TrainConfig, task: Task, model: LanguageModel) -> int:
    """Length limit of a response in tokens: the setting, or what the task's longest response needs."""
    if config.rollout.max_response_tokens is not None:
        return config.rollout.max_response_tokens
    task = taught(task, "Set rollout.max_response_tokens: the length limit of a response.")
    if config.model.path is None:
        return task.max_response_words + 1
    # A foreign tokenizer splits words: a quarter more than the longest of many demonstrations.
    rng = Random(0)  # noqa: S311 - not cryptography
    lengths = [len(model.encode_response(task.demonstration(task.draw(rng), rng))) for _ in range(256)]
    return max(lengths) + max(lengths) // 4


def _small(settings: ModelSettings, task: Task, seed: int) -> LanguageModel:
    task = taught(task, "Set model.path to the folder of a model, which brings its own tokenizer.")
    words = [_PAD, _END, *task.vocabulary]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=_PAD))
    if task.spelling == "characters":
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = Qwen2Config(
        vocab_size=len(words),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        num_key_value_heads=settings.num_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        # The width's own scale: transformers' default of 0.02 is meant for widths of a thousand and more.
        initializer_range=settings.hidden_size**-0.5,
        bos_token_id=None,
        pad_token_id=words.index(_PAD),
        eos_token_id=words.index(_END),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Qwen2ForCausalLM(config)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_PAD)
    return LanguageModel(network, fast)
