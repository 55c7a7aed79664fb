"""The process that judging children are forked from, and what such a child does. It never runs in the trainer's own.

It has one thread and has imported what judging needs, so that a fresh child is there in milliseconds. It ends, and
takes its children with it, as soon as the process that started it is gone. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from covent.verifiers.channel import Channel, ChannelClosed

Handler = Callable[[Any], Any]

_POLL_MS = 500
_PR_SET_PDEATHSIG = 1
_WATCH_S = 0.02


def main(control_fd: int) -> None:
    """Serve until the other end of the control socket closes, or its process is gone."""
    # What a terminal sends to all its processes is for the trainer, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    control = Channel(socket.socket(fileno=control_fd))
    config = control.receive()
    sys.path[:] = config["sys_path"]
    try:
        factory = load_target(config["target"])
        handler = factory(config["settings"]) if config["preload"] else None
    except BaseException as error:
        control.send({"error": _described(error), "trace": traceback.format_exc(limit=-4)})
        return
    # What lives now stays: collecting it in each child would only copy its pages.
    gc.collect()
    gc.freeze()
    control.send({"ready": True})
    children: set[int] = set()
    try:
        while os.getppid() == config["parent"]:
            if _readable(control):
                _serve(control, children, config, factory, handler)
    except ChannelClosed:
        pass
    finally:
        for pid in children:
            _kill(pid)


def load_target(target: str) -> Callable[[Any], Handler]:
    """The function that `module:name` names."""
    module, _, name = target.partition(":")
    found: Callable[[Any], Handler] = getattr(importlib.import_module(module), name)
    return found


def _readable(control: Channel) -> bool:
    ready = select.poll()
    ready.register(control, select.POLLIN)
    return bool(ready.poll(_POLL_MS))


def _serve(
    control: Channel, children: set[int], config: Any, factory: Callable[[Any], Handler], handler: Handler | None
) -> None:
    """One request: a new child on the socket that comes with it, or the end of one."""
    request, fds = control.receive_fds()
    if "kill" in request:
        pid = request["kill"]
        assert pid in children, "only its own children are a server's to kill"
        children.discard(pid)
        control.send(_kill(pid))
        return
    (fd,) = fds
    server, pid = os.getpid(), os.fork()
    if pid == 0:
        try:
            control.close()
            os.setpgid(0, 0)
            die_with_parent(server)
            _work(Channel(socket.socket(fileno=fd)), config, factory, handler)
        finally:
            os._exit(0)
    os.close(fd)
    children.add(pid)
    control.send({"pid": pid})


def _kill(pid: int) -> dict[str, Any]:
    """End a child with everything in its process group; what it used and how it had ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "cpu_s": usage.ru_utime + usage.ru_stime,
    }


def _work(channel: Channel, config: Any, factory: Callable[[Any], Handler], handler: Handler | None) -> None:
    """A child: answer requests until the other end closes."""
    limits = config["limits"]
    limit_memory(limits.get("memory_mb"))
    if limits.get("no_files"):
        for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
            resource.setrlimit(what, (0, 0))
    if handler is None:
        try:
            handler = factory(config["settings"])
        except BaseException as error:
            handler = _failing(_described(error))
    while True:
        try:
            request = channel.receive()
        except ChannelClosed:
            return
        if limits.get("cpu_s"):
            limit_cpu(limits["cpu_s"])
        channel.send(_answer(handler, request) | {"cpu_s": time.process_time()})


def _failing(description: str) -> Handler:
    def handler(request: Any) -> Any:
        raise RuntimeError(f"could not be loaded: {description}")

    return handler


def _answer(handler: Handler, request: Any) -> dict[str, Any]:
    try:
        reply = {"value": handler(request)}
        json.dumps(reply)  # what cannot be sent is the handler's failure
        return reply
    except MemoryError:
        return {"memory": True}
    except BaseException as error:
        return {"raised": _described(error)}


def _described(error: BaseException) -> str:
    """Type and message in one short line; an exception's own text may fail."""
    try:
        text = " ".join(str(error).split())[:300]
    except Exception:
        text = "(its text cannot be shown)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def die_with_parent(parent: int) -> None:
    """On Linux the kernel kills this process when its parent ends. Elsewhere the CPU limit and the closed socket do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def limit_memory(megabytes: int | None) -> None:
    """No more address space than this. macOS has no such limit, so a thread ends the process instead."""
    if megabytes is None:
        return
    size = megabytes * 1024 * 1024
    try:
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    except (ValueError, OSError):
        watch_memory(size)
    if sys.platform == "darwin":
        watch_memory(size)


def watch_memory(size: int) -> None:
    """End this process with SIGKILL once its largest resident size passes `size` bytes; looked at every 20 ms.

    It cannot look while one operation of C code holds the interpreter, so that it bounds less tightly than a limit.
    """
    unit = 1 if sys.platform == "darwin" else 1024

    def watch() -> None:
        while resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit < size:
            time.sleep(_WATCH_S)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def limit_cpu(seconds: float) -> None:
    """So many more seconds of processor time, rounded up, and one to spare; then SIGXCPU."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
