"""The public signatures of a layer as text, with the shapes of their tensors. Run it after a change that is meant:

    python -m tests.contract.signatures.freeze

Add a layer to `LAYERS` to freeze it. The diff of the text file then says what users will notice.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.contract.source import Module, modules

LAYERS = ("controls", "core", "tabular")
FOLDER = Path(__file__).parent


def signatures(module: Module) -> Iterator[str]:
    """A line for each public function, class, field and method of a module, as it is written."""
    for node in module.tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield f"{module.name}.{_signature(node)}"
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield f"{module.name}.{node.name}({', '.join(map(ast.unparse, node.bases))})"
            yield from (f"{module.name}.{node.name}.{line}" for line in _members(node))


def _members(node: ast.ClassDef) -> Iterator[str]:
    for member in node.body:
        if isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
            default = f" = {ast.unparse(member.value)}" if member.value else ""
            yield f"{ast.unparse(member.target)}: {ast.unparse(member.annotation)}{default}"
        elif isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            decorators = "".join(f"@{ast.unparse(decorator)} " for decorator in member.decorator_list)
            yield decorators + _signature(member)


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({ast.unparse(node.args)}){returns}"


def page(layer: str) -> str:
    """All signatures of a layer, one a line, in order. Modules inside a package are the package's own affair."""
    public = [module for module in modules() if module.layer == layer and module.name.count(".") <= 2]
    lines = sorted(line for module in public for line in signatures(module))
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for name in LAYERS:
        (FOLDER / f"{name}.txt").write_text(page(name), encoding="utf-8")
