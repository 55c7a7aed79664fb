"""The base install works without torch, shown in a process where torch cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TORCH_FREE = [
    "covent.errors",
    "covent.provenance",
    "covent.readings",
    "covent.law",
    "covent.lint",
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


_HEAVY = {"torch", "transformers", "plotly", "scipy", "matplotlib", "pandas", "pyarrow", "jinja2", "yaml"}
_LOG = Path(__file__).parents[1] / "logs" / "data" / "verl_console.log"


def _loaded_by(*words: str) -> set[str]:
    """What is loaded once a command has run."""
    code = "import sys; from covent.cli.main import main; assert main(sys.argv[1:]) == 0; print('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.partition("LOADED")[2].split())


@pytest.mark.parametrize("command", ["fit", "forecast", "explain"])
def test_a_command_on_a_text_log_loads_what_it_needs_and_no_more(command: str) -> None:
    loaded = _loaded_by(command, str(_LOG))
    assert "numpy" in loaded
    assert not _HEAVY & loaded


def test_only_a_plot_loads_the_library_that_draws_it(tmp_path: Path) -> None:
    assert _HEAVY & _loaded_by("fit", str(_LOG), "--plot", str(tmp_path / "law.html")) >= {"plotly"}
