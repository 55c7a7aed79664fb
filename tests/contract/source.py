"""The project as text and syntax trees: what the contract tests read."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "covent"


@dataclass(frozen=True)
class Module:
    """A Python file of the project, or a made-up one in a negative control."""

    name: str
    """Dotted name, for example `covent.law.curve`."""
    text: str

    @property
    def layer(self) -> str:
        """The part of covent it belongs to: `law` for `covent.law.curve`, empty for `covent` itself."""
        return [*self.name.split("."), ""][1]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


def modules() -> list[Module]:
    """Every module of covent, in order of name."""
    return [Module(_dotted(path), path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))]


def benchmark(name: str) -> ModuleType:
    """A script of `benchmarks/` as a module; it does nothing when imported."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
