"""The base install works without torch, shown in a process where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

TORCH_FREE = [
    "covent.errors",
    "covent.provenance",
    "covent.readings",
    "covent.law",
    "covent.logs",
    "covent.store",
    "covent.report",
    "covent.tabular",
    "covent.tasks",
    "covent.verifiers",
]

# Refuses the libraries of the train extra, then imports a module with all that lies below it.
_IMPORT_WITHOUT_TORCH = """
import importlib, pkgutil, sys

optional = ("pyarrow", "math_verify", "reasoning_gym", "tensorboard", "wandb", "matplotlib", "scipy", "pynvml")

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "tokenizers", "jaxtyping", *optional):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
module = importlib.import_module(sys.argv[1])
for found in pkgutil.walk_packages(getattr(module, "__path__", []), module.__name__ + "."):
    importlib.import_module(found.name)
print(*sys.modules)
"""


def _import(name: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", _IMPORT_WITHOUT_TORCH, name], capture_output=True, text=True)


@pytest.mark.parametrize("name", [*TORCH_FREE, "covent.cli"])
def test_imports_without_torch(name: str) -> None:
    done = _import(name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["covent.core", "covent.train"])
def test_the_tensor_layers_do_need_it(name: str) -> None:
    done = _import(name)
    assert done.returncode != 0
    assert "No module named" in done.stderr


def test_covent_itself_imports_no_library() -> None:
    loaded = _import("covent.errors").stdout.split()
    assert "covent" in loaded
    assert not {"numpy", "pydantic", "rich", "plotly", "tyro"} & set(loaded)


def test_the_command_line_is_light_until_it_knows_the_command() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, covent.cli.main; print(*sys.modules)"], capture_output=True, text=True
    ).stdout.split()
    assert "tyro" in loaded
    assert not {"numpy", "pydantic", "plotly", "jinja2", "torch", "covent.store", "covent.report"} & set(loaded)
