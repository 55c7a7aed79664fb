"""Run by tests/core/test_lm_head_kernels.py: both kernels compiled for sm_90, registers and spills as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from covent.core.lm_head import kernels
from covent.core.lm_head.gpu import BLOCK, NUM_WARPS

POINTERS = {
    "z": "*fp32",
    "out": "*bf16",
    "place": "*i64",
    "keep": "*fp16",
    **dict.fromkeys(["bias", "inverse", "sums", "tops", "top", "level", "steep", "own", "kept_top"], "*fp32"),
    "softcap": "fp32",
    "width": "i32",
    "sums_stride": "i32",
}


def report(kernel: Any, flags: dict[str, bool]) -> dict[str, int]:
    """Registers a thread and bytes spilled, by the assembler's own words."""
    constants: dict[str, Any] = {**flags, "BLOCK": BLOCK}
    signature = {name: POINTERS.get(name, "constexpr") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constexprs={(kernel.arg_names.index(k),): v for k, v in constants.items()})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": NUM_WARPS})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.ptx"
        file.write_text(made.asm["ptx"])
        words = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", str(file), "-o", str(file.with_suffix(".cubin"))]
        log = subprocess.run(words, capture_output=True, text=True, check=True).stderr
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", log)]
    (registers,) = re.findall(r"Used (\d+) registers", log)
    assert len(spills) == 2, log
    return {"registers": int(registers), "spill_bytes": sum(spills)}


if __name__ == "__main__":
    results = {}
    for kernel in (kernels.fold_rows, kernels.gradient_tile):
        names = [name for name in kernel.arg_names if name.isupper() and name != "BLOCK"]
        name = kernel.__name__
        results[name] = report(kernel, dict.fromkeys(names, False))
        results[f"{name}, all"] = report(kernel, dict.fromkeys(names, True))
    print(json.dumps(results))
