"""How the work is cut: tiles of tokens by vocabulary, and the logits that a budget keeps for the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from covent.core.shapes import Tensor

# A tile of logits on a CPU: enough tokens for the product, and small enough that it is still in a last-level cache when
# its gradient is multiplied. Narrower tiles of wide numbers: 4096 columns of float32 take 3 % less time than 8192.
CPU_TOKENS = 1024
CPU_TILE_BYTES = 16 << 20
# (tokens, vocabulary) on a GPU: the sum of the hidden states' gradient in float32 crosses memory once a slice of the
# vocabulary, so slices are wider.
GPU_TILE = (4096, 32_768)


def tile_size(
    device: torch.device, logits: torch.dtype, token_chunk: int | None, vocab_chunk: int | None
) -> tuple[int, int]:
    """Tokens and vocabulary of a tile; what is None is chosen for the device and the dtype of logits."""
    on_cpu = CPU_TOKENS, CPU_TILE_BYTES // (CPU_TOKENS * logits.itemsize)
    tokens, vocabulary = on_cpu if device.type == "cpu" else GPU_TILE
    return token_chunk or tokens, vocab_chunk or vocabulary


def slices(first: int, last: int, chunk: int) -> Iterator[slice]:
    """[first, last) in pieces of `chunk`, the last one ragged."""
    for start in range(first, last, chunk):
        yield slice(start, min(start + chunk, last))


@dataclass(frozen=True)
class Kept:
    """Logits of the first tokens, from the forward to the backward pass, one block a slice of the vocabulary.

    float32 and float64 logits, and those already rounded to bfloat16, are kept as they are. float32 logits of 16-bit
    inputs are kept as float16 of d = (z - m) / T, m the maximum of the token in that slice: large p have small d, and
    few digits are lost. Without the shift they would be. Where one entry holds nearly all of p, the gradient comes from
    others, with a large d: half a step of float16, by which p may be off, is 2^-8 for -d from 8 to 16 and 2^-7 from 16
    to 32, as much as the rounding of the gradient to bfloat16, or twice as much.
    """

    num_tokens: int
    logits: Tensor
    """[num_tokens V], flat."""
    tops: Tensor | None
    """[slices of the vocabulary, num_tokens]: m, where d is kept."""

    @staticmethod
    def within(
        workspace_bytes: int, num_tokens: int, vocabulary: int, vocab_chunk: int, *, dtype: torch.dtype, like: Tensor
    ) -> Kept:
        """As many of `num_tokens` tokens as fit; `dtype` float16 keeps d, any other one the logits themselves."""
        num_slices = -(-vocabulary // vocab_chunk)
        shifted = dtype == torch.float16
        token_bytes = vocabulary * dtype.itemsize + (num_slices * like.element_size() if shifted else 0)
        fit = min(num_tokens, workspace_bytes // token_bytes)
        tops = like.new_empty(num_slices, fit) if shifted else None
        return Kept(fit, torch.empty(fit * vocabulary, dtype=dtype, device=like.device), tops)

    def block(self, columns: slice) -> Tensor:
        """[num_tokens, columns] of one slice of the vocabulary."""
        width = columns.stop - columns.start
        return self.logits.narrow(0, columns.start * self.num_tokens, self.num_tokens * width).view(-1, width)


class Buffer:
    """One allocation that every tile uses in turn."""

    def __init__(self, shape: tuple[int, int], dtype: torch.dtype, device: torch.device) -> None:
        self._flat = torch.empty(shape[0] * shape[1], dtype=dtype, device=device)

    def tile(self, num_rows: int, num_columns: int) -> Tensor:
        """Contiguous [rows, columns], with whatever it holds."""
        return self._flat[: num_rows * num_columns].view(num_rows, num_columns)
