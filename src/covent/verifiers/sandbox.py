"""T2: one sandbox, in which programs run one after another, cut off from files, network and each other.

Isolation is the kernel's (`namespaces`), set up without privileges, or with bubblewrap's help where only that may make
namespaces. It is proved by a program that tries to get out before any other may run; where it cannot be had, as on
macOS, programs are refused unless the user asked to run them all the same.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covent.errors import IsolationError
from covent.verifiers.bubblewrap import bubblewrap_command, needed_folders
from covent.verifiers.channel import Channel, ChannelClosed, ChannelTimeout
from covent.verifiers.program_cases import Found, Program, judge_cases
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

_START_S = 60.0
_END_S = 5.0
_START = "import sys; sys.path.append(sys.argv[1]);from covent.verifiers.jail import main; main(int(sys.argv[2]))"
_MAX_VERDICT_BYTES = 1 << 16
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "BLIS", "VECLIB_MAXIMUM")}
"""For what numpy loads: a process with threads cannot be isolated."""
_PACKAGES = str(Path(__file__).parents[2])

_PROBE = """
import os, socket

def reaches(family, kind, address):
    try:
        with socket.socket(family, kind) as connection:
            connection.settimeout(1)
            connection.connect(address)
        return True
    except OSError:
        return False

def writes(path):
    try:
        with open(path, "w") as file:
            file.write("x")
        return True
    except OSError:
        return False

def surroundings(hidden):
    return {
        "files": sorted(os.listdir("/")),
        "hidden file": os.path.exists(hidden),
        "network": reaches(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 9))
        or reaches(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 9)),
        "environment": dict(os.environ),
        "parent": os.getppid(),
        "writes outside": writes("/outside"),
        "writes inside": writes("inside"),
    }
