"""`covent doctor`: one block to paste into a question or a bug report."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covent import __version__
from covent.cli.extras import EXTRAS
from covent.cli.output import Outcome, Output

if TYPE_CHECKING:
    from torch import Tensor

_LIBRARIES = ("numpy", "pydantic", "plotly", "safetensors", *EXTRAS["train"])
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# A demo writes about 0.1 GB; below this the next run may not fit.
_LITTLE_DISK_GB = 1.0
# Largest difference of two float64 products of 64 x 64 standard normal numbers: rounding is near 1e-14.
_PRODUCT_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Doctor:
    """Print versions, threads, GPU and disk, and check that what is installed works. Exit code 1 if it does not."""

    verl: bool = False
    """Look inside verl too: whether it has covent's losses and trainer. verl hides a plugin that fails."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Look at everything, and judge only what is installed."""
        libraries = {name: _version(name) for name in _LIBRARIES}
        facts: dict[str, Any] = {**_machine(), **libraries}
        problems = below_floor(libraries, _floors())
        if all(libraries[name] for name in EXTRAS["train"]):
            facts |= _torch_facts()
            problems += _self_check()
        if self.verl:
            inside = _inside_verl()
            facts |= inside[0]
            problems += inside[1]
        if facts["disk_free_gb"] < _LITTLE_DISK_GB:
            problems.append(f"less than {_LITTLE_DISK_GB:g} GB of disk is free here; make room or pass --out")
        output.say(_block(facts, problems))
        return Outcome({"facts": facts, "problems": problems, "healthy": not problems}, exit_code=1 if problems else 0)


def _machine() -> dict[str, Any]:
    from covent.provenance import commit

    threads = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}
    return {
        "covent": __version__,
        "commit": commit(),
        "python": f"{platform.python_version()} at {sys.executable}",
        "platform": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "thread_variables": ", ".join(f"{name}={value}" for name, value in threads.items()) or "none set",
        "gpu": _gpu(),
        "programs": _isolation(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
    }


def _version(library: str) -> str | None:
    # Imported here: with what it loads in turn it would be a fifth of the time of `covent --help`.
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _gpu() -> str:
    """The first GPU as its driver sees it, whether or not torch can use it."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return "unknown (nvidia-ml-py is not installed)"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return f"none ({error})"
    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory_gb = pynvml.nvmlDeviceGetMemoryInfo(device).total / 1e9
        name, driver = pynvml.nvmlDeviceGetName(device), pynvml.nvmlSystemGetDriverVersion()
        return f"{name}, {memory_gb:.0f} GB, driver {driver} ({pynvml.nvmlDeviceGetCount()} in all)"
    finally:
        pynvml.nvmlShutdown()


def _isolation() -> str:
    """Whether programs of a code task can run here, as a program that tries to get out has shown."""
    from covent.errors import IsolationError
    from covent.verifiers.sandbox import Sandbox
    from covent.verifiers.settings import VerifierSettings

    sandbox = Sandbox(VerifierSettings())
    try:
        sandbox.start()
    except IsolationError as error:
        return f"cannot be isolated: {error.cause}"
    finally:
        sandbox.close()
    lacks = f", without a filter of system calls ({sandbox.no_filter})" if sandbox.no_filter else ""
    return f"isolated by {sandbox.route}{lacks}"


def _torch_facts() -> dict[str, Any]:
    import torch

    return {
        "torch_threads": torch.get_num_threads(),
        "torch_gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no",
    }


def _self_check() -> list[str]:
    """What is wrong with torch on the devices of this machine."""
    import torch

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [problem for device in devices for problem in product_problems(device, torch.matmul)]


def product_problems(device: str, product: Callable[[Tensor, Tensor], Tensor]) -> list[str]:
    """What is wrong with a matrix product: it must repeat bit for bit and agree with numpy.

    Args:
        device: where to try it, `cpu` or `cuda`.
        product: the product, `torch.matmul` outside tests.
    """
    import numpy as np
    import torch

    matrix = np.random.default_rng(0).standard_normal((64, 64))
    tensor = torch.from_numpy(matrix).to(device)
    once, again = product(tensor, tensor), product(tensor, tensor)
    problems = []
    if not torch.equal(once, again):
        problems.append(f"torch on {device}: the same matrix product came out differently twice")
    if not np.allclose(once.cpu().numpy(), matrix @ matrix, rtol=0, atol=_PRODUCT_TOLERANCE):
        problems.append(f"torch on {device}: a float64 matrix product is wrong; reinstall torch for this machine")
    return problems


def _inside_verl() -> tuple[dict[str, Any], list[str]]:
    """Facts and problems of verl; it needs torch."""
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return {}, ["torch is not installed, so verl cannot be: pip install 'covent[verl]'"]
    from covent.integrations.verl.doctor import verl_facts, verl_problems

    return verl_facts(), verl_problems()


def _floors() -> dict[str, str]:
    """The lowest version that covent accepts, by library; empty when covent is not installed but only on the path."""
    from importlib import metadata

    try:
        requirements = metadata.requires("covent") or []
    except metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement) for requirement in requirements)
    return {match[1]: match[2] for match in matches if match}


def below_floor(versions: Mapping[str, str | None], floors: Mapping[str, str]) -> list[str]:
    """Installed libraries that are too old, as sentences.

    Example:
        >>> below_floor({"torch": "2.9.1+cpu", "numpy": "2.4.6", "plotly": None}, {"torch": "2.10", "plotly": "6.1"})
        ["torch 2.9.1+cpu is too old; covent needs 2.10: pip install -U 'torch>=2.10'"]
    """
    return [
        f"{name} {version} is too old; covent needs {floors[name]}: pip install -U '{name}>={floors[name]}'"
        for name, version in versions.items()
        if version and name in floors and _release(version) < _release(floors[name])
    ]


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version.split("+")[0])]
    return tuple([*numbers, 0, 0, 0][:3])


def _block(facts: Mapping[str, Any], problems: list[str]) -> str:
    width = max(map(len, facts))
    missing = {name: "not installed (pip install 'covent[train]')" for name in EXTRAS["train"]}
    lines = [
        f"{name:<{width}}  {missing.get(name, 'none') if value is None else value}" for name, value in facts.items()
    ]
    verdict = [f"problem: {problem}" for problem in problems] or ["everything that is installed works"]
    return "\n".join([*lines, *verdict])
