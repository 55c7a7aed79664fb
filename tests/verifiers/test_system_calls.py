"""What a program may not ask the kernel for: keys, memory that outlives it, the limits of others. Each attack is shown
to work where nothing stands in its way."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from covent.verifiers import sandbox as module
from covent.verifiers import system_calls
from covent.verifiers.sandbox import Sandbox
from covent.verifiers.verdict import Judgement, Verdict
from tests.verifiers.test_sandbox import CALLS, LONG_S, RIGHT, SETTINGS, isolated

MACHINE = os.uname().machine
NUMBERS = {  # add_key, request_key, keyctl: from the kernel's own tables, as in the man pages
    "x86_64": (248, 249, 250),
    "aarch64": (217, 218, 219),
}
ADD_KEY, REQUEST_KEY, KEYCTL = NUMBERS.get(MACHINE, (0, 0, 0))
known = pytest.mark.skipif(MACHINE not in NUMBERS, reason=f"no filter of system calls for {MACHINE}")
FINDS_NOTHING = {"kind": "calls", "name": "f", "cases": [[[1], [False] * 3]]}

LIBRARY = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
KEYS = f"""{LIBRARY}
def f(x):
    found = libc.syscall({REQUEST_KEY}, b'user', b'canary', None, 0) > 0
    planted = [libc.syscall({ADD_KEY}, b'user', b'planted', b'x', 1, where) > 0 for where in (-3, -4)]
    return [found, *planted]
"""
MEMORY = f"""{LIBRARY}
def f(x):
    return [libc.shmget(77, 1 << 20, 0o1600) >= 0, libc.msgget(77, 0o1600) >= 0, libc.semget(77, 1, 0o1600) >= 0]
"""
OTHERS = f"""{LIBRARY}
def f(x):
    limits = (ctypes.c_uint64 * 2)(1 << 28, 1 << 28)
    nothing = (ctypes.c_int * 1)(0)
    return [
        libc.prlimit(1, 9, limits, None) == 0,
        libc.setpriority(0, 1, 10) == 0,
        libc.sched_setscheduler(1, 3, nothing) == 0,
    ]
"""
ATTACKS = {"keys": KEYS, "memory": MEMORY, "others": OTHERS}
RUIN = f"{LIBRARY}def f(x):\n    libc.prlimit(1, 9, (ctypes.c_uint64 * 2)(1 << 20, 1 << 20), None)\n    return 0\n"
"""No memory for process 1, or for any it starts after this."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(SETTINGS.model_copy(update={"timeout_s": LONG_S}))
    yield made
    made.close()


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> Sandbox:
    """A sandbox as on a kernel that lacks these."""
    code = "import covent.verifiers.system_calls as s\nfrom covent.verifiers.namespaces import IsolationFailed\n"
    for name in names:
        code += f"def {name}(): raise IsolationFailed('{name}: none here')\ns.{name} = {name}\n"
    started = module._START.replace("from covent.verifiers.jail", f"exec({code!r});from covent.verifiers.jail")
    monkeypatch.setattr(module, "_START", started)
    return Sandbox(SETTINGS.model_copy(update={"timeout_s": LONG_S}))


@isolated
@known
@pytest.mark.parametrize("name", ATTACKS)
def test_programs_have_no_keys_no_lasting_memory_and_no_power_over_others(sandbox: Sandbox, name: str) -> None:
    assert sandbox.judge(ATTACKS[name], FINDS_NOTHING) == Judgement.of(Verdict.RIGHT)
    assert sandbox.no_filter == ""


