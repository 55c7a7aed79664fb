"""docs/papers.md names functions and tests that exist, and leaves out no numbered equation."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.contract.source import ROOT

PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
LAYERS = "core|controls|tabular|law|logs|train|rollout|report|store|tasks"

# The softmax policy, between Eqs. 6 and 8, stands on the page under its section.
EQUATIONS = [*range(1, 7), *range(8, 15)]


def functions(text: str) -> list[str]:
    """Dotted names in backticks, below `covent.`."""
    return sorted(set(re.findall(rf"`((?:{LAYERS})(?:\.\w+)+)`", text)))


def exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(f"covent.{module}"), attribute)
    except ModuleNotFoundError:
        return False


def mentioned_equations(text: str) -> set[int]:
    cells = re.findall(r"^\| Eqs?\. ([\d, ]+)\|", text, flags=re.MULTILINE)
    return {int(number) for cell in cells for number in re.findall(r"\d+", cell)}


@pytest.mark.parametrize("name", functions(PAGE))
def test_functions_exist(name: str) -> None:
    assert exists(name)


def test_test_files_exist() -> None:
    files = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert len(files) > 10
    assert sorted(file for file in files if not (ROOT / file).is_file()) == []


def test_every_numbered_equation_has_a_row() -> None:
    assert mentioned_equations(PAGE) == set(EQUATIONS)


def test_a_name_that_does_not_exist_is_caught() -> None:
    wrong = functions("| `core.covariance.token_covarience`, `core.covarience.token_covariance` |")
    assert len(wrong) == 2
    assert not any(exists(name) for name in wrong)
