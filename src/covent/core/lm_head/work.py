"""One call: the tokens that count, and how the work on them is cut."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from covent.core.lm_head.compiled import LARGE, CompiledEpilogue, compiled_library
from covent.core.lm_head.epilogue import Rows, Shape, TorchEpilogue
from covent.core.lm_head.gpu import TritonEpilogue, has_kernels
from covent.core.lm_head.products import Products
from covent.core.lm_head.tiles import Buffer, slices
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Tensor


@dataclass(frozen=True)
class Work:
    """One call: the tokens that count, and how the work is cut. Per token [n], for the tokens that count only."""

    tokens: Tensor
    inverse: Tensor | None
    """1 / T; None where T = 1 throughout."""
    index: Tensor | None
    """Rows of the hidden states of the tokens that count; None for all."""
    products: Products
    softcap: float | None
    tile: tuple[int, int]
    workspace_bytes: int
    extra: bool
    group: ProcessGroup | None
    """Ranks that hold the other rows of the weight."""

    @property
    def temperature(self) -> Tensor | float:
        return 1.0 if self.inverse is None else 1.0 / self.inverse

    def some(self, chosen: Tensor) -> Work:
        """The same for some of its tokens, by position."""
        inverse = None if self.inverse is None else self.inverse[chosen]
        index = chosen if self.index is None else self.index[chosen]
        return replace(self, tokens=self.tokens[chosen], inverse=inverse, index=index)

    def hidden(self, hidden: Tensor, rows: slice) -> Tensor:
        """Hidden states of some of the tokens, as the products take them."""
        part = hidden[rows] if self.index is None else hidden[self.index[rows]]
        return part.to(self.products.operand)

    def rows(self, rows: slice, columns: slice) -> Rows:
        return Rows(self.tokens[rows] - columns.start, None if self.inverse is None else self.inverse[rows])

    def shape(self, bias: Tensor | None, columns: slice) -> Shape:
        return Shape(None if bias is None else bias[columns].to(self.products.work), self.softcap)

    def chunks(self, num_kept: int) -> list[slice]:
        """Tokens of each tile; a tile is kept as a whole or not at all."""
        return [*slices(0, num_kept, self.tile[0]), *slices(num_kept, len(self.tokens), self.tile[0])]

    def largest(self, weight: Tensor) -> tuple[int, int]:
        """Tokens and vocabulary of the largest tile there is."""
        return min(self.tile[0], len(self.tokens)), min(self.tile[1], len(weight))

    def buffers(self, weight: Tensor) -> tuple[Buffer, Buffer]:
        """For a tile of logits, and for its gradient; one and the same where the dtypes agree."""
        shape = self.largest(weight)
        logits = Buffer(shape, self.products.logits, weight.device)
        same = self.products.logits == self.products.operand
        return logits, logits if same else Buffer(shape, self.products.operand, weight.device)

    def epilogue(self, weight: Tensor) -> TorchEpilogue:
        """The fastest that this call can have."""
        given = self.products.work, self.largest(weight), weight.device
        if self.products.work == torch.float32 and has_kernels(weight.device):
            return TritonEpilogue(*given)
        is_large = len(self.tokens) * len(weight) >= LARGE
        if is_large and weight.device.type == "cpu" and self.products.work == torch.float32:
            library = compiled_library()
            if library is not None:
                return CompiledEpilogue(library, *given)
        return TorchEpilogue(*given)
