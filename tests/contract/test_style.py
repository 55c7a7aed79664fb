"""Small files, short functions, documented names, and calls that covent does not make."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.contract.source import ROOT, Module, modules

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
BANNED_CALLS = {
    *("eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "os.system", "os.popen"),
    *("sympify", "sympy.sympify", "parse_expr", "sympy.parse_expr", "runpy.run_path", "__import__"),
}
BANNED_IMPORTS = {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "sympy", "runpy"}
IN_THE_SANDBOX = {"covent.verifiers.program_child": ["exec"]}
"""Programs of a code task are executed, in one place, which only processes in the sandbox import."""
ONLY_IN_THE_SANDBOX = {"covent.verifiers.jail", "covent.verifiers.program_tests"}
BANNED_PREFIXES = ("compute_", "get_")
BANNED_FILES = {"utils", "helpers", "common", "misc"}

every_module = pytest.mark.parametrize("module", modules(), ids=lambda module: module.name)


def banned(module: Module) -> list[str]:
    """Calls and imports that could run code from a file."""
    allowed = IN_THE_SANDBOX.get(module.name, [])
    found = [(node, name) for node, name in _calls_and_imports(module.tree) if _is_banned(name)]
    excess = found[len(allowed) :] if [name for _, name in found][: len(allowed)] == allowed else found
    return [f"{module.name}:{node.lineno} {name}" for node, name in excess]


def _calls_and_imports(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)
        elif isinstance(node, ast.Import):
            yield from ((node, f"import {alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node, f"import {node.module}"
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def _is_banned(name: str) -> bool:
    return name in BANNED_CALLS or name.removeprefix("import ").split(".")[0] in BANNED_IMPORTS


def undocumented(module: Module) -> list[str]:
    """The module, and its public classes and functions, that lack a docstring."""
    documented = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in module.tree.body if isinstance(node, documented) and not node.name.startswith("_")]
    names = [node.name for node in public if not ast.get_docstring(node)]
    return names if ast.get_docstring(module.tree) else [module.name, *names]


def long_functions(module: Module) -> list[str]:
    """Functions of more than `MAX_FUNCTION_LINES` lines, docstring not counted."""
    functions = [node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [node.name for node in functions if _body_lines(node) > MAX_FUNCTION_LINES]


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function):
        docstring = function.body[0]
        assert docstring.end_lineno
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def ill_named(module: Module) -> list[str]:
    """Functions named for the act of computing instead of the quantity, and files named for nothing."""
    functions = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef)]
    names = [name for name in functions if name.startswith(BANNED_PREFIXES)]
    return names + [part for part in module.name.split(".") if part in BANNED_FILES]


@every_module
def test_no_code_runs_from_data(module: Module) -> None:
    assert banned(module) == []


@every_module
def test_public_names_are_documented(module: Module) -> None:
    assert undocumented(module) == []


@every_module
def test_functions_are_short(module: Module) -> None:
    assert long_functions(module) == []


@every_module
def test_names_say_what_a_thing_is(module: Module) -> None:
    assert ill_named(module) == []


def test_files_are_short() -> None:
    files = [path for folder in ("src", "tests", "recipes") for path in (ROOT / folder).rglob("*.py")]
    long = [str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > MAX_FILE_LINES]
    assert long == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "from torch import load",
        *(f"{call}(text)" for call in sorted(BANNED_CALLS)),
    ],
)
def test_a_banned_call_is_caught(line: str) -> None:
    assert len(banned(Module("covent.made_up", line))) >= 1


def test_one_place_executes_programs_and_only_the_sandbox_imports_it() -> None:
    (place,) = IN_THE_SANDBOX
    (module,) = (module for module in modules() if module.name == place)
    assert banned(module) == []
    assert banned(Module(place, module.text + "\nexec(text)\n")) != [], "a second call is one too many"
    importers = {
        each.name for each in modules() if f"import {place}" in each.text or f"from {place} import" in each.text
    }
    assert importers == ONLY_IN_THE_SANDBOX
    reachable = {each.name for each in modules() for name in ONLY_IN_THE_SANDBOX if f"from {name} import" in each.text}
    assert reachable <= {*ONLY_IN_THE_SANDBOX, "covent.verifiers.sandbox"}


def test_a_harmless_namesake_is_not() -> None:
    assert banned(Module("covent.made_up", "model.eval(); yaml.safe_load(text); json.load(file)")) == []


def test_what_breaks_the_other_rules_is_caught() -> None:
    body = "\n".join(["    x = 1"] * MAX_FUNCTION_LINES)
    module = Module("covent.law.utils", f"def get_everything():\n{body}")
    assert undocumented(module) == ["covent.law.utils", "get_everything"]
    assert long_functions(module) == ["get_everything"]
    assert ill_named(module) == ["get_everything", "utils"]
