"""Run by tests/core/test_lm_head_kernels.py with TRITON_INTERPRET=1: the kernels beside the torch epilogue, as JSON."""

from __future__ import annotations

import json
import math
import os
from typing import Any
from unittest.mock import patch

import torch

from covent.core.lm_head import gpu, token_readings_from_hidden, work
from covent.core.lm_head.epilogue import TorchEpilogue
from tests.support.tolerances import COMPILED, HEAD_GRADIENT_16_BIT

NUM, WIDTH, VOCABULARY = 4, 6, 149


class WrongEpilogue(gpu.TritonEpilogue):
    """Takes each logit a little too large."""

    def fold_into(self, sums: Any, z: Any, shape: Any, rows: Any, keep: Any) -> Any:
        z.mul_(1.01)
        return super().fold_into(sums, z, shape, rows, keep)


def readings(case: dict[str, Any], dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(50)
    hidden, weight, bias = (
        torch.randn(shape, generator=generator) for shape in ((NUM, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    weight *= case.get("scale", 1.0)
    bias[[0, 1, 2, 3, 17, 148]] = -torch.inf
    bias[70] = case.get("entry", 0.0)
    tokens = torch.tensor([4, 147, 100, case.get("token", 64)])
    settings = {name: case[name] for name in ("temperature", "softcap", "workspace_bytes") if name in case}
    leaves = [hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()]
    settings["bias"] = bias.requires_grad_() if case.get("bias") else None
    found = token_readings_from_hidden(*leaves, tokens, token_chunk=3, vocab_chunk=case.get("chunk", 64), **settings)
    upstream = torch.linspace(-1, 1, NUM)
    loss = torch.where(found.logprob.isfinite(), upstream * found.logprob, 0.0).sum()
    if not case.get("no_entropy"):
        loss = loss + (found.entropy * (0.5 - upstream)).sum()
    loss.backward()
    gradients = [leaf.grad for leaf in [*leaves, *([bias] if case.get("bias") else [])]]
    return [part.detach().float() for part in (*found, *gradients)]


def problem(case: dict[str, Any], dtype: torch.dtype, epilogue: type[TorchEpilogue]) -> str:
    """Empty if both epilogues agree."""
    truth = readings(case, dtype)
    with patch.object(work, "has_kernels", lambda device: True), patch.object(work, "TritonEpilogue", epilogue):
        found = readings(case, dtype)
    tolerance = 20 * COMPILED if dtype == torch.float32 else HEAD_GRADIENT_16_BIT
    for number, (f, t) in enumerate(zip(found, truth, strict=True)):
        if not torch.allclose(f, t, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"part {number} differs by up to {float((f - t).abs().nan_to_num(math.inf).max()):g}"
    return ""


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "one tile": {"chunk": 200},
    "ragged": {"chunk": 47},
    "sharp": {"scale": 30.0},
    "all entries alike": {"scale": 0.0},
    "bias and entries switched off": {"bias": True},
    "a token that is switched off": {"bias": True, "token": 0, "no_entropy": True},
    "a tile that is switched off": {"bias": True, "chunk": 4},
    "an entry of NaN": {"bias": True, "entry": math.nan},
    "an entry of infinity": {"bias": True, "entry": math.inf},
    "cap": {"softcap": 2.0},
    "cap and bias": {"softcap": 2.0, "bias": True, "temperature": 0.7},
    "temperature": {"temperature": 0.6},
    "temperature of each": {"temperature": torch.linspace(0.4, 2.0, NUM)},
    "no entropy": {"no_entropy": True, "temperature": 0.6},
    "all kept": {"workspace_bytes": 1 << 20, "bias": True},
    "some kept": {"workspace_bytes": 2 * VOCABULARY * 4 + 100, "temperature": 1.5},
}


SIXTEEN_BIT_CASES = ("plain", "cap and bias", "temperature of each", "all kept", "some kept")
WRONG_CASES = ("plain", "some kept")


if __name__ == "__main__":
    is_wrong = "COVENT_TEST_WRONG_KERNEL" in os.environ
    kernel: type[TorchEpilogue] = WrongEpilogue if is_wrong else gpu.TritonEpilogue
    chosen = [(name, torch.float32) for name in (WRONG_CASES if is_wrong else CASES)]
    chosen += [] if is_wrong else [(name, torch.bfloat16) for name in SIXTEEN_BIT_CASES]
    with patch.object(gpu, "BLOCK", 32):
        results = [
            {"name": f"{name}, {dtype}", "problem": problem(CASES[name], dtype, kernel)} for name, dtype in chosen
        ]
    print(json.dumps(results))
