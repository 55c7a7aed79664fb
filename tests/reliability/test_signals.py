"""SIGTERM, SIGINT, SIGHUP at any moment: saved, the right exit code, and the rest is identical; twice: gone at once."""

from __future__ import annotations

import os
import pty
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from covent import stopping
from covent.stopping import Stopped
from covent.store import checkpoint
from covent.store.reader import read_run
from covent.train.resume import resume
from tests.contract.source import ROOT
from tests.support.figures import figure
from tests.support.interrupted import call, differences, exit_code, settings, slow_disk, started, tiny_demo, written
from tests.verifiers.processes import alive

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config, and the run of it that nobody stops."""
    folder = tmp_path_factory.mktemp("signals")
    config = written(folder, **settings())
    assert exit_code(started(call, ["train", str(config), "--out", str(folder / "whole")], folder / "log")) == 0
    return folder


def duration_s(workplace: Path) -> float:
    status = read_run(workplace / "whole").status
    return status.seconds + 0.5


def has_finished(run: Path) -> bool:
    return read_run(run).status.state == "finished"


def signalled(workplace: Path, name: str, after_s: float, *, sent: signal.Signals) -> tuple[int, float]:
    """Exit code of a run that gets a signal, and the time from the signal to its end."""
    process = started(
        call, ["train", str(workplace / "config.yaml"), "--out", str(workplace / name)], workplace / "log"
    )
    process.join(after_s)
    start = time.monotonic()
    if process.exitcode is None:
        os.kill(process.pid or 0, sent)
    return exit_code(process), time.monotonic() - start


@pytest.mark.parametrize("num", [pytest.param(2, id="short"), pytest.param(100, marks=pytest.mark.slow)])
def test_one_signal_saves_and_ends(num: int, workplace: Path) -> None:
    chance = random.Random(num)
    longest_s = duration_s(workplace)
    ends, different, stopped = [], [], Counter[int]()
    while stopped.total() < num:
        sent = chance.choice(list(CODES))
        run = workplace / "run"
        code, seconds = signalled(workplace, "run", chance.uniform(0, longest_s), sent=sent)
        has_begun = (run / "run.json").exists()
        if code == 0 or (code != CODES[sent] and not has_begun) or (has_begun and has_finished(run)):
            # After the end, or in the interpreter's own start, before covent could hear it.
            shutil.rmtree(run, ignore_errors=True)
            continue
        assert code == CODES[sent], (workplace / "log").read_text()[-3000:]
        stopped[code] += 1
        ends.append(seconds)
        if has_begun:
            status = read_run(run).status
            assert (status.state, sent.name in status.message) == ("interrupted", True)
            rows = (run / "steps.jsonl").read_bytes().count(b"\n") if (run / "steps.jsonl").exists() else 0
            (newest, *_) = checkpoint.numbered(run / checkpoint.FOLDER)
            saved = re.search(r"-step-(\d+)", newest.name)
            assert int(saved[1]) >= rows if saved else rows == 0
            resume(run)
            different += differences(workplace / "whole", run)
        shutil.rmtree(run, ignore_errors=True)
    assert different == []
    p50, p95 = statistics.median(ends), sorted(ends)[int(0.95 * len(ends))]
    codes = ", ".join(f"{code} ({count})" for code, count in sorted(stopped.items()))
    figure(
        4,
        f"{num} of {num} saved and went on identically, exit codes {codes}; 0 rollout steps lost; seconds to exit p50"
        f" {p50:.2f}, p95 {p95:.2f}, max {max(ends):.2f}",
    )


@pytest.mark.parametrize("num", [pytest.param(1, id="short"), pytest.param(50, marks=pytest.mark.slow)])
def test_a_second_signal_ends_at_once(num: int, workplace: Path) -> None:
    """The disk takes its time, so that most second signals meet the first one's save."""
    chance = random.Random(num)
    ends, cut_short = [], 0
    for _ in range(num):
        run = workplace / "twice"
        words = ["train", str(workplace / "config.yaml"), "--out", str(run)]
        process = started(call, words, workplace / "log", partial(slow_disk, 0.5))
        while not (run / "updates.jsonl").exists():
            time.sleep(0.02)
        os.kill(process.pid or 0, signal.SIGINT)
        process.join(chance.uniform(0, 3) if num > 1 else 0.3)
        if process.exitcode is None:
            start = time.monotonic()
            os.kill(process.pid or 0, chance.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]))
            exit_code(process)
            ends.append(time.monotonic() - start)
            cut_short += process.exitcode != 130
        newest, *_ = checkpoint.numbered(run / checkpoint.FOLDER)
        checkpoint.opened(newest)
        resume(run)
        assert differences(workplace / "whole", run) == []
        shutil.rmtree(run)
    assert max(ends, default=0) <= 2
    figure(
        5,
        f"{num} of {num} pairs: previous checkpoint valid, resumed identically; {cut_short} ended by the second signal,"
        f" after at most {max(ends, default=0):.2f} s",
    )


