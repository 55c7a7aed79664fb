"""Children that judge: whatever one does ends in a typed outcome, the next answer is fine, none outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from covent.errors import VerifierError
from covent.verifiers.channel import Channel, ChannelClosed, ChannelTimeout
from covent.verifiers.children import Children, Limits
from tests.contract.source import ROOT
from tests.support.figures import figure
from tests.verifiers.processes import alive, all_gone, at_least, descendants, resident_mb

TARGET = "tests.verifiers.handlers:obedient"
TIMEOUT_S = 0.4
LONG_S = 60.0
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal")


def children(**named: Any) -> Children:
    settings: dict[str, Any] = {"size": 2, "limits": Limits(memory_mb=256, cpu_s=2.0, no_files=True)}
    return Children(TARGET, {}, **settings | named)


@pytest.fixture(scope="module")
def pool() -> Iterator[Children]:
    made = children()
    made.warm()
    yield made
    made.close()


def fine(pool: Children) -> bool:
    return pool.ask(["echo", "fine"], LONG_S).value == "fine"


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (["echo", {"a": [1, "é", None]}], "done"),
        (["spin"], "time-out"),
        (["threads"], "time-out"),
        (["sleep", 600], "starved"),
        (["bomb"], "memory"),
        (["grow"], "memory"),
        (["exit"], "raised"),
        (["os exit", 0], "crash"),
        (["signal", int(signal.SIGKILL)], "crash"),
        (["signal", int(signal.SIGSEGV)], "crash"),
        (["signal", int(signal.SIGSTOP)], "starved"),
        (["raise", "no such unit"], "raised"),
        (["unsendable"], "raised"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, list) else value,
)
def test_every_end_is_typed_and_the_next_answer_is_fine(pool: Children, request_: list[Any], kind: str) -> None:
    outcome = pool.ask(request_, TIMEOUT_S if kind in ("time-out", "starved") else LONG_S)
    assert outcome.kind == kind, outcome
    assert outcome.detail or kind == "done"
    assert fine(pool)
    figure(
        25, "{count} of 13 ends of a child (memory bombs, crashes, SIGKILL, no end, …) typed, the next answer is fine"
    )


def test_a_stack_overflow_is_a_crash_or_raises(pool: Children) -> None:
    assert pool.ask(["recurse"], LONG_S).kind in ("crash", "raised", "memory")
    assert fine(pool)


def test_one_death_is_an_accident(pool: Children, tmp_path: Path) -> None:
    writing = children(limits=Limits())
    assert writing.ask(["once", str(tmp_path / "died")], LONG_S).value == "answered"
    writing.close()


def test_what_a_raised_error_says_comes_back(pool: Children) -> None:
    assert pool.ask(["raise", "no\nsuch unit"], LONG_S).detail == "ValueError: no such unit"
    assert pool.ask(["exit"], LONG_S).detail == "SystemExit: 0"


def test_a_child_can_write_no_file_and_has_no_secrets(
    pool: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVENT_CANARY", "a secret")
    assert pool.ask(["write", str(tmp_path / "file")], LONG_S).kind in ("crash", "raised")
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == ""
    assert "COVENT_CANARY" not in pool.ask(["environment"], LONG_S).value
    open_pool = children(environment=os.environ, limits=Limits())
    assert open_pool.ask(["environment"], LONG_S).value["COVENT_CANARY"] == "a secret"
    open_pool.close()


def test_all_answers_come_back_in_order_from_any_thread(pool: Children) -> None:
    found: dict[int, list[Any]] = {}

    def ask(thread: int) -> None:
        requests = [["echo", [thread, i]] if i % 5 else ["os exit", i] for i in range(20)]
        found[thread] = [outcome.value for outcome in pool.ask_all(requests, LONG_S)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {t: [[t, i] if i % 5 else None for i in range(20)] for t in range(3)}


def test_waiting_can_be_stopped(pool: Children) -> None:
    class Signalled(Exception):
        pass

    polls = 0

    def poll() -> None:
        nonlocal polls
        polls += 1
        if polls > 3:
            raise Signalled

    for requests in ([["sleep", 600]], [["spin"], ["sleep", 600], ["spin"]]):
        polls = 0
        with pytest.raises(Signalled):
            pool.ask_all(requests, LONG_S, poll)
    assert fine(pool)


def test_a_target_that_cannot_be_set_up_is_named() -> None:
    broken = Children("tests.verifiers.handlers:unloadable", {}, size=1, limits=Limits())
    with pytest.raises(VerifierError, match=r"unloadable.*ValueError: it needs a licence"):
        broken.ask("anything", LONG_S)
    late = Children("tests.verifiers.handlers:unloadable", {}, size=1, limits=Limits(), preload=False)
    outcome = late.ask("anything", LONG_S)
    assert outcome.kind == "raised" and "it needs a licence" in outcome.detail
    late.close()


def test_a_server_that_is_killed_is_replaced(pool: Children) -> None:
    assert fine(pool)
    server = pool._state.server
    assert server is not None
    server.process.kill()
    server.process.wait()
    assert fine(pool)
    assert pool._state.server is not server


def test_closing_ends_all_children() -> None:
    made = children()
    made.ask_all([["echo", 1]] * 4, LONG_S)
    ours = descendants(os.getpid())
    server = made._state.server
    assert server is not None
    under = descendants(server.process.pid) | {server.process.pid}
    assert under <= ours and len(under) >= 2
    made.close()
    assert all_gone(under, 5)
    assert fine(made)
    made.close()


_PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
import os, sys, time
from covent.verifiers.children import Children, Limits
pool = Children("tests.verifiers.handlers:obedient", {}, size=3, limits=Limits(memory_mb=256))
pool.ask_all([["echo", i] for i in range(6)], 60)
print("ready", flush=True)
pool.ask_all([["spin"], ["sleep", 600], ["threads"]], 600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_die_with_their_parent(how: signal.Signals) -> None:
    """B5 row 35, for pools of judging children."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True
    ) as parent:
        try:
            assert parent.stdout and parent.stdout.readline() == "ready\n"
            under = at_least(4, parent.pid)  # the server and three children
            parent.send_signal(how)
            parent.wait(60)
        finally:
            parent.kill()
        assert all_gone(under, 2), alive(under)


