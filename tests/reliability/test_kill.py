"""SIGKILL at any moment, and at each single write: no human needed, nothing saved is lost, the end is the same."""

from __future__ import annotations

import random
import shutil
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from covent.store import checkpoint
from tests.support.dying import die_at, files, save_and_die
from tests.support.figures import figure
from tests.support.interrupted import call, differences, exit_code, recorded, settings, started, written

KILL_MODES = ["mini-batches", "clip_cov", "refill", "everything remembered"]


@dataclass
class Seen:
    """What happened to runs that were killed and taken up again without help."""

    kills: int = 0
    redone: list[int] = field(default_factory=list)
    """Rollout steps that were in the rows but in no checkpoint when a process was killed."""
    different: list[str] = field(default_factory=list)
    rows: int = 0


def log_of(folder: Path) -> str:
    return (folder / "log").read_text()[-3000:]


def whole_run(folder: Path, mode: str) -> tuple[Path, float]:
    """The run that nobody kills, and its wall time."""
    config = written(folder, **settings(mode))
    # The first process of all waits for libraries to load.
    assert exit_code(started(call, ["--version"], folder / "log")) == 0
    start = time.monotonic()
    process = started(call, ["train", str(config), "--out", str(folder / "whole")], folder / "log")
    assert exit_code(process) == 0, log_of(folder)
    return folder / "whole", time.monotonic() - start


def next_words(folder: Path, run: Path) -> list[str]:
    """What a restart script calls: resume what has begun, begin what has not."""
    if (run / "run.json").exists():
        return ["resume", str(run)]
    return ["train", str(folder / "config.yaml"), "--out", str(run)]


def kill_and_resume(folder: Path, whole: Path, longest_s: float, chance: random.Random, kills: int, seen: Seen) -> None:
    """Kill a run, and the processes that take it up, at random moments; then let it end."""
    run = folder / "run"
    for _ in range(kills):
        process = started(call, next_words(folder, run), folder / "log")
        process.join(chance.uniform(0, longest_s))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), log_of(folder)
        seen.kills += process.exitcode != 0
        found = checkpoint.numbered(run / checkpoint.FOLDER)
        steps = run / "steps.jsonl"
        if steps.exists():
            # A checkpoint that has its name is whole, and at most one rollout step is not in it.
            checkpoint.opened(found[0])
            seen.redone.append(steps.read_bytes().count(b"\n") - int(found[0].name.split("-")[2]))
    assert exit_code(started(call, next_words(folder, run), folder / "log")) == 0, log_of(folder)
    seen.different += differences(whole, run)
    seen.rows += sum(map(len, recorded(run).values()))
    shutil.rmtree(run)


def test_killed_at_random(tmp_path: Path) -> None:
    seen, chance = Seen(), random.Random(0)
    whole, longest_s = whole_run(tmp_path, "everything remembered")
    while seen.kills < 2:
        kill_and_resume(tmp_path, whole, longest_s, chance, 2, seen)
    assert seen.different == []
    assert max(seen.redone) <= 1


@pytest.mark.slow
def test_killed_at_random_200_times(tmp_path: Path) -> None:
    seen, chance = Seen(), random.Random(1)
    runs = 0
    for mode in KILL_MODES:
        whole, longest_s = whole_run(tmp_path / mode, mode)
        wanted = seen.kills + 50
        while seen.kills < wanted:
            kill_and_resume(tmp_path / mode, whole, longest_s, chance, min(2, wanted - seen.kills), seen)
            runs += 1
    assert seen.different == []
    assert max(seen.redone) <= 1
    figure(
        1,
        f"{seen.kills} of {seen.kills} kills resumed without help, {runs} of {runs} runs in {len(KILL_MODES)} modes"
        f" identical, at most {max(seen.redone)} rollout step done again",
    )
    figure(18, f"0 of {seen.rows} rows doubled, missing or torn in the runs of row 1")


def after_dying(parent: Path, keep: int, number: int, half: bool) -> bool | None:
    """Whether a process that died inside a save left a whole checkpoint, and the next save works; None: it lived."""
    if exit_code(started(save_and_die, parent, keep, number, half)) == 0:
        return None
    found = checkpoint.numbered(parent)
    contents = [checkpoint.opened(path).json("state.json") for path in found]
    checkpoint.clean(parent)
    again = checkpoint.save(parent, "step-4", files(4), keep=keep)
    left = sorted(path.name for path in parent.iterdir())
    newest = checkpoint.opened(again).json("state.json")
    is_old_or_new = contents in ([2, 1][:keep], [3, 2][:keep], [3, 2, 1][: keep + 1])
    return bool(is_old_or_new and newest == 4 and len(left) == keep)


def deaths(folder: Path, keep: int, numbers: range) -> dict[tuple[int, bool], bool]:
    """By operation and whether half of a write was done: whether all was well afterwards."""
    seen = {}
    for number in numbers:
        for half in (False, True):
            parent = folder / f"{number} {half}" / checkpoint.FOLDER
            parent.parent.mkdir(parents=True)
            for content in (1, 2):
                checkpoint.save(parent, f"step-{content}", files(content), keep=keep)
            well = after_dying(parent, keep, number, half)
            if well is None:
                return seen
            seen[number, half] = well
    return seen


def test_killed_at_some_writes(tmp_path: Path) -> None:
    seen = {keep: deaths(tmp_path / str(keep), keep, range(4, 40, 7)) for keep in (1, 2)}
    assert all(all(each.values()) for each in seen.values())


@pytest.mark.slow
def test_killed_at_every_write_of_a_save(tmp_path: Path) -> None:
    seen = {keep: deaths(tmp_path / str(keep), keep, range(1, 1000)) for keep in (1, 2, 3)}
    assert all(all(each.values()) for each in seen.values())
    total = sum(map(len, seen.values()))
    figure(2, f"{total} crash points in a save and its rotation, 0 without a whole checkpoint")
    figure(13, f"keep = 1: {len(seen[1])} of {len(seen[1])} crash points, deletion included, leave a whole checkpoint")


@pytest.mark.slow
def test_killed_at_every_tenth_operation_of_a_run(tmp_path: Path) -> None:
    whole, _ = whole_run(tmp_path, "mini-batches")
    number, tried, different = 1, 0, []
    while True:
        words = ["train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]
        code = exit_code(started(call, words, tmp_path / "log", partial(die_at, number, half=bool(number % 2))))
        if code == 0:
            break
        assert exit_code(started(call, next_words(tmp_path, tmp_path / "run"), tmp_path / "log")) == 0, log_of(tmp_path)
        different += differences(whole, tmp_path / "run")
        shutil.rmtree(tmp_path / "run")
        number, tried = number + 10, tried + 1
    assert different == []
    figure(2, f"{tried} crash points over a whole run (every tenth operation on the disk), all resumed identically")


def test_a_saver_that_writes_in_place_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without temporary name and rename, a kill leaves half a checkpoint under a good name."""
    parent = tmp_path / checkpoint.FOLDER
    checkpoint.save(parent, "step-1", files(1), keep=1)
    (parent / "00002-step-2").mkdir()
    (parent / "00002-step-2" / "state.json").write_bytes(b"2")
    found = checkpoint.numbered(parent)
    with pytest.raises(checkpoint.CheckpointError, match=r"manifest\.json is missing"):
        checkpoint.opened(found[0])
    checkpoint.opened(found[1])
