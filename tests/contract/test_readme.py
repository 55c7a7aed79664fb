"""The README leads to every page of the documentation, and nowhere else."""

from __future__ import annotations

import re

from tests.contract.source import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def linked(text: str) -> set[str]:
    """The targets of a page's links that are files of the project."""
    return {target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target}


def test_every_page_is_linked() -> None:
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages and pages <= linked(README)
    assert not pages <= linked(README.replace("](docs/verl.md)", "")), "a page that nothing links to is found"


def test_every_link_leads_somewhere() -> None:
    assert [target for target in linked(README) if not (ROOT / target).exists()] == []


def test_the_tree_of_the_code_is_that_of_the_project() -> None:
    tree = README.split("## The code")[1].split("```")[1]
    told = set(re.findall(r"^\s*([\w.]+)/?  ", tree, flags=re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "src" / "covent").glob("*/__init__.py")} - {"integrations"}
    missing = (packages | {"benchmarks", "docs", "recipes", "tests"}) - told
    assert not missing
