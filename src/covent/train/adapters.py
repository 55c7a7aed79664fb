"""LoRA through `peft`: small matrices beside the weights are trained, the weights themselves are not."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from covent.errors import ConfigError, MissingExtraError
from covent.train.config import ModelSettings

if TYPE_CHECKING:
    from peft import LoraConfig


def add_lora(network: PreTrainedModel, settings: ModelSettings, *, seed: int) -> None:
    """Put LoRA matrices beside the linear layers, in place, and freeze everything else.

        W x + (lora_alpha / lora_rank) B A x          B begins at 0, so the policy is the same at first

    There is no dropout, which would make the ratio of one policy to itself another number than 1. The matrices are
    float32 whatever the weights are.

    Args:
      seed: of A.
    Raises:
      MissingExtraError: peft is not installed.
      ConfigError: `target_modules` names no linear layer.
    Source: Hu et al. 2021, arXiv 2106.09685, Eq. 3.
    """
    try:
        from peft import inject_adapter_in_model
        from peft.tuners.lora import Linear
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"model.lora_rank = {settings.lora_rank} needs peft, which is not installed. Install the extra:"
            " pip install 'covent[lora]'."
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(_peft_settings(settings), network)
        except ValueError as error:
            raise ConfigError(f"model.target_modules = {settings.target_modules!r}: {error}") from error
    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    other = next((type(layer.get_base_layer()).__name__ for layer in layers if not isinstance(layer, Linear)), None)
    if other is not None:
        raise ConfigError(
            f"model.target_modules = {settings.target_modules!r} names a layer of the type {other}. Name linear layers."
        )
    for name, weight in network.named_parameters():
        weight.requires_grad_("lora_" in name)
        if "lora_" in name:
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))


def has_lora(network: PreTrainedModel) -> bool:
    """Whether `add_lora` was here."""
    return hasattr(network, "peft_config")


@torch.no_grad()
def merged_weights(network: PreTrainedModel) -> dict[str, Tensor]:
    """The weights W + (lora_alpha / lora_rank) B A of the model without LoRA that computes the same, on the CPU."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}
    merged = {}
    for name, weight in network.state_dict().items():
        layer, base, what = name.rpartition(".base_layer.")
        if base and what == "weight":
            exact = torch.promote_types(weight.dtype, torch.float32)
            weight = (weight.to(exact) + layers[layer].get_delta_weight("default").to(exact)).to(weight.dtype)
        if "lora_" not in name:
            merged[f"{layer}.{what}" if base else name] = weight.cpu()
    return merged


def save_adapter(network: PreTrainedModel, folder: Path) -> None:
    """The LoRA matrices alone, as peft saves them for `PeftModel.from_pretrained`; the same give the same bytes."""
    from peft import get_peft_model_state_dict

    folder.mkdir()
    found = get_peft_model_state_dict(network, adapter_name="default")
    own = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in found.items()}
    save_file(own, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = copy(network.peft_config["default"])
    # peft would write a set in the order of its hashes, which is another one in each process.
    for name, value in list(vars(settings).items()):
        if isinstance(value, set):
            setattr(settings, name, sorted(value))
    settings.save_pretrained(str(folder))


def _peft_settings(settings: ModelSettings) -> LoraConfig:
    from peft import LoraConfig

    modules = settings.target_modules
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=0.0,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=settings.path,
        inference_mode=False,
    )
