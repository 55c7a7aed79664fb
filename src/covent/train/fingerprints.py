"""Hashes of files that a run reads and does not hold: those beside a model's weights, and a reward function's code."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path

_CONFIG = ("config.json", "generation_config.json")
_TOKENIZER = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "chat_template*",
    "additional_chat_templates/*",
)


def config_hash(folder: Path) -> str:
    """Of what says how a model's weights are used."""
    return _files_hash(folder, (folder / name for name in _CONFIG))


def tokenizer_hash(folder: Path) -> str:
    """Of a model's tokenizer and chat templates."""
    return _files_hash(folder, (path for pattern in _TOKENIZER for path in folder.glob(pattern)))


def code_hash(file: Path) -> str:
    """Of a Python file and all that it imports from beneath its folder."""
    file = file.resolve()
    return _files_hash(file.parent, imported_files(file))


def imported_files(file: Path) -> set[Path]:
    """A Python file with the modules and packages beneath its folder that an import statement in it, or in one of
    these, can name. Imports inside functions count; what is imported by a computed name is not found."""
    folder, found, to_read = file.parent, set[Path](), [file]
    while to_read:
        path = to_read.pop()
        if path not in found:
            found.add(path)
            to_read += _imports(path, folder)
    return found


def _imports(path: Path, folder: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        # Nothing that it names can have been loaded by it.
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            module = node.module.split(".") if node.module else []
            # No dots: from the folder; one: from the file's own package; two: from the one above.
            for start in path.parents[node.level - 1 : node.level] if node.level else [folder]:
                if start.is_relative_to(folder):
                    package = [*start.relative_to(folder).parts, *module]
                    for alias in node.names:
                        yield from _module_files(folder, [*package, alias.name])


def _module_files(folder: Path, parts: list[str]) -> Iterator[Path]:
    """Of `a.b.c`: a, a.b and a.b.c, as far as they are there. The last may be a name inside a module."""
    for place in accumulate(parts, Path.joinpath, initial=folder):
        if place != folder:
            yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def _files_hash(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over names below the folder and contents, first 16 hex digits. What is not there does not count."""
    digest = hashlib.sha256()
    for path in sorted(files):
        if path.is_file():
            content = path.read_bytes()
            digest.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode())
            digest.update(content)
    return digest.hexdigest()[:16]
