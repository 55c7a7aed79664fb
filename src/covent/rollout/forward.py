"""One forward pass of a causal LM: its arithmetic, its logits, and what is kept of it for the backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
"""Model types whose logits are the product of last hidden states and output embedding, and no more."""

_ARITHMETIC = "_covent_arithmetic"


def use_bfloat16(model: PreTrainedModel) -> None:
    """From now on, matrix products of this model, and of copies of it, are in bfloat16; its weights stay as they are.

    Weights that are trained stay in float32: rounded to bfloat16, a step of 1e-6 would not move them.
    """
    setattr(model, _ARITHMETIC, torch.bfloat16)


def arithmetic(model: PreTrainedModel) -> torch.dtype:
    """The dtype of the model's matrix products."""
    return getattr(model, _ARITHMETIC, model.dtype)


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether logits are nothing but the product of the last hidden states and the output embedding."""
    head = model.get_output_embeddings()
    return isinstance(head, torch.nn.Linear) and model.config.model_type in PLAIN_HEADS


def last_hidden(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """Last hidden states [B, L, D] in the model's arithmetic. Gradients flow to the model."""
    with _in_its_arithmetic(model), _recomputed(model):
        hidden: Tensor = model.get_decoder()(**inputs).last_hidden_state
    # The last norm of a float32 model returns float32; its head takes what the other products took.
    return hidden.to(arithmetic(model))


def logits_of(model: PreTrainedModel, *, keep: int, **inputs: Any) -> Tensor:
    """Logits [B, keep, V] of the last positions, float32 at least. Gradients flow to the model.

    In bfloat16 a model's own head rounds its logits, which is by far the largest error there is. Here the head's inputs
    are rounded, as everywhere, and its products are summed in float32.
    """
    if arithmetic(model) != torch.bfloat16:
        with _recomputed(model):
            logits: Tensor = model(**inputs, logits_to_keep=keep).logits
        return logits
    if has_plain_head(model):
        return head_logits(model, last_hidden(model, **inputs)[:, -keep:])
    with _in_its_arithmetic(model), _recomputed(model):
        return model(**inputs, logits_to_keep=keep).logits.float()


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [..., V] of last hidden states under a plain head, float32 at least."""
    weight, bias = head_weight(model)
    exact = torch.promote_types(hidden.dtype, torch.float32)
    return torch.nn.functional.linear(hidden.to(exact), weight.to(exact), None if bias is None else bias.to(exact))


def head_weight(model: PreTrainedModel) -> tuple[Tensor, Tensor | None]:
    """The output embedding [V, D] in the model's arithmetic, and its bias [V] if it has one."""
    head = model.get_output_embeddings()
    return head.weight.to(arithmetic(model)), head.bias


@contextlib.contextmanager
def _in_its_arithmetic(model: PreTrainedModel) -> Iterator[None]:
    dtype = getattr(model, _ARITHMETIC, None)
    with contextlib.nullcontext() if dtype is None else torch.autocast(model.device.type, dtype):
        yield


@contextlib.contextmanager
def _recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Gradient checkpointing, if the model is set to it, for the passes that a backward pass follows.

    transformers checkpoints layers in training mode only. The flag is set on the layers alone, and for as long as this
    takes: the modules inside keep to evaluation mode, and the sampler keeps its cache.
    """
    blocks = (each for each in model.modules() if isinstance(each, GradientCheckpointingLayer))
    layers = [block for block in blocks if block.gradient_checkpointing] if torch.is_grad_enabled() else []
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