def test_the_flag_is_raised_only_where_it_is_polled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping.on_signals():
        stopping.poll()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        with pytest.raises(Stopped) as stopped:
            stopping.poll()
        assert (stopped.value.asked, stopped.value.exit_code) == (signal.SIGTERM, 143)
    assert signal.getsignal(signal.SIGTERM) == before
    stopping.poll()


def test_a_block_inside_a_block_changes_nothing() -> None:
    with stopping.on_signals():
        handler = signal.getsignal(signal.SIGINT)
        with stopping.on_signals():
            assert signal.getsignal(signal.SIGINT) == handler
        assert signal.getsignal(signal.SIGINT) == handler
        stopping.ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            stopping.poll()


def test_under_nohup_a_closing_terminal_is_not_heard() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping.on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.poll()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stopping.on_signals(), pytest.raises(Stopped) as stopped:
            os.kill(os.getpid(), signal.SIGHUP)
            stopping.poll()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stopped.value.exit_code == 129


TO_A_TERMINAL = """
import os, signal, sys, time
from covent import stopping
signal.signal(signal.SIGHUP, signal.SIG_DFL)
with stopping.on_signals():
    print("ready", flush=True)
    try:
        while True:
            stopping.poll()
            time.sleep(0.01)
    except stopping.Stopped as stopped:
        {before}
        print("interrupted", flush=True)
        sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize(("before", "code"), [("", 129), ("sys.stdout = open('/dev/tty', 'w')", 1)])
def test_a_terminal_that_closes_does_not_hide_the_exit_code(before: str, code: int) -> None:
    """With the negative control: words to the terminal itself fail."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", TO_A_TERMINAL.format(before=before)])  # noqa: S606 - no shell is wanted
    assert b"ready" in os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code


def gone_within(pids: list[int], longest_s: float) -> float | None:
    """How long it takes until none of the processes is running; None if it takes longer."""
    start = time.monotonic()
    while time.monotonic() - start < longest_s:
        if not alive(set(pids)):
            return time.monotonic() - start
        time.sleep(0.02)
    return None


@pytest.fixture
def family(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A parent and its child's PID."""
    command = [sys.executable, "-m", "tests.support.orphans", *request.param]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        yield parent, child
        parent.kill()
    if alive({child}):
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("family", [[]], indirect=True)
def test_a_child_ends_with_its_parent(family: tuple[subprocess.Popen[str], int]) -> None:
    parent, child = family
    assert alive({child})
    parent.kill()
    assert gone_within([child], 10) is not None


@pytest.mark.parametrize("family", [["careless"]], indirect=True)
def test_a_child_that_nobody_told_does_not(family: tuple[subprocess.Popen[str], int]) -> None:
    """The negative control."""
    parent, child = family
    parent.kill()
    assert gone_within([child], 1) is None


def children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(word) for word in found.split()]


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """50 times, from the first child's start to its training."""
    chance = random.Random(0)
    times, tried, num = [], 0, 50
    while len(times) < num:
        folder = tmp_path / str(tried)
        words = ["demo", "--steps", "1000", "--out", str(folder)]
        demo = started(call, words, tmp_path / "log", tiny_demo)
        tried += 1
        while not children(demo.pid or 0):
            assert demo.exitcode is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 20))
        found = children(demo.pid or 0)
        os.kill(demo.pid or 0, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGINT]))
        demo.join()
        seconds = gone_within(found, 30)
        assert seconds is not None
        times.append(seconds)
        shutil.rmtree(folder)
    assert max(times) <= 2
    figure(35, f"{num} of {num}: no process left, {max(times):.2f} s at most after the trainer was gone")
