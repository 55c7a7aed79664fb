"""T1: children that judge, killed at their deadline, replaced at once, gone when this process is gone.

The children are forked from a server process of their own (`fork_server`), never from this one, so that threads,
GPUs and open files here do not matter. All methods may be called from any thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from covent.errors import VerifierError
from covent.verifiers.channel import Channel, ChannelClosed, ChannelTimeout
from covent.verifiers.in_parallel import in_parallel
from covent.verifiers.verdict import Poll, keep_waiting

_START_S = 120.0
_CONTROL_S = 10.0
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    "from covent.verifiers.fork_server import main; main(int(sys.argv[2]))"
)
# A child that got less than this share of its deadline in processor time was starved; it was not kept busy.
_STARVED_FRAC = 0.1


@dataclass(frozen=True)
class Limits:
    """What a child may use; None for no limit."""

    memory_mb: int | None = None
    cpu_s: float | None = None
    no_files: bool = False
    """Whether it may write no file."""


@dataclass(frozen=True)
class Outcome:
    """What became of a request."""

    kind: Literal["done", "raised", "time-out", "starved", "memory", "crash"]
    value: Any = None
    detail: str = ""


@dataclass
class _Server:
    """The fork server of one pool, and the connection to it."""

    process: subprocess.Popen[bytes]
    control: Channel

    def ask(self, message: Any, fds: Sequence[int] = ()) -> Any:
        deadline = time.monotonic() + _CONTROL_S
        self.control.send(message, fds, deadline=deadline)
        return self.control.receive(deadline=deadline)

    def end(self) -> None:
        self.control.close()
        try:
            self.process.wait(_CONTROL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class _Child:
    pid: int
    channel: Channel
    server: _Server
    cpu_s: float = 0.0


@dataclass
class _State:
    """What has to be ended with the pool, kept apart so that a finalizer can hold it."""

    server: _Server | None = None
    idle: list[_Child] = field(default_factory=list)

    def end(self) -> None:
        for child in self.idle:
            child.channel.close()
        self.idle.clear()
        if self.server is not None:
            self.server.end()
            self.server = None


class Children:
    """A pool of children that run one handler."""

    def __init__(
        self,
        target: str,
        settings: Mapping[str, Any],
        *,
        size: int,
        limits: Limits,
        preload: bool = True,
        environment: Mapping[str, str] | None = None,
        show_output: bool = False,
    ) -> None:
        """Nothing is started yet.

        Args:
            target: `module:function`; the function takes `settings` and returns the handler of requests. Settings,
                requests and replies are what JSON can hold.
            settings: for the target.
            size: children at the same time.
            limits: of each child.
            preload: call the target once in the server, before children are forked from it; otherwise in each child.
            environment: of the children; None for an empty one, without the secrets of this process.
            show_output: let what children print reach this process' standard error.
        """
        self._target, self._settings, self._limits = target, dict(settings), limits
        self._preload, self._show_output = preload, show_output
        self._environment = dict(environment or {})
        self._size = size
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._state = _State()
        self._finalizer = weakref.finalize(self, self._state.end)

    def close(self) -> None:
        """End all children. A later request starts new ones."""
        with self._lock:
            self._state.end()

    def warm(self) -> None:
        """Start what a first request would have to wait for.

        Raises: VerifierError: the children cannot be started.
        """
        with self._slots:
            child = self._fresh_child()
            self._state.idle.append(child)

    def ask_all(self, requests: Sequence[Any], timeout_s: float, poll: Poll = keep_waiting) -> list[Outcome]:
        """What became of each request, in their order.

        Args:
            requests: what JSON can hold.
            timeout_s: wall time of each, counted from when a child takes it.
            poll: called about every 50 ms; when it raises, all children are stopped and its error is passed on.

        Raises: VerifierError: the children cannot be started.
        """
        return in_parallel(
            lambda request, poll: self.ask(request, timeout_s, poll), requests, size=self._size, poll=poll
        )

    def ask(self, request: Any, timeout_s: float, poll: Poll = keep_waiting) -> Outcome:
        """What became of one request; at most `timeout_s` and the time of a kill later.

        A child that ends without a reply is replaced and asked once more, in the time that is left: once is an
        accident, twice is the request's doing.
        """
        with self._slots:
            self._ensure_server()
            deadline = time.monotonic() + timeout_s
            outcome = self._ask_once(request, timeout_s, deadline, poll)
            if outcome.kind == "crash" and time.monotonic() < deadline:
                outcome = self._ask_once(request, timeout_s, deadline, poll)
            return outcome

    def _ask_once(self, request: Any, timeout_s: float, deadline: float, poll: Poll) -> Outcome:
        child = self._idle_child()
        try:
            child.channel.send(request, deadline=deadline, wait=poll)
            reply = child.channel.receive(deadline=deadline, wait=poll)
        except ChannelTimeout:
            cpu_s = self._end(child)["cpu_s"] - child.cpu_s
            if cpu_s < _STARVED_FRAC * timeout_s:
                return Outcome("starved", detail=f"{cpu_s:.2f} s of processor time in {timeout_s:g} s")
            return Outcome("time-out", detail=f"no reply in {timeout_s:g} s")
        except ChannelClosed:
            end = self._end(child)
            how = f"signal {end['signal']}" if end["signal"] else f"exit code {end['exit']}"
            return Outcome("crash", detail=f"its process ended with {how}")
        except BaseException:
            self._end(child)
            raise
        if "memory" in reply:
            self._end(child)
            return Outcome("memory", detail=f"more than {self._limits.memory_mb} MB of memory")
        child.cpu_s = reply["cpu_s"]
        self._state.idle.append(child)
        if "raised" in reply:
            return Outcome("raised", detail=reply["raised"])
        return Outcome("done", reply["value"])

    def _idle_child(self) -> _Child:
        try:
            return self._state.idle.pop()
        except IndexError:
            return self._fresh_child()

    def _end(self, child: _Child) -> Any:
        child.channel.close()
        with self._lock:
            if child.server is self._state.server:
                try:
                    return child.server.ask({"kill": child.pid})
                except (ChannelClosed, ChannelTimeout):
                    # The server is gone, and its children with it; the next request starts another.
                    self._state.end()
            return {"signal": 0, "exit": None, "cpu_s": child.cpu_s}

    def _fresh_child(self) -> _Child:
        mine, theirs = Channel.pair()
        try:
            for is_last in (False, True):
                server = self._ensure_server()
                with self._lock:
                    try:
                        return _Child(server.ask({"fork": True}, [theirs.fileno()])["pid"], mine, server)
                    except (ChannelClosed, ChannelTimeout):
                        self._state.end()
                        if is_last:
                            raise VerifierError(f"The server of {self._target} ends whenever it is asked.") from None
            raise AssertionError("unreachable")
        finally:
            theirs.close()

    def _ensure_server(self) -> _Server:
        with self._lock:
            if self._state.server is None:
                self._state.server = self._start_server()
            return self._state.server

    def _start_server(self) -> _Server:
        mine, theirs = Channel.pair()
        command = [sys.executable, "-c", _START, json.dumps(sys.path), str(theirs.fileno())]
        output = None if self._show_output else subprocess.DEVNULL
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno() if self._show_output and _has_fileno(sys.stderr) else output,
            stderr=output,
            env=self._environment,
            start_new_session=True,
        )
        theirs.close()
        server = _Server(process, mine)
        try:
            mine.send(
                {
                    "sys_path": sys.path,
                    "parent": os.getpid(),
                    "target": self._target,
                    "settings": self._settings,
                    "preload": self._preload,
                    "limits": vars(self._limits),
                }
            )
            reply = mine.receive(deadline=time.monotonic() + _START_S)
        except (ChannelClosed, ChannelTimeout) as error:
            server.end()
            raise VerifierError(f"The process that judges with {self._target} cannot be started: {error}.") from error
        if "error" in reply:
            server.end()
            raise VerifierError(f"{self._target} cannot be started: {reply['error']}")
        return server


def _has_fileno(stream: Any) -> bool:
    try:
        return isinstance(stream.fileno(), int)
    except (OSError, ValueError, AttributeError):
        return False
