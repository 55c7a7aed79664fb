"""Imports point down only, each layer uses only its own libraries, and torch stays where tensors are."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.contract.source import Module, modules


@dataclass(frozen=True)
class Layer:
    level: int
    """A layer imports from lower levels only; layers of one level do not know each other."""
    libraries: str
    """What it may import from outside the standard library."""
    optional: str = ""
    """What it may import inside functions only, where an error can name the extra."""


LAYERS = {
    "": Layer(0, ""),
    "errors": Layer(0, ""),
    "provenance": Layer(0, ""),
    "strict_yaml": Layer(0, "yaml"),
    "stopping": Layer(0, ""),
    "visible": Layer(0, ""),
    "readings": Layer(1, "pydantic"),
    "core": Layer(2, "torch jaxtyping triton"),
    "controls": Layer(3, "torch jaxtyping pydantic"),
    "tabular": Layer(3, "numpy"),
    "law": Layer(3, "numpy pydantic"),
    "store": Layer(3, "numpy pydantic filelock safetensors yaml"),
    "verifiers": Layer(2, "pydantic", optional="math_verify"),
    "tasks": Layer(3, "pydantic", optional="pyarrow reasoning_gym"),
    "trackers": Layer(4, "pydantic", optional="trackio wandb tensorboard"),
    "logs": Layer(4, "numpy pydantic yaml plotly", optional="pyarrow tensorboard wandb google matplotlib"),
    "lint": Layer(1, "yaml"),
    "rollout": Layer(4, "torch jaxtyping transformers tokenizers", optional="vllm"),
    "report": Layer(5, "numpy pydantic plotly jinja2 markupsafe yaml", optional="matplotlib"),
    "train": Layer(
        5, "torch jaxtyping transformers tokenizers numpy pydantic yaml rich filelock safetensors", optional="peft"
    ),
    "integrations": Layer(
        5, "torch jaxtyping transformers numpy pydantic yaml trl verl ray transfer_queue omegaconf tensordict"
    ),
    "cli": Layer(6, "tyro rich numpy torch pynvml"),
    "__main__": Layer(7, ""),
}
TENSOR_LAYERS = {"core", "controls", "rollout", "train", "integrations"}
HEAVY = {"torch", "transformers", "tokenizers", "jaxtyping", "trl", "verl"}
COMMAND_LINE = "covent.cli.main"


@dataclass(frozen=True)
class Import:
    target: str
    on_load: bool
    """Whether it runs when the module is imported: not inside a function, not only for type checkers."""


def imports(module: Module) -> Iterator[Import]:
    """Every import of a module, relative ones resolved."""

    def walk(node: ast.AST, on_load: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, on_load) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: relative import in line {node.lineno}; write the full name"
            source = node.module or ""
            submodules = source.startswith("covent") and source.count(".") == 0
            yield from (Import(f"{source}.{alias.name}" if submodules else source, on_load) for alias in node.names)
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        is_typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            yield from walk(child, on_load and not is_function and not is_typing)

    yield from walk(module.tree, on_load=True)


def loaded_with_the_command_line() -> set[str]:
    """The modules of the command line that are loaded before it knows the command: they must be light."""
    known = {module.name: module for module in modules()}
    loaded, waiting = set(), [COMMAND_LINE]
    while waiting:
        name = waiting.pop()
        loaded.add(name)
        found = {each.target for each in imports(known[name]) if each.on_load and each.target.startswith("covent.cli.")}
        waiting += sorted(found & set(known) - loaded)
    return loaded


LIGHT = loaded_with_the_command_line()


def violations(module: Module) -> list[str]:
    """What a module imports against the rules, as sentences."""
    assert module.layer in LAYERS, f"{module.name} belongs to no layer; add '{module.layer}' to LAYERS"
    return [
        f"{module.name} imports {found.target}: {reason}"
        for found in imports(module)
        if (reason := _objection(module, found))
    ]


def _objection(module: Module, found: Import) -> str:
    layer, early = module.layer, module.name in LIGHT and found.on_load
    package, _, rest = found.target.partition(".")
    if package != "covent":
        if package in sys.stdlib_module_names:
            return ""
        if package in LAYERS[layer].optional.split():
            return "an optional library belongs inside a function" if found.on_load else ""
        if package not in LAYERS[layer].libraries.split():
            return f"not a library of '{layer}'"
        return "imported before the command is known" if early and package != "tyro" else ""
    other = rest.split(".")[0]
    if other == layer or other.startswith("__"):
        return ""
    if other not in LAYERS:
        return f"'{other}' is no layer"
    if LAYERS[other].level >= LAYERS[layer].level:
        return "imports point down only"
    if other in TENSOR_LAYERS and layer not in TENSOR_LAYERS | {"cli"}:
        return "needs torch"
    return "imported before the command is known" if early and other not in ("errors", "stopping") else ""


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)
def test_imports_point_down(module: Module) -> None:
    assert violations(module) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("covent.law.curve", "import torch"),
        ("covent.law.curve", "from covent.store.reader import read_run"),
        ("covent.store.reader", "from covent import train"),
        ("covent.report.page", "from covent.train.run import train"),
        ("covent.report.page", "from covent.core import entropy"),
        ("covent.report.page", "def late():\n    from covent.cli import main"),
        ("covent.core.entropy", "import transformers"),
        ("covent.core.entropy", "from covent.controls.clip_cov import clip_cov"),
        ("covent.cli.main", "import torch"),
        ("covent.cli.main", "from covent.report.page import write_report"),
        ("covent.readings", "if TYPE_CHECKING:\n    from covent.store.schema import StepRow"),
        ("covent.law.curve", "import scipy.optimize"),
        ("covent.logs.parquet", "import pyarrow"),
    ],
)
def test_a_forbidden_import_is_caught(name: str, text: str) -> None:
    assert len(violations(Module(name, text))) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("covent.law.curve", "import math\nimport numpy as np\nfrom covent.errors import FitError"),
        ("covent.report.page", "from covent.store.reader import read_run\nfrom covent.report.figures import law"),
        ("covent.logs.parquet", "def read():\n    from pyarrow.parquet import read_table"),
        ("covent.train.loop", "import torch\nfrom covent.controls.clip_cov import clip_cov"),
        ("covent.cli.train", "from covent import __version__\ndef run():\n    from covent.train.run import train"),
    ],
)
def test_an_allowed_import_is_not(name: str, text: str) -> None:
    assert violations(Module(name, text)) == []


def test_the_commands_are_loaded_early_and_what_they_use_is_not() -> None:
    assert {"covent.cli.main", "covent.cli.demo", "covent.cli.train", "covent.cli.report", "covent.cli.doctor"} <= LIGHT
    assert not {"covent.cli.live", "covent.cli.summary"} & LIGHT


def test_triton_is_loaded_on_a_gpu_only() -> None:
    kernels = "covent.core.lm_head.kernels"
    found = [(module.name, each) for module in modules() for each in imports(module)]
    assert {name for name, each in found if each.target.split(".")[0] == "triton"} == {kernels}
    assert {name for name, each in found if each.target == kernels and each.on_load} == set()
    assert {name for name, each in found if each.target == kernels} == {"covent.core.lm_head.gpu"}


def test_the_libraries_of_torch_free_layers_are_not_heavy() -> None:
    for name, layer in LAYERS.items():
        if name not in TENSOR_LAYERS | {"cli"}:
            assert not HEAVY & set(layer.libraries.split()), name