@isolated
@known
@pytest.mark.parametrize(("name", "says"), [("memory", "[True, True, True]"), ("others", "the sandbox was lost twice")])
def test_without_the_filter_the_same_programs_have_them(monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    """Negative control."""
    bare = without(monkeypatch, "filter_calls")
    assert says in bare.judge(ATTACKS[name], FINDS_NOTHING).reason
    assert bare.no_filter == "filter_calls: none here"
    bare.close()


@isolated
@known
def test_what_programs_ask_for_themselves_is_theirs(sandbox: Sandbox) -> None:
    text = (
        "import os, resource\ndef f(x):\n    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "    os.sched_setaffinity(0, os.sched_getaffinity(0))\n    os.sched_getparam(0)\n    return x + 1\n"
    )
    assert sandbox.judge(text, CALLS) == Judgement.of(Verdict.RIGHT)


@isolated
@pytest.mark.parametrize("lacking", [(), ("filter_calls",)])
def test_a_program_ruins_no_later_verdict(monkeypatch: pytest.MonkeyPatch, lacking: tuple[str, ...]) -> None:
    """By the filter where there is one, and by a new server where there is none."""
    made = without(monkeypatch, *lacking)
    assert made.judge(RIGHT, CALLS).verdict is Verdict.RIGHT
    before = made._state.process
    judgement = made.judge(RUIN, CALLS)
    after = made._state.process
    asserts = {"kind": "asserts", "cases": ["assert f(1) == 2"], "functions": ["f"]}
    assert [made.judge(RIGHT, tests).verdict for tests in (CALLS, asserts) * 2] == [Verdict.RIGHT] * 4
    if lacking:
        assert judgement.verdict is Verdict.CRASH and after is not before
    elif not made.no_filter:
        assert judgement.verdict is Verdict.WRONG and after is before
    made.close()


@isolated
@known
def test_a_ruined_server_that_goes_on_would_judge_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what the server's look at its own limits is for."""
    code = "import covent.verifiers.jail as j\nj._limits = lambda: 0\n"
    made = without(monkeypatch, "filter_calls")
    started = module._START.replace("from covent.verifiers.jail", f"exec({code!r});from covent.verifiers.jail")
    monkeypatch.setattr(module, "_START", started)
    made.judge(RUIN, CALLS)
    large = "def f(x):\n    return x + len([0] * 10 ** 6) - 10 ** 6 + 1\n"
    assert made._run(large, CALLS, lambda: None).verdict is not Verdict.RIGHT
    made.close()


_WITH_KEYS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
add, request, keyctl = map(int, sys.argv[1:4])
libc.syscall(keyctl, 1, None)
if libc.syscall(add, b"user", b"canary", b"secret", 6, -3) < 0:
    print("no keys here")
    sys.exit()
import json
from tests.verifiers import test_system_calls as t
from covent.verifiers import sandbox as module
settings = t.SETTINGS.model_copy(update={"timeout_s": t.LONG_S})
for code in sys.argv[4:]:
    started = module._START
    module._START = started.replace("from covent.verifiers.jail", f"exec({code!r});from covent.verifiers.jail")
    made = t.Sandbox(settings)
    made._routes = ("user namespaces",)
    tests = {"kind": "calls", "name": "f", "cases": [[[1], None]]}
    print([made.judge(t.KEYS, tests).reason for _ in range(2)])
    made.close()
    module._START = started
print(libc.syscall(request, b"user", b"planted", None, 0) > 0)
"""
_NO_FILTER = (
    "import covent.verifiers.system_calls as s\nfrom covent.verifiers.namespaces import IsolationFailed\n"
    "def none(): raise IsolationFailed('none here')\ns.filter_calls = none\n"
)


@isolated
@known
def test_keys_of_the_trainer_and_of_other_programs_are_out_of_sight() -> None:
    """In a process of its own, whose keyring may be changed: with the filter, without it, and, as the negative control,
    without a keyring of its own either."""
    run = subprocess.run(
        [sys.executable, "-c", _WITH_KEYS, *map(str, NUMBERS[MACHINE]), "0", _NO_FILTER,
         _NO_FILTER + "s.leave_keyring = none\n"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    if run.stdout == "no keys here\n":
        pytest.skip("the kernel keeps no keys here, or lets nobody have one")
    filtered, kept_away, bare, planted = run.stdout.splitlines()
    assert filtered.count("[False, False, False]") == 2
    assert kept_away.count("[False, True, True]") == 2, "its own, where it may plant what it likes"
    assert bare.count("[True, True, True]") == 2
    assert planted == "True", "which is how the last left a key for the trainer"


@pytest.mark.parametrize("name", sorted(system_calls._PROCESSORS))
def test_the_filter_decides_as_it_is_meant_to(name: str) -> None:
    """By running its instructions, on processors that this machine does not have too."""
    processor = system_calls._PROCESSORS[name]
    instructions = list(struct.iter_unpack("HBBI", system_calls._instructions(processor)))

    def allows(number: int, first: int = 0, audit: int = processor.audit) -> bool:
        words, word, at = {0: number, 4: audit, 16: first}, 0, 0
        while True:
            operation, if_true, if_false, operand = instructions[at]
            at += 1
            if operation == 0x20:
                word = words[operand]
            elif operation == 0x06:
                return bool(operand == 0x7FFF0000)
            else:
                at += if_true if (word == operand if operation == 0x15 else word >= operand) else if_false

    refused = {number for number in range(600) if not allows(number)}
    refused_for_others = {number for number in range(600) if not allows(number, 1)}
    assert refused == set(processor.denied)
    assert refused_for_others - refused == set(processor.own_only)
    assert not allows(0, audit=processor.audit ^ 1)
    assert allows(0x40000000) is (name != "x86_64")


def test_an_unknown_processor_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    values: Any = os.uname()
    monkeypatch.setattr(system_calls.os, "uname", lambda: os.uname_result((*values[:4], "other")))
    for call in (system_calls.filter_calls, system_calls.leave_keyring):
        with pytest.raises(system_calls.IsolationFailed, match="no filter of system calls for other"):
            call()
