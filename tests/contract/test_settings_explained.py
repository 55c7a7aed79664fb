"""Every setting that a user can write has a text under it; the README sends its readers there."""

from __future__ import annotations

import ast

from tests.contract.source import Module, modules

SETTINGS = ("covent.train.config", "covent.controls.", "covent.tasks.", "covent.verifiers.settings")
"""Modules whose pydantic models are settings."""


def unexplained(module: Module) -> list[str]:
    """`class.field` of each setting without a string under it; tags, which allow one value, explain themselves."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_") or not _is_model(node):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and not _is_tag(field) and not _is_text(after):
                found.append(f"{node.name}.{ast.unparse(field.target)}")
    return found


def _is_model(node: ast.ClassDef) -> bool:
    bases = {ast.unparse(base) for base in node.bases}
    return bool(bases & {"BaseModel", "_Settings", "TaskSettings", "ClipCov"}) and node.name != "TaskSettings"


def _is_tag(field: ast.AnnAssign) -> bool:
    return ast.unparse(field.target) in ("type", "name") and ast.unparse(field.annotation).startswith("Literal[")


def _is_text(node: ast.stmt | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_every_setting_is_explained_under_its_field() -> None:
    settings = [module for module in modules() if module.name.startswith(SETTINGS)]
    assert len(settings) > 10
    assert {module.name: gone for module in settings if (gone := unexplained(module))} == {}


def test_a_setting_without_a_text_is_found() -> None:
    text = 'class S(BaseModel):\n    a: int = 1\n    """Text."""\n    b: int = 2\n    c: int = 3\n    """Text."""'
    assert unexplained(Module("covent.train.config", text)) == ["S.b"]
