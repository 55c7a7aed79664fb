"""A run that is stopped anywhere and taken up again is the run that was never stopped: every weight, every row."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covent import controls, stopping
from covent.errors import CoventError
from covent.law import Forecaster
from covent.stopping import Stopped
from covent.store import checkpoint
from covent.store.reader import read_run
from covent.train.config import TrainConfig
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from covent.train.state import Position, RunState
from tests.support.figures import figure
from tests.support.interrupted import MODES, differences, settings

poll = stopping.poll


def run(folder: Path, **config: Any) -> Path:
    train(parse_config(config, source="test"), folder)
    return folder


def needs_its_extra(mode: str) -> None:
    if mode == "lora":
        pytest.importorskip("peft", reason="needs the lora extra")


def stop_at(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Ask to stop, as SIGTERM does, at a poll; the list grows by one with each poll."""
    seen: list[int] = []

    def counted() -> None:
        seen.append(1)
        if len(seen) == number:
            stopping.ask(signal.SIGTERM)
        poll()

    monkeypatch.setattr(stopping, "poll", counted)
    return seen


def stopped(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int, **config: Any) -> Path:
    """A run that was stopped at a poll; without run.json if it had not begun."""
    stop_at(monkeypatch, number)
    with pytest.raises(Stopped):
        run(folder, **config)
    monkeypatch.setattr(stopping, "poll", poll)
    return folder


def num_polls(monkeypatch: pytest.MonkeyPatch, folder: Path, **config: Any) -> int:
    seen = stop_at(monkeypatch, 0)
    run(folder, **config)
    monkeypatch.setattr(stopping, "poll", poll)
    return len(seen)


def resumed_differently(
    monkeypatch: pytest.MonkeyPatch, whole: Path, folder: Path, number: int, mode: str
) -> list[str]:
    """How a run that is stopped at a poll and taken up differs from the whole one."""
    stopped(monkeypatch, folder, number, **settings(mode))
    if not (folder / "run.json").exists():
        return differences(whole, run(folder, **settings(mode)))
    assert read_run(folder).status.state == "interrupted"
    assert resume(folder)
    return differences(whole, folder)


def test_stopped_at_some_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of: warm start, generation, verification, evaluation, measurement, micro-batches."""
    mode = "everything remembered"
    total = num_polls(monkeypatch, tmp_path / "whole", **settings(mode))
    places = [2, total // 3, 2 * total // 3]
    found = {k: resumed_differently(monkeypatch, tmp_path / "whole", tmp_path / str(k), k, mode) for k in places}
    assert found == {place: [] for place in places}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_stopped_at_every_place(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_its_extra(mode)
    total = num_polls(monkeypatch, tmp_path / "whole", **settings(mode))
    different = {}
    places = range(1, total + 1, 1 if mode == "everything remembered" else 9)
    for place in places:
        if found := resumed_differently(monkeypatch, tmp_path / "whole", tmp_path / "part", place, mode):
            different[place] = found
        shutil.rmtree(tmp_path / "part")
    assert different == {}
    figure(6, f"{mode}: stopped at {len(places)} of {total} places, {len(places)} identical")


def after_step(whole: Path, folder: Path, step: int) -> Path:
    """The run as a process leaves it that dies when the checkpoint after a step is written."""
    shutil.copytree(whole, folder)
    for path in (folder / checkpoint.FOLDER).iterdir():
        if int(path.name.split("-")[2]) > step:
            shutil.rmtree(path)
    (folder / "status.json").unlink()
    shutil.rmtree(folder / "model")
    return folder


@pytest.mark.parametrize(
    ("num_steps", "mode"),
    [
        pytest.param(2, "refill", id="short"),
        pytest.param(2, "lora", id="short lora"),
        *(pytest.param(40, mode, marks=pytest.mark.slow) for mode in MODES),
    ],
)
def test_resumed_after_every_step(num_steps: int, mode: str, tmp_path: Path) -> None:
    needs_its_extra(mode)
    whole = run(tmp_path / "whole", **settings(mode, steps=num_steps, checkpoint={"keep": 1000}))
    different = {}
    for step in range(num_steps + 1):
        part = after_step(whole, tmp_path / "part", step)
        assert resume(part)
        if found := differences(whole, part):
            different[step] = found
        shutil.rmtree(part)
    assert different == {}
    figure(6, f"{{count}} of {len(MODES)} modes: resumed after each of {num_steps} steps, all identical")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_the_same_seed_is_the_same_run_and_another_is_not(mode: str, tmp_path: Path) -> None:
    needs_its_extra(mode)
    whole, again = (run(tmp_path / name, **settings(mode)) for name in ("whole", "again"))
    other = run(tmp_path / "other", **settings(mode, seed=1))
    assert differences(whole, again) == []
    assert {"final weights"} < set(differences(whole, other))
    figure(17, f"{{count}} of {len(MODES)} modes: same seed identical, other seed different")


FORGOTTEN_TENSORS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "optimizer": lambda found: found.update(optimizer={name: 0 * each for name, each in found["optimizer"].items()}),
    "old policy": lambda found: found.update(old=found["model"]),
    "reference policy": lambda found: found.update(reference=found["model"]),
    "old log-probs": lambda found: found["rollout"].update(old_logprobs=found["rollout"]["old_logprobs"] - 0.1),
    "probe states": lambda found: found["probes"].update(response_ids=found["probes"]["response_ids"].flip(0)),
}
"""Each puts what is at hand in the place of one thing to remember."""
FORGOTTEN_POSITION = ["step", "tested", "validated", "num_groups", "batches_done", "num_updates", "controls", "marks"]


def _forget(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the checkpoint's reader: one thing is as if it had not been saved."""
    if item == "forecast":
        monkeypatch.setattr(Forecaster, "recall", lambda self, entropies, accuracies: None)
        return
    whole = RunState.restore

    def restore(self: RunState, tensors: dict[str, Any], facts: dict[str, Any], config: TrainConfig) -> None:
        if item in FORGOTTEN_TENSORS:
            FORGOTTEN_TENSORS[item](tensors)
        elif item == "controls":
            first = Position(controls=controls.first_states(config.controls))
            facts["position"]["controls"] = json.loads(first.model_dump_json())["controls"]
        else:
            facts["position"].pop(item, None)
        whole(self, tensors, facts, config)

    monkeypatch.setattr(RunState, "restore", restore)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("whole") / "run", **settings())


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped after one of the two updates of rollout step 3, before which validation took place."""
    folder = tmp_path_factory.mktemp("part") / "run"

    def watched() -> None:
        if (folder / "updates.jsonl").is_file() and (folder / "updates.jsonl").read_bytes().count(b"\n") == 7:
            stopping.ask(signal.SIGTERM)
        poll()

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(stopping, "poll", watched)
        run(folder, **settings())
    assert checkpoint.numbered(folder / checkpoint.FOLDER)[0].name.endswith("step-3-update-1")
    return folder


@pytest.mark.parametrize("item", ["nothing", *FORGOTTEN_TENSORS, *FORGOTTEN_POSITION, "forecast"])
def test_one_forgotten_thing_is_caught(
    item: str, whole: Path, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of all tests above: the comparison sees each thing that a checkpoint holds."""
    folder = shutil.copytree(part, tmp_path / "part")
    _forget(item, monkeypatch)
    try:
        resume(folder)
        found = differences(whole, folder)
    except (CoventError, AssertionError, ValueError) as error:
        found = [str(error)]
    assert (found == []) == (item == "nothing")
