"""What a call is given besides its tensors, and what of both is refused before any work."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import NamedTuple

import torch

from covent.core.entropy import checked_temperature
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Tensor
from covent.errors import ConfigError, ShapeError


class Settings(NamedTuple):
    """As in `covent.core.lm_head.logprob_and_entropy_from_hidden`."""

    softcap: float | None
    temperature: float | Tensor
    logits_dtype: torch.dtype | None
    workspace_bytes: int
    token_chunk: int | None
    vocab_chunk: int | None
    group: ProcessGroup | None

    def check(self) -> None:
        """Raises: ConfigError for a setting of the wrong type or out of range."""
        for name in ("token_chunk", "vocab_chunk"):
            size = getattr(self, name)
            if size is not None and not (isinstance(size, Integral) and size >= 1):
                raise ConfigError(f"{name} is {size!r}; it must be a whole number, at least 1, or None.")
        if not (isinstance(self.workspace_bytes, Integral) and self.workspace_bytes >= 0):
            raise ConfigError(f"workspace_bytes is {self.workspace_bytes!r}; it must be a whole number, at least 0.")
        cap = self.softcap
        if cap is not None and not (isinstance(cap, Real) and 0 < cap < math.inf):
            raise ConfigError(f"softcap is {cap!r}; it must be finite and above 0, or None for logits without a cap.")
        if not isinstance(self.temperature, Real | Tensor):
            raise ConfigError(
                f"temperature is {self.temperature!r}; it must be a number, or a tensor of one per state."
            )
        checked_temperature(self.temperature)
        if not isinstance(self.group, ProcessGroup | None):
            raise ConfigError(f"group is {self.group!r}; it must be a torch.distributed.ProcessGroup, or None.")


def inverse_temperature(temperature: float | Tensor, like: Tensor) -> Tensor | None:
    """1 / T in the dtype of `like`; None where T = 1.

    Args:
      temperature: one for all, or one per state.
      like: [states], of any value.
    Raises: ConfigError where 1 / T is too large for that dtype.
    """
    if isinstance(temperature, Tensor):
        inverse = 1.0 / temperature.detach().to(like.dtype)
    elif temperature == 1.0:
        return None
    else:
        value = 1.0 / temperature
        inverse = torch.full_like(like, torch.inf if value > torch.finfo(like.dtype).max else value)
    if bool((inverse == torch.inf).any()):
        raise ConfigError(f"A temperature is so small that 1 / T is infinite in {like.dtype}; take a larger one.")
    return inverse


def require_tensors(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, mask: Tensor | None, temperature: object
) -> None:
    """Do these belong together?

    Raises: ConfigError for numbers of the wrong type; ShapeError for a shape that does not fit the others.
    """
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None and not tensor.is_floating_point():
            raise ConfigError(f"{name} holds {tensor.dtype}; the LM head takes floating-point numbers.")
    for name, tensor, dtype in (("tokens", tokens, torch.int64), ("mask", mask, torch.bool)):
        if tensor is not None and tensor.dtype != dtype:
            raise ConfigError(f"{name} holds {tensor.dtype}; it must hold {dtype}: call it with {name}.to({dtype}).")
    if not hidden.dim():
        raise ShapeError("hidden is a single number; its last dimension must be the width of the LM head.")
    states, per_state = (
        hidden.shape[:-1],
        temperature if isinstance(temperature, Tensor) and temperature.dim() else None,
    )
    for name, tensor, shape, meaning in (
        ("weight", weight, weight.shape[:1] + hidden.shape[-1:], "rows of the width of hidden"),
        ("tokens", tokens, states, "one per state"),
        ("mask", mask, states, "one per state"),
        ("temperature", per_state, states, "one per state, or one for all"),
        ("bias", bias, weight.shape[:1], "one per row of weight"),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(
                f"{name} has shape {list(tensor.shape)}, beside hidden {list(hidden.shape)} and weight "
                f"{list(weight.shape)}; it must be {list(shape)}: {meaning}."
            )
