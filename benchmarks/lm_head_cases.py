"""The sizes at which the LM head is measured, and what it is measured on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Case(NamedTuple):
    """A size, and which of the three questions is asked of it."""

    num_tokens: int
    width: int
    vocabulary: int
    dtype: str
    sweep: tuple[int, ...] = ()
    """Numbers of tokens whose memory is measured, instead of time and errors."""


CASES = {
    "bf16": Case(1024, 896, 151_936, "bfloat16"),
    "bf16_32k": Case(1024, 896, 32_768, "bfloat16"),
    "fp32": Case(1024, 896, 32_768, "float32"),
    "sweep": Case(0, 128, 151_936, "bfloat16", sweep=(1024, 4096, 16_384, 65_536)),
    "tiny": Case(64, 32, 1001, "bfloat16"),
}


class Inputs(NamedTuple):
    """Logits with a standard deviation of 4: about the spread, and the entropy, of a language model's."""

    hidden: Tensor
    weight: Tensor
    tokens: Tensor
    upstream: Tensor

    @staticmethod
    def of(case: Case) -> Inputs:
        generator = torch.Generator().manual_seed(0)
        dtype = getattr(torch, case.dtype)
        hidden = torch.randn(case.num_tokens, case.width, generator=generator).to(dtype)
        weight = torch.empty(case.vocabulary, case.width, dtype=dtype)
        for part in weight.split(8192):
            part.copy_(4 / case.width**0.5 * torch.randn(part.shape, generator=generator))
        tokens = torch.randint(case.vocabulary, (case.num_tokens,), generator=generator)
        upstream = torch.randn(2, case.num_tokens, generator=generator)
        return Inputs(hidden.requires_grad_(), weight.requires_grad_(), tokens, upstream)
