"""Log-prob and entropy from the LM head: time, memory and errors of covent and its peers, side by side in one process.

    covent bench --case bf16                              # sets up the peers' environment, then runs the command below
    python benchmarks/lm_head.py --case bf16 --json benchmarks/results/lm_head_bf16.json
    python benchmarks/lm_head.py --page > docs/performance.md

Times are CPU time of the process on one thread, forward and backward of sum(w1 logp + w2 H), variants in turn, medians
of 7 (of 3 for the peers); the floor is that of lm_head_floor.py, timed in the same turns. Memory is the peak of
a fresh process above what it held before the call. Errors are against float64. The large case takes a quarter of an
hour.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lm_head_cases import CASES, Case, Inputs
from lm_head_floor import floor
from lm_head_variants import VARIANTS, Variant
from torch import Tensor

from covent import __version__
from covent.core.lm_head.compiled import LARGE
from covent.provenance import commit

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "trl", "verl", "liger-kernel", "triton")
MIB = 2**20


ERROR_CASE = Case(LARGE // 32_768, 128, 32_768, "bfloat16")
"""Just large enough for the epilogue in C."""
SWEPT = ("covent, low memory, C", "covent, 512 MiB budget, C", "naive")
NAIVE_LIMIT = 4096
"""Tokens beyond which all logits at once would not fit an ordinary machine."""


def chosen(case: Case) -> dict[str, Variant]:
    """Variants that are there, take this dtype and are quick enough for this size."""
    dtype, num_logits = getattr(torch, case.dtype), case.num_tokens * case.vocabulary
    fitting = {name: each for name, each in VARIANTS.items() if dtype in each.only and num_logits <= each.largest}
    return {name: variant for name, variant in fitting.items() if variant.is_there}


def times(case: Case, repeats: int) -> dict[str, list[float]]:
    """CPU seconds of each variant, in turns, after a small call that loads and builds what it needs."""
    inputs, small = Inputs.of(case), Inputs.of(Case(300, case.width, 1 << 16, case.dtype))
    calls: dict[str, Callable[[], Any]] = {"floor": floor(inputs.hidden, inputs.weight)}
    turns = {"floor": repeats}
    for name, variant in chosen(case).items():
        variant.step(*small)
        calls[name], turns[name] = _step(variant, inputs), min(repeats, variant.turns)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(1, repeats + 1):
        for name, call in calls.items():
            if turn <= turns[name]:
                start = time.process_time()
                call()
                seconds[name].append(round(time.process_time() - start, 4))
        print(f"turn {turn} of {repeats}", file=sys.stderr, flush=True)
    return seconds


def _step(variant: Variant, inputs: Inputs) -> Callable[[], Any]:
    return lambda: variant.step(*inputs)


def peak_of_fresh_process(case: Case, name: str) -> int:
    """MiB that a call adds to the peak of a process that has just the inputs."""
    words = [sys.executable, __file__, "--memory", json.dumps([*case[:4], name])]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def memory_here(case: Case, name: str) -> int:
    """The same for this process, which must have done nothing else. A small call loads the libraries first."""
    VARIANTS[name].step(*Inputs.of(Case(8, case.width, 64, case.dtype)))
    inputs = Inputs.of(case)
    if platform.libc_ver()[0] == "glibc":
        # Freed memory that the allocator still holds would hide as much of the call's own.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    VARIANTS[name].step(*inputs)
    return round((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def output_mib(case: Case) -> float:
    """Both gradients, log-probs and entropies."""
    itemsize = getattr(torch, case.dtype).itemsize
    return ((case.vocabulary + case.num_tokens) * case.width * itemsize + 8 * case.num_tokens) / MIB


def errors(case: Case) -> dict[str, dict[str, float]]:
    """Relative errors against float64, by norm, of both values and of each one's gradient of the hidden states."""
    inputs = Inputs.of(case)
    exact = Inputs(*(part.detach().double() if part.is_floating_point() else part for part in inputs))
    truth = dict(_parts(VARIANTS["naive"].function, exact, torch.float64))
    found: dict[str, dict[str, float]] = {}
    for name, variant in chosen(case).items():
        variant.step(*inputs)
        parts = _parts(variant.function, inputs, inputs.hidden.dtype)
        found[name] = {part: float((value.double() - truth[part]).norm() / truth[part].norm()) for part, value in parts}
    return found


def _parts(function: Callable[..., Any], inputs: Inputs, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for number, name in enumerate(("log-prob", "entropy")):
        hidden = inputs.hidden.detach().clone().requires_grad_()
        value = function(hidden, inputs.weight.detach().clone().requires_grad_(), inputs.tokens)[number]
        if value is not None:
            (inputs.upstream[number].to(value.dtype) * value).sum().backward()
            yield name, value.detach()
            yield f"gradient of {name}", hidden.grad


def run(name: str, case: Case, repeats: int) -> dict[str, Any]:
    """Everything about one case."""
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "case": {"name": name, **case._asdict()},
        "command": "benchmarks/lm_head.py --case " + name,
        "commit": commit(),
        "hardware": hardware(),
        "versions": {"covent": __version__, **{package: _version(package) for package in PACKAGES}},
        "not_installed": [each for each, variant in VARIANTS.items() if not variant.is_there],
    }
    if case.sweep:
        sizes = {size: case._replace(num_tokens=size) for size in case.sweep}
        return result | {
            "output_mib": {size: round(output_mib(each)) for size, each in sizes.items()},
            "peak_mib": {
                variant: {
                    size: peak_of_fresh_process(each, variant)
                    for size, each in sizes.items()
                    if variant != "naive" or size <= NAIVE_LIMIT
                }
                for variant in SWEPT
            },
        }
    result |= {"error_case": ERROR_CASE._replace(dtype=case.dtype)._asdict()}
    result["errors"] = errors(ERROR_CASE._replace(dtype=case.dtype))
    result |= {"repeats": repeats, "seconds": times(case, repeats)}
    result["output_mib"] = round(output_mib(case))
    result["peak_mib"] = {variant: peak_of_fresh_process(case, variant) for variant in chosen(case)}
    return result


def hardware() -> dict[str, Any]:
    """What a reader needs to judge the times."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "threads": 1, "avx512_bf16": "avx512_bf16" in flags, "system": platform.system()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Median time of each variant by the floor's."""
    medians = {name: statistics.median(seconds) for name, seconds in result["seconds"].items()}
    return {name: median / medians["floor"] for name, median in medians.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="bf16")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="print docs/performance.md from the committed results")
    arguments = parser.parse_args()
    if arguments.memory:
        *size, name = json.loads(arguments.memory)
        torch.set_num_threads(1)
        print(memory_here(Case(*size), name))
    elif arguments.page:
        from lm_head_page import page

        print(page(RESULTS), end="")
    else:
        result = run(arguments.case, CASES[arguments.case], arguments.repeats)
        target = arguments.json or RESULTS / f"lm_head_{arguments.case}.json"
        target.write_text(json.dumps(result, indent=1) + "\n")
        if "seconds" in result:
            for name, ratio in ratios(result).items():
                print(f"{name:<28} {ratio:6.2f} x the floor")
        else:
            print(json.dumps(result["peak_mib"]))


if __name__ == "__main__":
    main()