"""
_SURROUNDINGS = {
    "files": ["scratch"],
    "hidden file": False,
    "network": False,
    "environment": {},
    "parent": 1,
    "writes outside": False,
    "writes inside": True,
}
_ADD = "def add(a, b):\n    return a + b\n"


@dataclass
class _State:
    """What has to be ended with the sandbox, kept apart so that a finalizer can hold it."""

    process: subprocess.Popen[bytes] | None = None
    control: Channel | None = None

    def end(self) -> None:
        if self.control is not None:
            self.control.close()
            self.control = None
        if self.process is not None:
            try:
                self.process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


class Sandbox:
    """One sandbox; started by its first program, started again when it is lost. Not for two threads at once."""

    def __init__(self, settings: VerifierSettings) -> None:
        self._settings = settings
        self._routes = ("none",) if settings.allow_unsafe_programs else ("user namespaces", "bubblewrap")
        self.route = ""
        """What isolates the programs, once one has run: `user namespaces`, `bubblewrap`, or `none`."""
        self.no_filter = ""
        """Why no filter of system calls is in force, once one has run; empty if one is."""
        self._state = _State()
        self._finalizer = weakref.finalize(self, self._state.end)

    def close(self) -> None:
        """End it with all that runs in it. A later program starts another."""
        self._state.end()

    def judge(self, program: str, tests: Mapping[str, Any], poll: Poll = keep_waiting) -> Judgement:
        """Run a program with its tests.

        A sandbox that is lost is started anew and the program run once more: once is an accident, twice is the
        program's doing.

        Args:
            program: Python source.
            tests: from `covent.verifiers.programs.tests_of`.
            poll: see `Poll`.

        Raises: IsolationError: this machine cannot isolate programs, and that is not allowed for.
        """
        if self._state.process is None:
            self.start()
        for is_last in (False, True):
            try:
                return self._run(program, tests, poll)
            except (ChannelClosed, ChannelTimeout) as lost:
                self.close()
                if is_last:
                    return Judgement.of(Verdict.CRASH, f"the sandbox was lost twice: {lost}")
                self.start()
            except BaseException:
                self.close()
                raise
        raise AssertionError("unreachable")

    def start(self) -> None:
        """Start it and let a program try to get out.

        Raises: IsolationError
        """
        failures = []
        for route in self._routes:
            try:
                self._start(route)
                self._prove(route)
            except (IsolationError, ChannelClosed, ChannelTimeout) as error:
                self.close()
                failures.append(f"{route}: {error}")
            else:
                self.route = route
                return
        raise IsolationError(
            f"This machine cannot isolate the programs of a code task ({'; '.join(failures)})."
            " Needed are unprivileged user namespaces on Linux, or bubblewrap (bwrap) where only it may make them."
            " verifier.allow_unsafe_programs=true runs them all the same, with your files and network in reach.",
            cause="; ".join(failures),
        )

    def _start(self, route: str) -> None:
        settings = self._settings
        wrapper = []
        if route == "bubblewrap":
            folders = [*needed_folders(_PACKAGES), *(sys.path if settings.modules else [])]
            wrapper = bubblewrap_command(folders, settings.scratch_mb)
        mine, theirs = Channel.pair()
        # No -E: the fixed hash seed makes the order of sets, and so a verdict, the same each time.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._state.process = subprocess.Popen(
            [*wrapper, sys.executable, "-S", "-s", "-B", "-P", "-c", _START, _PACKAGES, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONHASHSEED": "0", **_ONE_THREAD, **kept},
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._state.control = mine
        deadline = time.monotonic() + _START_S
        config = {
            "route": route,
            "modules": list(settings.modules),
            "module_path": sys.path,
            "memory_mb": settings.memory_mb,
            "timeout_s": settings.timeout_s,
            "scratch_mb": settings.scratch_mb,
            "processes": settings.max_program_processes,
        }
        mine.send(config, deadline=deadline)
        reply = mine.receive(deadline=deadline)
        if "error" in reply:
            raise IsolationError(reply["error"])
        self.no_filter = str(reply["no_filter"])

    def _prove(self, route: str) -> None:
        """A known right program scores, a known wrong one does not, and none sees the machine."""
        sums = {"kind": "calls", "name": "add", "cases": [[[1, 2], 3]]}
        right, wrong = (self._run(text, sums, keep_waiting) for text in (_ADD, _ADD.replace("+", "-")))
        if (right.verdict, wrong.verdict) != (Verdict.RIGHT, Verdict.WRONG):
            raise IsolationError(f"a right program is {right}, and a wrong one {wrong}")
        if route != "none":
            tests = {"kind": "calls", "name": "surroundings", "cases": [[[__file__], _SURROUNDINGS]]}
            seen = self._run(_PROBE, tests, keep_waiting)
            if seen.verdict is not Verdict.RIGHT:
                raise IsolationError(f"a program sees more than it should: {seen.reason}")

    def _run(self, program: str, tests: Mapping[str, Any], poll: Poll) -> Judgement:
        control, deadline = self._state.control, time.monotonic() + self._settings.timeout_s
        assert control is not None
        run = self._run_python_tests if tests["kind"] == "asserts" else self._run_cases
        try:
            found = run(control, program, tests, deadline, poll)
        except ChannelTimeout:
            found = Found(Verdict.TIME_OUT, f"no end in {self._settings.timeout_s:g} s")
        control.send({"end": True})
        end = control.receive(deadline=time.monotonic() + _END_S)
        reason = found.reason
        if found.verdict is Verdict.CRASH and end.get("alone"):
            reason += f" with signal {end['signal']}" if end["signal"] else f" with exit code {end['exit']}"
        return Judgement.of(found.verdict, reason)

    def _run_cases(
        self, control: Channel, program: str, tests: Mapping[str, Any], deadline: float, poll: Poll
    ) -> Found:
        """Call the program from here and compare here."""
        calls, inside = Channel.pair()
        try:
            control.send({"job": True}, [inside.fileno()])
            inside.close()
            try:
                calls.send(program, deadline=deadline, wait=poll)
            except ChannelClosed:
                return Found(Verdict.CRASH, "the program's process ended")
            return judge_cases(Program(calls, deadline=deadline, poll=poll), tests)
        finally:
            inside.close()
            calls.close()

    def _run_python_tests(
        self, control: Channel, program: str, tests: Mapping[str, Any], deadline: float, poll: Poll
    ) -> Found:
        """Let a process beside the program's call it and compare."""
        source, source_inside = Channel.pair()
        verdicts, verdicts_inside = Channel.pair()
        nonce = secrets.token_hex(16)
        try:
            control.send({"job": True}, [source_inside.fileno(), verdicts_inside.fileno()])
            source_inside.close()
            verdicts_inside.close()
            try:
                source.send(program, deadline=deadline, wait=poll)
                verdicts.send({**tests, "nonce": nonce}, deadline=deadline, wait=poll)
                reply = verdicts.receive(deadline=deadline, wait=poll, max_bytes=_MAX_VERDICT_BYTES)
            except ChannelClosed:
                return Found(Verdict.CRASH, "the program's process, or that of its tests, ended")
            if not isinstance(reply, dict) or reply.get("nonce") != nonce:
                return Found(Verdict.CRASH, "a verdict without its nonce")
            return Found(Verdict(reply["verdict"]), str(reply["reason"]))
        finally:
            for channel in (source, source_inside, verdicts, verdicts_inside):
                channel.close()