@on_linux
def test_children_die_with_their_server() -> None:
    made = children()
    made.ask_all([["echo", 1]] * 4, LONG_S)
    server = made._state.server
    assert server is not None
    under = descendants(server.process.pid)
    server.process.kill()
    server.process.wait()
    assert under and all_gone(under, 2)
    made.close()


def test_the_trainers_memory_stays_flat() -> None:
    """B5 row 25: what a child allocates is the child's."""
    made = children()
    before = resident_mb(os.getpid())
    kinds = {outcome.kind for outcome in made.ask_all([["grow"], ["bomb"]] * 5, LONG_S)}
    assert kinds == {"memory"}
    more = resident_mb(os.getpid()) - before
    assert more < 64, "MB"
    made.close()
    figure(25, f"the trainer's memory after 10 memory bombs: {more:+.0f} MB")


def test_memory_is_watched_where_the_system_has_no_limit() -> None:
    """The way of macOS, run here: negative control first, without the watch nothing ends."""
    code = "from covent.verifiers.fork_server import watch_memory\n{}\nx = bytearray(300 << 20)\nimport time\n"
    code += "time.sleep({})"
    unwatched = subprocess.run([sys.executable, "-c", code.format("", 0)], env={"PYTHONPATH": str(ROOT / "src")})
    assert unwatched.returncode == 0
    watched = code.format("watch_memory(200 << 20)", 60)
    assert subprocess.run([sys.executable, "-c", watched], env={"PYTHONPATH": str(ROOT / "src")}).returncode == -9


def test_channels_refuse_what_is_no_message() -> None:
    ours, theirs = Channel.pair()
    theirs._socket.sendall(b"\x00\x00\x00\x03abc")
    with pytest.raises(ChannelClosed):
        ours.receive()
    theirs._socket.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(ChannelClosed, match="bytes"):
        ours.receive()
    with pytest.raises(ChannelTimeout):
        ours.receive(deadline=time.monotonic() + 0.01)
    deep = "[" * 100_000 + "]" * 100_000
    theirs._socket.sendall(len(deep).to_bytes(4, "big"))
    sender = threading.Thread(target=theirs._socket.sendall, args=(deep.encode(),))
    sender.start()
    with pytest.raises(ChannelClosed):
        ours.receive()
    sender.join()
    theirs.close()
    with pytest.raises(ChannelClosed):
        ours.receive()
    ours.close()


def test_channels_carry_large_messages_while_the_other_end_is_slow() -> None:
    ours, theirs = Channel.pair()
    message = {"text": "é\ud800" * 1_000_000, "numbers": [1.5, None, True]}
    sender = threading.Thread(target=ours.send, args=(message,))
    sender.start()
    assert theirs.receive() == message
    sender.join()
    with pytest.raises(ChannelTimeout):
        ours.send(message, deadline=time.monotonic() + 0.05)
    ours.close()
    theirs.close()
