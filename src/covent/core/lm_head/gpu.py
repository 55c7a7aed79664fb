"""The epilogue on a GPU: `TorchEpilogue` by Triton kernels. Float32 sums; float64 goes the torch way.

With TRITON_INTERPRET=1 set before the first import the kernels run on a CPU, slowly: that is how they are tested.
"""

from __future__ import annotations

from importlib.util import find_spec

import torch

from covent.core.lm_head.epilogue import Rows, Shape, Slope, TorchEpilogue
from covent.core.lm_head.sums import NUM_SUMS_WITH_EXTRAS
from covent.core.shapes import Tensor

BLOCK = 4096
NUM_WARPS = 8


def has_kernels(device: torch.device) -> bool:
    """Whether Triton is there for this device; it comes with torch for CUDA."""
    return device.type == "cuda" and find_spec("triton") is not None


class TritonEpilogue(TorchEpilogue):
    """Each tile is read once and, in the backward pass, written once; nothing waits for the GPU."""

    def fold_into(self, sums: Tensor, z: Tensor, shape: Shape, rows: Rows, keep: Tensor | None) -> Tensor:
        """As `TorchEpilogue.fold_into`."""
        from covent.core.lm_head.kernels import fold_rows

        tops = torch.empty(len(z) if keep is not None else 0, dtype=torch.float32, device=z.device)
        fold_rows[(len(z),)](
            z,
            shape.bias,
            rows.place,
            rows.inverse,
            sums,
            keep,
            tops,
            shape.softcap or 0.0,
            z.shape[1],
            sums.stride(0),
            HAS_BIAS=shape.bias is not None,
            HAS_CAP=shape.softcap is not None,
            HAS_INVERSE=rows.inverse is not None,
            EXTRA=len(sums) == NUM_SUMS_WITH_EXTRAS,
            KEEP=keep is not None,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
        return tops

    def gradient(self, z: Tensor, shape: Shape, rows: Rows, slope: Slope, out: Tensor) -> None:
        """As `TorchEpilogue.gradient`."""
        from covent.core.lm_head.kernels import gradient_tile

        gradient_tile[(len(z), -(-z.shape[1] // BLOCK))](
            z,
            out,
            shape.bias,
            rows.place,
            rows.inverse,
            slope.top,
            slope.level,
            slope.steep,
            slope.own,
            slope.kept_top,
            shape.softcap or 0.0,
            z.shape[1],
            HAS_BIAS=shape.bias is not None,
            HAS_CAP=shape.softcap is not None,
            HAS_INVERSE=rows.inverse is not None,
            HAS_STEEP=slope.steep is not None,
            KEPT=slope.kept_top is not None,
            BLOCK=BLOCK,
            num_warps=NUM_WARPS,
        )
