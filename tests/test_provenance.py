"""The commit that a run header names is the one whose code ran."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from covent.provenance import commit


def _git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A checkout with one commit, and the package in it."""
    package = tmp_path / "src" / "covent"
    package.mkdir(parents=True)
    (package / "errors.py").write_text("# one\n")
    _git(tmp_path, "init", "--quiet")
    _git(tmp_path, "add", "src")
    _git(tmp_path, "commit", "--quiet", "--message", "one")
    return package


def test_a_clean_checkout_is_its_commit(package: Path) -> None:
    head = _git(package, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit(package) == head


def test_a_change_to_the_package_is_told(package: Path) -> None:
    (package / "errors.py").write_text("# two\n")
    assert commit(package) == _git(package, "rev-parse", "HEAD") + "+dirty"


def test_a_change_elsewhere_is_none(package: Path) -> None:
    (package.parents[1] / "notes.txt").write_text("mine\n")
    assert commit(package) == _git(package, "rev-parse", "HEAD")


def test_an_installation_inside_another_checkout_has_no_commit(package: Path) -> None:
    installed = package.parents[1] / ".venv" / "lib" / "site-packages" / "covent"
    installed.mkdir(parents=True)
    assert commit(installed) is None


def test_a_checkout_without_a_commit_has_none(tmp_path: Path) -> None:
    _git(tmp_path, "init", "--quiet")
    assert commit(tmp_path / "src" / "covent") is None
