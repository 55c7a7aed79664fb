"""What tests written in Python show when they are read and not run: whether they assert anything, and which functions
they call."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

from covent.errors import DataError

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_BY_NAME = {"globals", "locals", "vars", "eval", "exec", "getattr"}
"""Whoever uses one of these can call anything."""


def parsed(cases: Sequence[str]) -> list[ast.Module]:
    """Raises: DataError: not Python."""
    try:
        return [ast.parse(case) for case in cases]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DataError(f"a test is not Python: {error}") from error


def defines(cases: Sequence[ast.Module], name: str) -> bool:
    """Whether one of the tests defines a function of this name."""
    return any(isinstance(node, ast.FunctionDef) and node.name == name for case in cases for node in case.body)


def refuse_without_assertion(cases: Sequence[ast.Module]) -> None:
    """Tests that assert nothing would pass every program.

    Raises: DataError: a comparison that nothing looks at, or no assertion in what the tests run: outside functions, and
        in functions and classes that they use.
    """
    for case in cases:
        for statement in case.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Compare):
                raise DataError(f"a test only compares, and asserts nothing: {ast.unparse(statement)[:80]}")
    if any(map(_asserts, _run_nodes(cases))):
        return
    if defines(cases, "check"):
        raise DataError(
            "the tests define 'check' and never call it, or it asserts nothing; entry_point names what it is for"
        )
    raise DataError("the tests assert nothing, and every program would pass them")


def _asserts(node: ast.AST) -> bool:
    """`assert`, `raise`, and calls such as `assert_allclose(…)` or `case.assertEqual(…)`."""
    if isinstance(node, ast.Call):
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        return name.startswith("assert")
    return isinstance(node, ast.Assert | ast.Raise)


def _run_nodes(cases: Sequence[ast.Module]) -> Iterator[ast.AST]:
    """The nodes of what is run: not of functions and classes whose names nothing that is run has."""
    todo: list[ast.AST] = list(cases)
    waiting: dict[str, list[ast.AST]] = {}
    used: set[str] = set()
    while todo:
        node = todo.pop()
        if isinstance(node, _Definition) and not node.decorator_list and node.name not in used and not used & _BY_NAME:
            waiting.setdefault(node.name, []).append(node)
            continue
        yield node
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        if name and name not in used:
            used.add(name)
            todo += waiting.pop(name, [])
            if name in _BY_NAME:
                todo += [each for nodes in waiting.values() for each in nodes]
                waiting.clear()
        inside = isinstance(node, ast.ClassDef)
        for child in ast.iter_child_nodes(node):
            # Who uses a class may call all its methods.
            todo += ast.iter_child_nodes(child) if inside and isinstance(child, _Definition) else [child]


def refuse_unknown_modules(cases: Sequence[ast.Module]) -> None:
    """Tests that use a module and import it nowhere would fail every program.

    Raises: DataError: an attribute of a name that is neither defined nor imported.
    """
    nodes = [node for case in cases for node in ast.walk(case)]
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in nodes):
        return
    unknown = set(called_names(cases))
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in unknown:
            raise DataError(
                f"the tests use {ast.unparse(node)[:80]}, and neither define nor import '{node.value.id}'; imports go"
                " into the tests, or into test_imports or test_setup_code beside test_list"
            )


def called_names(cases: Sequence[ast.Module]) -> list[str]:
    """The names that tests use and do not define: the program's functions."""
    used: set[str] = set()
    bound = set(dir(builtins))
    for node in (node for case in cases for node in ast.walk(case)):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
    return sorted(used - bound)
