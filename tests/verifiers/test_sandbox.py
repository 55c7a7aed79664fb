"""Programs in the sandbox: right ones score, hostile ones neither get out nor pass nor stay, and without isolation none
runs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from covent.errors import IsolationError
from covent.verifiers import namespaces, programs
from covent.verifiers import sandbox as module
from covent.verifiers.programs import ProgramVerifier
from covent.verifiers.sandbox import Sandbox
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Verdict
from tests.contract.source import ROOT
from tests.support.figures import figure
from tests.verifiers.hostile_programs import CANARY, OUTSIDE, PORT, TRAINER, hostile_programs
from tests.verifiers.processes import alive, all_gone, at_least, descendants

TIMEOUT_S, LONG_S = 1.0, 60.0
PATH = os.pathsep.join([str(ROOT / "src"), *sys.path])
SETTINGS = VerifierSettings(timeout_s=TIMEOUT_S, memory_mb=256, scratch_mb=4, modules=("fcntl", "mmap"), processes=2)
CALLS = {"kind": "calls", "name": "f", "cases": [[[1], 2], [[5], 6], [[-3], -2]]}
ONE_CALL = {"kind": "calls", "name": "f", "cases": [[[1], 2]]}
"""For attacks, which may work only once."""
RIGHT = "def f(x):\n    return x + 1\n"
SHORT = (  # every family, one or two each, quick ones
    "fork bomb",
    "endless loop",
    "exit 0",
    "kill everyone",
    "trace the tests",
    "read the tests' memory",
    "write a file outside",
    "symlink",
    "connect",
    "abstract socket",
    "new namespaces",
    "read the environment",
    "ever more bytes",
    "a line that says passed",
    "equal to everything",
    "patched comparison",
    "a forged verdict on every descriptor",
    "looking for the expected values",
)


def isolation() -> str:
    """Why programs cannot be isolated here; empty if they can."""
    sandbox = Sandbox(SETTINGS)
    try:
        sandbox.start()
    except IsolationError as error:
        return str(error)
    finally:
        sandbox.close()
    return ""


MISSING = isolation()
isolated = pytest.mark.skipif(bool(MISSING), reason=MISSING)


ROUTES = ["user namespaces"] + (["bubblewrap"] if shutil.which("bwrap") and os.geteuid() else [])


@pytest.fixture(scope="module", params=ROUTES)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(SETTINGS)
    made._routes = (request.param,)
    yield made
    made.close()


@dataclass
class Traps:
    """What a program that gets out would touch."""

    outside: Path
    port: int
    listeners: list[socket.socket]
    before: dict[str, str]

    def fill_in(self, program: str) -> str:
        places = {OUTSIDE: str(self.outside), PORT: str(self.port), TRAINER: str(os.getpid())}
        for name, value in places.items():
            program = program.replace(name, value)
        return program

    def touched(self) -> list[str]:
        """What has been touched since the traps were set."""
        found = [f"file {name}" for name in set(self.files().items()) ^ set(self.before.items())]
        for listener in self.listeners:
            try:
                listener.accept()[0].close()
                found.append(f"socket {listener.getsockname()!r}")
            except BlockingIOError:
                pass
        return found

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() if path.is_file() else "" for path in self.outside.iterdir()}


@pytest.fixture
def traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traps]:
    monkeypatch.setenv("COVENT_CANARY", CANARY)
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text(CANARY)
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = tcp.getsockname()[1]
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        listeners = [tcp, unix]
        if sys.platform == "linux":
            abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
            abstract.bind(f"\0covent-{port}")
            listeners.append(abstract)
        for listener in listeners:
            listener.listen()
            listener.setblocking(False)
        made = Traps(tmp_path, port, listeners, {})
        made.before = made.files()
        yield made


def attack(
    sandbox: Sandbox, traps: Traps, program: str, tests: dict[str, Any] = ONE_CALL
) -> tuple[Judgement, list[str]]:
    """The judgement of a hostile program, and everything that is not as it should be after it."""
    sandbox._settings = SETTINGS
    judgement = sandbox.judge(traps.fill_in(program), tests)
    process = sandbox._state.process
    assert process is not None
    wrong = traps.touched()
    if len(left := descendants(process.pid)) != 1:
        wrong.append(f"processes {left}")
    if CANARY in judgement.reason:
        wrong.append("the canary")
    # On a busy machine a right program may take longer than an attack is given.
    sandbox._settings = SETTINGS.model_copy(update={"timeout_s": LONG_S})
    if sandbox.judge(RIGHT, CALLS) != Judgement.of(Verdict.RIGHT):
        wrong.append("the next right program")
    return judgement, wrong


@isolated
@pytest.mark.parametrize("name", SHORT)
def test_hostile_programs_neither_get_out_nor_pass_nor_stay(sandbox: Sandbox, traps: Traps, name: str) -> None:
    """B5 row 26, short form."""
    judgement, wrong = attack(sandbox, traps, hostile_programs()[name])
    assert wrong == []
    assert judgement.verdict in (Verdict.WRONG, Verdict.TIME_OUT, Verdict.CRASH), judgement


@isolated
@pytest.mark.slow
def test_60_hostile_programs(sandbox: Sandbox, traps: Traps) -> None:
    """B5 row 26, each judged by calls and by tests in Python."""
    asserts = programs.tests_of({"asserts": ["assert f(1) == 2"]})
    counts = dict.fromkeys(Verdict, 0)
    escapes: dict[str, list[str]] = {}
    for name, program in hostile_programs().items():
        for tests in (ONE_CALL, asserts):
            judgement, wrong = attack(sandbox, traps, program, tests)
            counts[judgement.verdict] += 1
            if wrong or judgement.verdict is Verdict.RIGHT:
                escapes[name] = [*wrong, str(judgement)]
    told = ", ".join(f"{verdict} {count}" for verdict, count in counts.items() if count)
    assert escapes == {}
    assert counts[Verdict.ERROR] == 0
    figure(
        26,
        f"60 of 60, by calls and by assertions, as {'root' if os.geteuid() == 0 else 'an ordinary user'}, isolated by"
        f" {sandbox.route}: 0 false passes, 0 escapes, 0 leftover processes ({told})",
    )


@pytest.mark.parametrize("name", ["write a file outside", "connect", "symlink", "read a secret file"])
def test_without_isolation_the_same_programs_get_out(traps: Traps, name: str) -> None:
    """Negative control: the attacks are real, and the traps see them."""
    unsafe = Sandbox(SETTINGS.model_copy(update={"allow_unsafe_programs": True, "modules": ()}))
    judgement = unsafe.judge(traps.fill_in(hostile_programs()[name]), ONE_CALL)
    assert judgement.verdict is Verdict.RIGHT or traps.touched(), judgement
    unsafe.close()


def test_unsafe_programs_still_end_and_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unsafe = Sandbox(SETTINGS.model_copy(update={"allow_unsafe_programs": True, "modules": ()}))
    assert unsafe.judge(RIGHT, CALLS) == Judgement.of(Verdict.RIGHT)
    writes = "import os\ndef f(x):\n    open('left', 'w').write('x')\n    return os.getcwd()\n"
    folder = unsafe.judge(writes, CALLS).reason.split()[3]
    assert "covent-program-" in folder and not Path(folder).exists()
    assert unsafe.judge("while True:\n    pass\n", CALLS).verdict is Verdict.TIME_OUT
    process = unsafe._state.process
    assert process is not None
    under = descendants(process.pid) | {process.pid}
    assert len(under) == 1
    unsafe.close()
    assert all_gone(under, 2)


@isolated
@pytest.mark.parametrize(
    ("program", "tests", "verdict"),
    [
        (RIGHT, CALLS, Verdict.RIGHT),
        ("def f(x):\n    return x + 2 - (x > 1)\n", CALLS, Verdict.WRONG),
        ("def f(x):\n    return str(x + 1)\n", CALLS, Verdict.WRONG),
        ("def f(x)\n    return x + 1\n", CALLS, Verdict.UNPARSABLE),
        ("def g(x):\n    return x + 1\n", CALLS, Verdict.UNPARSABLE),
        ("f = 3", CALLS, Verdict.UNPARSABLE),
        ("raise ValueError('no')", CALLS, Verdict.WRONG),
        ("def f(x):\n    raise ValueError('no')\n", CALLS, Verdict.WRONG),
        ("\x00", CALLS, Verdict.UNPARSABLE),
        ("def f(x):\n    return '\\ud800'\n", CALLS, Verdict.WRONG),
        ("def f(x):\n    return x + 1 if x < 5 else [[]] * 10 ** 6\n", CALLS, Verdict.WRONG),
        ("(" * 5_000, CALLS, Verdict.UNPARSABLE),
        ("a, b = input().split()\nprint(int(a) + int(b))\n", {"inputs": ["1 2"], "outputs": ["3\n"]}, Verdict.RIGHT),
        ("print(sum(map(int, open(0).read().split())))", {"inputs": ["1 2"], "outputs": ["3"]}, Verdict.RIGHT),
        (
            "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line * 2)",
            {"inputs": ["a\n"], "outputs": ["a\na"]},
            Verdict.RIGHT,
        ),
        ("print(4)", {"inputs": ["1 2"], "outputs": ["3"]}, Verdict.WRONG),
        ("import sys\nprint(3)\nsys.exit(1)", {"inputs": ["1 2"], "outputs": ["3"]}, Verdict.RIGHT),
        ("print('x' * 10 ** 8)", {"inputs": [""], "outputs": ["x"]}, Verdict.WRONG),
        (RIGHT, {"asserts": ["assert f(1) == 2", "assert [f(x) for x in (0, 1)] == [1, 2]"]}, Verdict.RIGHT),
        (RIGHT, {"test": "def check(candidate):\n    assert candidate(1) == 2\n", "entry_point": "f"}, Verdict.RIGHT),
        (RIGHT, {"test": "def check(candidate):\n    assert candidate(1) == 3\n", "entry_point": "f"}, Verdict.WRONG),
        (
            "def f(x):\n    raise KeyError(x)\n",
            {"test_list": ["try:\n    f(1)\nexcept KeyError:\n    pass\nelse:\n    raise AssertionError"]},
            Verdict.RIGHT,
        ),
        (
            "def g(x):\n    return 1\n",
            {"test_list": ["try:\n    assert f(1)\nexcept BaseException:\n    pass"]},
            Verdict.UNPARSABLE,
        ),
        (
            "def f(a, *, b):\n    return {a: (b, {1, 2})}\n",
            {"asserts": ["assert f('k', b=1 << 70) == {'k': (1 << 70, {1, 2})}"]},
            Verdict.RIGHT,
        ),
    ],
)
def test_programs_are_judged_by_what_they_do(
    sandbox: Sandbox, program: str, tests: dict[str, Any], verdict: Verdict
) -> None:
    sandbox._settings = SETTINGS.model_copy(update={"timeout_s": LONG_S})
    found = sandbox.judge(program, tests if "kind" in tests else programs.tests_of(tests))
    assert found.verdict is verdict, found


@isolated
def test_a_verdict_is_the_same_each_time(sandbox: Sandbox) -> None:
    """The order of sets and unseeded random numbers do not differ between runs or sandboxes."""
    program = "import random\ndef f(x):\n    return [''.join({'a', 'b', 'c', 'd', 'e'}), random.random(), hash('a')]\n"
    other = Sandbox(SETTINGS)
    reasons = {each.judge(program, CALLS).reason for each in (sandbox, sandbox, other)}
    other.close()
    assert len(reasons) == 1


@isolated
def test_a_sandbox_that_is_lost_is_replaced(sandbox: Sandbox) -> None:
    sandbox._settings = SETTINGS.model_copy(update={"timeout_s": LONG_S})
    assert sandbox.judge(RIGHT, CALLS).verdict is Verdict.RIGHT
    process = sandbox._state.process
    assert process is not None
    under = descendants(process.pid)
    process.kill()
    process.wait()
    assert all_gone(under, 2), "process 1 of the sandbox ends with what it was forked from"
    assert sandbox.judge(RIGHT, CALLS).verdict is Verdict.RIGHT


@isolated
def test_waiting_can_be_stopped(sandbox: Sandbox) -> None:
    class Signalled(Exception):
        pass

    def poll() -> None:
        raise Signalled

    loop = "while True:\n    pass\n"
    with pytest.raises(Signalled):
        sandbox.judge(loop, CALLS, poll)
    verifier = ProgramVerifier(SETTINGS)
    with pytest.raises(Signalled):
        verifier.judge([(loop, CALLS)] * 3, poll)
    verifier.close()
    assert sandbox.judge(RIGHT, CALLS).verdict is Verdict.RIGHT


@isolated
def test_many_programs_are_judged_in_order() -> None:
    verifier = ProgramVerifier(SETTINGS.model_copy(update={"timeout_s": LONG_S}))
    verifier.warm()
    texts = [f"def f(x):\n    return x + {1 + i % 2}\n" for i in range(20)]
    found = [judgement.verdict for judgement in verifier.judge([*((text, CALLS) for text in texts), ("  ", CALLS)])]
    assert found == [Verdict.RIGHT, Verdict.WRONG] * 10 + [Verdict.UNPARSABLE]
    verifier.close()


def with_a_step_that_fails(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """As on a machine that forbids this step."""
    code = (
        "import covent.verifiers.namespaces as n\nreal = n.call_library\n"
        f"def call(name, *rest):\n    if name == {step!r}: raise n.IsolationFailed(name + ': forbidden here')\n"
        "    return real(name, *rest)\nn.call_library = call\n"
    )
    started = module._START.replace("from covent.verifiers.jail", f"exec({code!r});from covent.verifiers.jail")
    monkeypatch.setattr(module, "_START", started)


@pytest.mark.parametrize("step", ["unshare", "mount", "pivot_root", "capset"])
def test_where_a_step_fails_programs_are_refused(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    with_a_step_that_fails(monkeypatch, step)
    sandbox = Sandbox(SETTINGS)
    sandbox._routes = ("user namespaces",)
    with pytest.raises(IsolationError, match=r"cannot isolate .*allow_unsafe_programs"):
        sandbox.judge(RIGHT, CALLS)


@isolated
@pytest.mark.skipif(len(ROUTES) == 1, reason="bubblewrap is not installed, or this is root")
def test_bubblewrap_is_used_where_only_it_may_isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    with_a_step_that_fails(monkeypatch, "unshare")
    sandbox = Sandbox(SETTINGS)
    assert sandbox.judge(RIGHT, CALLS).verdict is Verdict.RIGHT
    assert sandbox.route == "bubblewrap"
    sandbox.close()


@isolated
def test_a_leak_is_noticed_before_any_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the proof: told to expect the environment it does not have, the sandbox refuses."""
    monkeypatch.setitem(module._SURROUNDINGS, "hidden file", True)
    with pytest.raises(IsolationError, match="sees more than it should"):
        Sandbox(SETTINGS).judge(RIGHT, CALLS)


