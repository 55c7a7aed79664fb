"""Every name that a person can type, with each single slip of the finger: refused, and the right one is suggested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from covent.cli.main import main
from covent.errors import ConfigError, CoventError
from covent.train import config_file
from covent.train.config import TrainConfig
from covent.train.config_file import load_config, parse_config
from tests.support.figures import figure


def typos(name: str) -> list[str]:
    """A letter left out, doubled, swapped with the next, or another in its place, at each position."""
    found = []
    for i, letter in enumerate(name):
        other = "z" if letter != "z" else "y"
        found += [name[:i] + name[i + 1 :], name[:i] + letter + name[i:], name[:i] + other + name[i + 1 :]]
        found.append(name[:i] + name[i : i + 2][::-1] + name[i + 2 :])
    return list(dict.fromkeys(typo for typo in found if typo not in ("", name)))


def tagged(section: str) -> Iterator[tuple[dict[str, Any], type[BaseModel]]]:
    """The tag that selects each kind of a section, with its settings."""
    ((tag, _),) = config_file._DEFAULT_TAGS[section].items()
    for name, model in config_file._models_by_tag(config_file._SECTIONS[section]).items():
        yield {tag: name}, model


def every_name() -> list[tuple[str, dict[str, Any], str, frozenset[str]]]:
    """Section ("" for none), what else must stand in it, the name of a setting, and all names there."""
    found = []
    for name, field in TrainConfig.model_fields.items():
        found.append(("", {}, name, frozenset(TrainConfig.model_fields)))
        kind = field.annotation
        if name in config_file._DEFAULT_TAGS:
            kinds = list(tagged(name))
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            kinds = [({}, kind)]
        else:
            continue
        for tag, model in kinds:
            names = frozenset(model.model_fields)
            found += [(name, tag, each, names) for each in names if each not in tag]
    return sorted(found, key=str)


def said_in_the_file(section: str, tag: dict[str, Any], typo: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse_config({section: {**tag, typo: 1}} if section else {typo: 1}, source="file")
    return str(refused.value)


def said_on_the_command_line(section: str, tag: dict[str, Any], typo: str, path: Path) -> str:
    prefix = f"{section}." if section else ""
    words = [f"{prefix}{name}={value}" for name, value in tag.items()]
    with pytest.raises(ConfigError) as refused:
        load_config(path, [*words, f"{prefix}{typo}=1"])
    return str(refused.value)


@pytest.mark.parametrize("every", [pytest.param(97, id="short"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_each_typo_of_each_setting_is_refused(every: int, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 0\n")
    names = every_name()
    tried = right = 0
    cases = [(*each, typo) for each in names for typo in typos(each[2]) if typo not in each[3]]
    for section, tag, name, _, typo in cases[::every]:
        for said in (
            said_in_the_file(section, tag, typo),
            said_on_the_command_line(section, tag, typo, path),
        ):
            assert re.search(rf"unknown setting '{re.escape(f'{section}.{typo}'.lstrip('.'))}'", said), said
            tried += 1
            right += f"Did you mean '{name}'?" in said
    assert right / tried > 0.9
    figure(
        31,
        f"{tried} of {tried} typos of {len(names)} settings, in a file and on the command line: refused; the right name"
        f" suggested in {right / tried:.1%}",
    )


def every_option() -> list[tuple[str, str]]:
    from covent.cli.main import Command
    from covent.cli.options import _options

    return [(each.__name__.lower(), option) for each in get_args(Command) for option in _options(each)]


@pytest.mark.parametrize("every", [pytest.param(37, id="short"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def test_each_typo_of_each_option_is_refused(every: int, capsys: pytest.CaptureFixture[str]) -> None:
    options = every_option()
    commands = sorted({command for command, _ in options})
    cases = [([typo], name) for name in commands for typo in typos(name) if typo not in commands]
    for command, option in options:
        known = [name for other, name in options if other == command]
        for typo in typos(option.removeprefix("--")):
            # A slip that leaves no dash is a word, and `-` begins an option of one letter: other mistakes.
            if f"--{typo}".replace("_", "-") not in known and not typo.startswith("-"):
                cases.append(([command, f"--{typo}"], option))
    tried = right = 0
    for words, name in cases[::every]:
        with pytest.raises(SystemExit) as refused:
            main(words)
        assert refused.value.code == 2, words
        tried += 1
        right += f"Did you mean '{name}'?" in capsys.readouterr().err
    assert right / tried > 0.9
    figure(
        31,
        f"{tried} of {tried} typos of {len(commands)} commands and their {len(options)} options: exit code 2; the right"
        f" name suggested in {right / tried:.1%}",
    )


def test_the_exit_code_is_that_of_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("optimizer:\n  lrr: 0.1\n")
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "Did you mean 'lr'?" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_names_without_a_slip_are_known() -> None:
    """The negative control: the same words without a typo are not called unknown."""
    for section, tag, name, _ in every_name():
        try:
            parse_config({section: {**tag, name: 1}} if section else {name: 1}, source="file")
        except CoventError as error:
            assert "unknown setting" not in str(error)
