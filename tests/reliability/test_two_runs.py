"""Two processes, one run folder: exactly one goes on, the other says who has it; a dead one's lock is free."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from covent.errors import RunLockedError
from covent.store.lock import abandoned, locked
from covent.store.reader import read_status
from tests.support.figures import figure
from tests.support.interrupted import call, differences, exit_code, settings, started, written


@pytest.mark.parametrize("num", [pytest.param(1, id="short"), pytest.param(50, marks=pytest.mark.slow)])
def test_exactly_one_proceeds(num: int, tmp_path: Path) -> None:
    chance = random.Random(num)
    config = written(tmp_path, **settings())
    whole = tmp_path / "whole"
    assert exit_code(started(call, ["train", str(config), "--out", str(whole)], tmp_path / "log")) == 0
    named = 0
    for trial in range(num):
        run, logs = tmp_path / f"run {trial}", [tmp_path / f"{trial}-{name}" for name in "ab"]
        first = started(call, ["train", str(config), "--out", str(run)], logs[0])
        time.sleep(chance.uniform(0, 0.3))
        words = (
            ["resume", str(run)]
            if trial % 2 and (run / "run.json").exists()
            else ["train", str(config), "--out", str(run)]
        )
        second = started(call, words, logs[1])
        codes = [exit_code(first), exit_code(second)]
        assert sorted(codes) == [0, 2] or (words[0] == "resume" and codes == [0, 0]), [log.read_text() for log in logs]
        if 2 in codes:
            said = logs[codes.index(2)].read_text()
            winner = (first, second)[codes.index(0)].pid
            # Once the winner has ended, nobody holds the folder any more, and it is only taken.
            assert f"in use by process {winner} on {os.uname().nodename}" in said or "is not empty" in said
            named += "in use by" in said
        assert differences(whole, run) == []
    figure(14, f"{num} of {num} pairs: one proceeds unharmed, the other is refused; {named} times naming host and PID")


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = written(tmp_path, **settings(steps=1000))
    process = started(call, ["train", str(config), "--out", str(run)], tmp_path / "log")
    while not (run / "steps.jsonl").exists():
        time.sleep(0.02)
    with pytest.raises(RunLockedError, match=f"in use by process {process.pid} on {os.uname().nodename}"):
        locked(run)
    assert read_status(run).state == "running"
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert json.loads((run / "status.json").read_text())["state"] == "running"
    status = read_status(run)
    assert (status.state, "killed" in status.message) == ("interrupted", True)
    locked(run).release()
    shutil.rmtree(run)


def test_a_reader_who_asks_for_the_holder_stops_no_writer(tmp_path: Path) -> None:
    """Asking takes the lock for a moment. Without a lock, or while one is held, a run is taken for alive."""
    assert not abandoned(tmp_path)
    locked(tmp_path).release()
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            abandoned(tmp_path)

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(20):
            held = locked(tmp_path)
            assert not abandoned(tmp_path)
            held.release()
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert abandoned(tmp_path)


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    """The negative control of "free": what is held is not."""
    held = locked(tmp_path)
    with pytest.raises(RunLockedError, match=str(os.getpid())):
        locked(tmp_path)
    held.release()
    locked(tmp_path).release()