_AS_NOBODY = """
from covent.verifiers.sandbox import Sandbox
from covent.verifiers.settings import VerifierSettings
import os
assert os.geteuid() != 0
sandbox = Sandbox(VerifierSettings())
print(sandbox.judge("def f(x):\\n    return x + 1\\n", {"kind": "calls", "name": "f", "cases": [[[1], 2]]}).verdict)
sandbox.close()
"""


@isolated
@pytest.mark.skipif(os.geteuid() != 0, reason="the suite does not run as root: all other tests are this one")
def test_an_ordinary_user_can_isolate_programs() -> None:
    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code], user=65534, group=65534, extra_groups=[], capture_output=True, text=True,
            cwd="/", env={"PYTHONPATH": PATH},
        )  # fmt: skip

    try:
        if run("import covent.verifiers.sandbox").returncode != 0:
            pytest.skip("an ordinary user cannot read this Python or this folder")
    except PermissionError:
        pytest.skip("an ordinary user cannot run this Python")
    assert run(_AS_NOBODY).stdout == "right\n"


_PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
from covent.verifiers.programs import ProgramVerifier
from covent.verifiers.settings import VerifierSettings
tests = {"kind": "calls", "name": "f", "cases": [[[1], 2]]}
verifier = ProgramVerifier(VerifierSettings(timeout_s=600))
verifier.judge([("def f(x): return 2", tests)] * 4)
print("ready", flush=True)
verifier.judge([("while True: pass", tests), ("import time; time.sleep(600)", tests)])
"""


@isolated
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_sandboxes_die_with_their_parent(how: signal.Signals) -> None:
    """B5 row 35, for sandboxes."""
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT, text=True,
        env={**os.environ, "PYTHONPATH": PATH},
    ) as parent:  # fmt: skip
        try:
            assert parent.stdout and parent.stdout.readline() == "ready\n"
            under = at_least(6, parent.pid)  # two sandboxes with their servers and programs
            parent.send_signal(how)
            parent.wait(60)
        finally:
            parent.kill()
        assert all_gone(under, 2), alive(under)


def test_isolation_is_the_kernels_and_linux_only() -> None:
    """On other systems the C library has no `unshare`, and that is what the refusal says."""
    if not hasattr(namespaces._LIBRARY, "unshare"):
        assert "has no unshare" in MISSING
    else:
        assert sys.platform == "linux"
