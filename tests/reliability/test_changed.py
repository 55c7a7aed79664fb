"""Resumed under other settings, data, weights, hardware or versions: refused by name, or allowed and recorded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from covent.cli.main import main
from covent.errors import ChangedRunError, ConfigError, CoventError
from covent.store import checkpoint
from covent.store.reader import read_resumes, read_run
from covent.tasks import ClockTask, Problem
from covent.train import resume as resuming
from covent.train import setup
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from covent.train.setup import settings_by_name
from tests.support.figures import figure
from tests.support.interrupted import differences, folder_bytes, settings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(settings(steps=2), source="test"), folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The run as it was killed after its first step."""
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / checkpoint.FOLDER / "00003-step-2")
    (folder / "status.json").unlink()
    return folder


def changed_settings(given: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """For every setting, its dotted name and another value of its kind."""
    for name, value in given.items():
        if isinstance(value, dict):
            yield from changed_settings(value, f"{prefix}{name}.")
        elif isinstance(value, bool):
            yield prefix + name, not value
        elif isinstance(value, int):
            yield prefix + name, value + 1
        elif isinstance(value, float):
            yield prefix + name, value * 0.75 or 0.5
        elif isinstance(value, str):
            yield prefix + name, OTHER_WORDS.get(prefix + name, "another")
        elif value is None:
            yield prefix + name, OTHER_WORDS.get(prefix + name, 1)
        elif name == "betas":
            yield prefix + name, [0.8, 0.9]
        else:
            yield prefix + name, [{"type": "ppo_clip"}]


OTHER_WORDS = {
    "device": "auto",
    "dtype": "float64",
    "task.name": "grid",
    "task.preset": "hard",
    "rollout.group_filter": "mixed",
    "scale_rewards": "none",
    "loss_mode": "cispo",
    "loss_agg_mode": "token-sum",
    "stop_when_gain_below": 0.5,
    "model.path": "somewhere",
}
EVERY_SETTING = dict(changed_settings(parse_config(settings(steps=2), source="test").model_dump(mode="json")))
SHORT = ("seed", "threads", "optimizer.lr", "checkpoint.keep")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in SHORT else pytest.mark.slow) for n in EVERY_SETTING])
def test_each_changed_setting_is_refused(name: str, run: Path) -> None:
    given = yaml.safe_load((run / "config.yaml").read_text())
    place = given
    *sections, last = name.split(".")
    for section in sections:
        place = place[section]
    before, place[last] = place[last], EVERY_SETTING[name]
    assert before != place[last]
    (run / "config.yaml").write_text(yaml.safe_dump(given))
    files = folder_bytes(run / checkpoint.FOLDER)
    # Some values are refused for themselves, before they are compared.
    with pytest.raises(CoventError) as refused:
        resume(run)
    assert name.split(".")[-1] in str(refused.value) or isinstance(refused.value, ConfigError)
    assert folder_bytes(run / checkpoint.FOLDER) == files
    assert not read_resumes(run)
    figure(15, f"{{count}} of {len(EVERY_SETTING)} settings changed, 0 silent")


def other_data(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = ClockTask.draw

    def other(self: ClockTask, rng: Any) -> Problem:
        problem = draw(self, rng)
        return Problem(problem.prompt, "0")

    monkeypatch.setattr(ClockTask, "draw", other)


VERSIONS = setup._versions()


def other_version(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "_versions", lambda: {**VERSIONS, name: "0.0"})


OTHER_WORLDS: dict[str, Any] = {
    "data": other_data,
    "hardware": lambda patch: patch.setattr(setup, "_hardware", lambda device: "CPU of another kind"),
    "weights": lambda patch: patch.setattr("covent.train.state.weights_hash", lambda model: "other weights"),
    **{f"versions.{name}": partial(other_version, name) for name in VERSIONS},
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "data" else pytest.mark.slow) for n in OTHER_WORLDS])
def test_another_world_is_refused_or_allowed_by_name(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OTHER_WORLDS[name](monkeypatch)
    with pytest.raises(ChangedRunError, match=rf"(?s)\n  {name}: .* -> .*--allow {name}"):
        resume(run)
    resume(run, allow=[name])
    (row,) = read_resumes(run)
    assert list(row.changes) == [name]
    assert any("resumed with changes" in note for note in read_run(run).notes)
    figure(15, f"{{count}} of {len(OTHER_WORLDS)} other worlds refused with a diff, and recorded once allowed")


def test_a_setting_on_the_command_line_must_be_allowed_by_name(run: Path) -> None:
    with pytest.raises(ChangedRunError, match="steps: 2 -> 3"):
        resume(run, ["steps=3"])
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        resume(run, ["steps=3"], allow=["stpes"])
    resume(run, ["steps=3"], allow=["steps"])
    assert len(read_run(run).steps) == 3
    assert read_run(run).header.config["steps"] == 3
    assert read_resumes(run)[-1].changes == {"steps": ("2", "3")}


def test_a_change_that_was_allowed_stays_allowed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after the change was recorded, before any checkpoint was written under it."""
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(resuming.Session, "run", lambda self: 1 / 0)
        resume(run, ["optimizer.lr=0.02"], allow=["optimizer"])
    resume(run)
    assert len(read_run(run).steps) == 2
    # The control: it is this change alone that is allowed.
    shutil.rmtree(checkpoint.numbered(run / checkpoint.FOLDER)[0])
    (run / "status.json").unlink()
    with pytest.raises(ChangedRunError):
        resume(run, ["optimizer.lr=0.03"])


def test_all_conditions_have_a_name_that_can_be_allowed(whole: Path) -> None:
    conditions = settings_by_name(read_run(whole).header.config)
    assert set(EVERY_SETTING) - {"control"} <= set(conditions)


def test_a_finished_run_is_left_alone(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = folder_bytes(whole)
    for _ in range(3):
        assert main(["resume", str(whole)]) == 0
        assert "had finished; nothing was done" in capsys.readouterr().out
    assert folder_bytes(whole) == before
    figure(16, "3 of 3 calls: 0 steps, folder byte-identical")


def test_one_that_can_go_on_does(run: Path, whole: Path) -> None:
    """The control of all refusals above."""
    resume(run)
    assert differences(whole, run) == []
