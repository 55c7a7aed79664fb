"""README, Makefile, CI and the dependency lists say the same thing."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import Any

import pytest

from covent.cli.extras import EXTRAS
from covent.cli.main import parse
from covent.cli.train import Train
from covent.train.config_file import load_config
from tests.contract.source import ROOT, modules

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TEST_COMMAND = "make test"


def commands(text: str) -> list[list[str]]:
    """The words of each command in a Markdown page's fenced blocks, comments and variable settings left out."""
    blocks = re.findall(r"^```(?:sh|bash)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def training_commands() -> list[list[str]]:
    """`covent train …` as the README and the comments of the recipes show it."""
    shown = [words for words in commands(README) if words[:2] == ["covent", "train"]]
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        lines = recipe.read_text(encoding="utf-8").splitlines()
        shown += [shlex.split(line.lstrip("# ")) for line in lines if line.startswith("#   covent train ")]
    return shown


def targets(makefile: str) -> set[str]:
    """The targets a person can name."""
    return {name for line in re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE) for name in line.split()}


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_readme_names_make_targets_that_exist() -> None:
    named = {words[1] for words in commands(README) if words[0] == "make"}
    assert {"demo", "test"} <= named <= targets(MAKEFILE)


@pytest.mark.parametrize("words", [words for words in commands(README) if words[0] == "covent"], ids=" ".join)
def test_the_readme_calls_covent_as_it_is(words: list[str]) -> None:
    parse(words[1:])


@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_every_training_command_that_is_shown_is_valid(words: list[str]) -> None:
    command = parse(words[1:])
    assert isinstance(command, Train)
    load_config(ROOT / command.config, list(command.settings))


def test_a_call_that_does_not_exist_is_caught() -> None:
    (words,) = commands("```sh\ncovent demo --stpes 3  # a slip\n```\n")
    with pytest.raises(SystemExit):
        parse(words[1:])


def test_files_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_runs_the_readmes_test_command() -> None:
    assert TEST_COMMAND.split() in commands(README)
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "not executable"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert "rm -rf .venv" in lines
    assert lines[-1] == TEST_COMMAND


def test_the_base_install_has_no_torch() -> None:
    base = {_distribution(requirement) for requirement in project()["dependencies"]}
    assert not base & {"torch", "transformers", "tokenizers", "jaxtyping", "scipy", "matplotlib"}


def test_the_base_install_has_no_upper_caps() -> None:
    assert [requirement for requirement in project()["dependencies"] if re.search("<|==|~=", requirement)] == []


def test_extras_that_errors_name_exist() -> None:
    texts = [module.text for module in modules()]
    named = {name for text in texts for name in re.findall(r"pip install 'covent\[(\w+)\]'", text)}
    named |= {name for text in texts for name in re.findall(r'missing_extra\("\w+", "(\w+)"', text)}
    named |= set(EXTRAS)
    assert {"train", "wandb"} <= named <= set(project()["optional-dependencies"])


def test_constraints_pin_what_make_installs_to_one_version() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) for line in lines), "no build labels"
    pinned = {_distribution(line) for line in lines}
    extras = re.findall(r"-c constraints.txt .* -e '\.\[(.*)\]'", MAKEFILE)[0]
    groups = [project()["dependencies"], *(project()["optional-dependencies"][extra] for extra in extras.split(","))]
    assert {_distribution(requirement) for group in groups for requirement in group} - pinned == set()


def _distribution(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[-_.]+", "-", name[0]).lower()
