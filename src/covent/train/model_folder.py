"""A downloaded model: what is looked at before `transformers` may load it. Nothing of a folder is ever executed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from covent.errors import MissingPathError

ADVICE = "Give a folder with config.json, tokenizer.json and *.safetensors, as `hf download … --local-dir` makes."

_IMPLEMENTATIONS = ("eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
"""Those that are part of transformers; for another name it may fetch a kernel and run it."""


def load_folder(path: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Network and tokenizer of a folder, with weights in this dtype.

    Raises: MissingPathError: the folder lacks something, asks for something that is refused, or cannot be loaded.
    """
    folder = vetted(Path(path))
    try:
        network = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
        # tokenizer.json is the tokenizer; AutoTokenizer would rebuild it from the model's type.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a damaged file brings about inside transformers is about that file
        raise MissingPathError(f"model.path = '{path}' cannot be loaded: {error} {ADVICE}") from error
    if tokenizer.eos_token_id is None:
        raise MissingPathError(f"model.path = '{path}': its tokenizer has no end token, so responses could not end.")
    if len(tokenizer) > network.config.vocab_size:
        raise MissingPathError(
            f"model.path = '{path}': its tokenizer has {len(tokenizer)} tokens and its weights"
            f" {network.config.vocab_size}. They do not belong together."
        )
    return network, tokenizer


def vetted(folder: Path) -> Path:
    """The folder, if `transformers` can load it without running or fetching anything.

    A model folder is another's: pickled weights, code of its own, adapters, quantised weights and foreign attention
    are refused, and so is an index that names files elsewhere. Links are followed: a download's cache consists of them.

    Raises: MissingPathError with what is wrong.
    """
    if not folder.is_dir():
        raise MissingPathError(f"model.path = '{folder}' is not a folder. {ADVICE}")
    if not (folder / "config.json").is_file():
        raise MissingPathError(f"model.path = '{folder}' has no config.json, so it is not a model folder. {ADVICE}")
    if not any(folder.glob("*.safetensors")):
        raise MissingPathError(
            f"model.path = '{folder}' has no *.safetensors weights (pickled ones are refused). {ADVICE}"
        )
    if not (folder / "tokenizer.json").is_file():
        raise MissingPathError(f"model.path = '{folder}' has no tokenizer.json. {ADVICE}")
    if reason := _refused(folder):
        raise MissingPathError(f"model.path = '{folder}' is refused: {reason}")
    return folder


def _refused(folder: Path) -> str:
    if (folder / "adapter_config.json").exists():
        return "adapter_config.json makes it an adapter to another model. Merge the two, and give the merged folder."
    config = _json(folder / "config.json")
    if not isinstance(config, dict):
        return "config.json is no JSON object."
    if config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        own = " and brings code of its own (auto_map), which is never run" if "auto_map" in config else ""
        return f"this transformers has no causal LM of model_type = {config.get('model_type')!r}{own}."
    if "quantization_config" in config:
        return "its weights are quantised, and cannot be trained. Give the original ones."
    for name in ("config.json", "generation_config.json"):
        for key, value in _settings_in(_json(folder / name) if (folder / name).exists() else {}):
            if "_implementation" in key and isinstance(value, str) and value not in _IMPLEMENTATIONS:
                known = ", ".join(_IMPLEMENTATIONS)
                return f"{name} asks for {key} = {value!r}, and only {known} are part of transformers. Remove it."
    return _bad_index(folder)


def _bad_index(folder: Path) -> str:
    """What is wrong with the list of the weights' files, where they are several."""
    for path in folder.glob("*.index.json"):
        index = _json(path)
        files = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(files, dict) or not files:
            return f"{path.name} names no files."
        for name in dict.fromkeys(map(str, files.values())):
            plain = name == Path(name).name and name.endswith(".safetensors")
            if not plain or not (folder / name).is_file():
                return f"{path.name} names {name!r}, which is no safetensors file of this folder."
    return ""


def _settings_in(given: Any) -> Iterator[tuple[str, Any]]:
    """Every name with its value, at any depth."""
    if isinstance(given, dict):
        for name, value in given.items():
            yield name, value
            yield from _settings_in(value)
    elif isinstance(given, list):
        for value in given:
            yield from _settings_in(value)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise MissingPathError(f"'{path}' cannot be read as JSON: {error}.") from error
