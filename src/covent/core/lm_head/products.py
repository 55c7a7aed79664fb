"""The three matrix products: logits = h W^T, and both gradients, dh += dz W and dW += dz^T h.

Logits are float32 at least and both gradients are summed in float32 at least, except where the caller asks for logits
rounded to bfloat16. A CPU has no product of 16-bit numbers with a float32 result, so there the exact logits of 16-bit
inputs cost a float32 product; a GPU has one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from covent.core.shapes import Tensor
from covent.errors import ConfigError


@dataclass(frozen=True)
class Products:
    """The dtypes of one call."""

    work: torch.dtype
    """Of sums and statistics: float32, or float64 if an input is."""
    operand: torch.dtype
    """Of hidden states, weight and gradient of the logits inside a product."""
    logits: torch.dtype

    keep: torch.dtype
    """How a budget keeps logits; `covent.core.lm_head.tiles.Kept`."""

    def logits_of(self, h: Tensor, w: Tensor, out: Tensor) -> None:
        """out = h W^T."""
        if self.logits == self.operand:
            torch.mm(h, w.T, out=out)
        else:
            torch.mm(h, w.T, out_dtype=self.logits, out=out)

    def add(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        """total += left right, with `total` in the working dtype."""
        if self.operand == self.work:
            total.addmm_(left, right)
        elif left.device.type == "cpu":
            total.add_(left @ right)
        else:
            torch.addmm(total, left, right, out_dtype=self.work, out=total)


def products(hidden: Tensor, weight: Tensor, bias: Tensor | None, logits_dtype: torch.dtype | None) -> Products:
    """The dtypes for these inputs.

    Raises: ConfigError for `logits_dtype` other than None, or bfloat16 with hidden states and weight in bfloat16.
    """
    given = [hidden, weight] if bias is None else [hidden, weight, bias]
    work = torch.float64 if any(tensor.dtype == torch.float64 for tensor in given) else torch.float32
    short = work == torch.float32 and all(tensor.dtype.itemsize == 2 for tensor in (hidden, weight))
    bfloat16 = short and hidden.dtype == weight.dtype == torch.bfloat16
    if logits_dtype is not None and not (logits_dtype == torch.bfloat16 and bfloat16):
        raise ConfigError(
            f"logits_dtype is {logits_dtype} for hidden states in {hidden.dtype} and a weight in {weight.dtype}; "
            "it can be None (float32 or float64), or torch.bfloat16 when both are in bfloat16."
        )
    if logits_dtype is not None:
        return Products(work, operand=torch.bfloat16, logits=torch.bfloat16, keep=torch.bfloat16)
    operand = torch.bfloat16 if bfloat16 and hidden.device.type != "cpu" else work
    return Products(work, operand, logits=work, keep=torch.float16 if short else work)
