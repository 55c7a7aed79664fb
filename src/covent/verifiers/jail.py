"""The process that programs are forked from, cut off before the first of them. Only ever runs in a process of its own.

For each job it forks a process that is handed the program, straight from the process that asked, and nothing else.
What it can do is answer calls with plain data; whoever calls compares. Tests that are pairs of values are called from
outside. Tests that are written in Python run in a second process beside the program's, which reads them and sends its
verdict over a socket of its own. Neither this server nor the program ever holds tests, expected values or that socket.
"""

from __future__ import annotations

import contextlib
import encodings
import gc
import importlib
import os
import pkgutil
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from covent.verifiers import bubblewrap, namespaces, system_calls
from covent.verifiers.channel import Channel, ChannelClosed
from covent.verifiers.program_child import serve_calls
from covent.verifiers.program_tests import run_tests

PRELOADED = (
    "abc",
    "argparse",
    "array",
    "ast",
    "asyncio",
    "base64",
    "bisect",
    "bz2",
    "calendar",
    "cmath",
    "cmd",
    "codecs",
    "collections",
    "collections.abc",
    "colorsys",
    "concurrent.futures.thread",
    "configparser",
    "contextlib",
    "contextvars",
    "copy",
    "copyreg",
    "cProfile",
    "csv",
    "ctypes",
    "dataclasses",
    "datetime",
    "decimal",
    "difflib",
    "dis",
    "doctest",
    "email",
    "enum",
    "errno",
    "faulthandler",
    "fileinput",
    "fnmatch",
    "fractions",
    "functools",
    "gc",
    "getopt",
    "glob",
    "graphlib",
    "gzip",
    "hashlib",
    "heapq",
    "hmac",
    "html",
    "html.parser",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "locale",
    "logging",
    "logging.handlers",
    "lzma",
    "marshal",
    "math",
    "numbers",
    "opcode",
    "operator",
    "optparse",
    "pathlib",
    "pickle",
    "platform",
    "posixpath",
    "pprint",
    "queue",
    "random",
    "re",
    "reprlib",
    "sched",
    "secrets",
    "select",
    "selectors",
    "shlex",
    "shutil",
    "signal",
    "socket",
    "stat",
    "statistics",
    "string",
    "struct",
    "subprocess",
    "sys",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "timeit",
    "tokenize",
    "traceback",
    "tracemalloc",
    "types",
    "typing",
    "unicodedata",
    "unittest",
    "unittest.mock",
    "urllib.parse",
    "uuid",
    "warnings",
    "weakref",
    "xml.etree.ElementTree",
    "zipfile",
    "zlib",
    "zoneinfo",
    "_strptime",
    *(f"encodings.{codec.name}" for codec in pkgutil.iter_modules(encodings.__path__)),
)
"""What a program can import, and what that imports when it is first used: there are no files to import it from."""


def main(control_fd: int) -> None:
    """Serve until the other end of the control socket closes."""
    control = Channel(socket.socket(fileno=control_fd))
    config = control.receive()
    _preload(PRELOADED, [])
    missing = _preload(config["modules"], config["module_path"])
    route = config["route"]
    no_filter = ""
    try:
        if missing:
            raise namespaces.IsolationFailed(f"verifier.modules cannot be imported: {', '.join(missing)}")
        if route == "user namespaces" and (threads := len(os.listdir("/proc/self/task")) - 1):
            raise namespaces.IsolationFailed(
                f"importing verifier.modules started {threads} threads, and only a process without any can be isolated"
            )
        if route == "user namespaces":
            namespaces.isolate()
        elif route == "bubblewrap":
            namespaces.empty_root_by_chroot(bubblewrap.ROOT)
        if route != "none":
            namespaces.hide_memory()
            _leave_keyring()
            no_filter = _filter_calls()
    except namespaces.IsolationFailed as error:
        control.send({"error": str(error)})
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.environ.clear()
    sys.argv[:] = ["program.py"]
    gc.collect()
    gc.freeze()
    control.send({"ready": True, "no_filter": no_filter})
    own = _limits()
    with contextlib.suppress(ChannelClosed):
        # Where nothing filters its calls, a program can change them. Whoever asked then hears nothing, and starts anew.
        while _limits() == own:
            end = _job(control, config, route)
            if _limits() == own:
                control.send(end)


def _limits() -> list[Any]:
    """What this process may use; what it forks inherits that."""
    kinds = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
    return [os.getpriority(os.PRIO_PROCESS, 0), *map(resource.getrlimit, kinds)]


def _leave_keyring() -> None:
    """Where the kernel gives no keyring, or the filter is in force, there are no keys to be found."""
    with contextlib.suppress(namespaces.IsolationFailed):
        system_calls.leave_keyring()


def _filter_calls() -> str:
    """Why there can be no filter of system calls; empty if it is in force."""
    try:
        system_calls.filter_calls()
    except namespaces.IsolationFailed as error:
        return str(error)
    return ""


def _preload(modules: Sequence[str], path: list[str]) -> list[str]:
    """Import modules, from `path` too; those that cannot be imported."""
    before, missing = list(sys.path), []
    sys.path += path
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append(module)
    sys.path[:] = before
    return missing


def _job(control: Channel, config: Any, route: str) -> dict[str, Any]:
    """Fork the program and its tests, wait until whoever asked has what it wants, and leave nothing behind."""
    _, fds = control.receive_fds()
    if route == "none":
        with tempfile.TemporaryDirectory(prefix="covent-program-") as scratch:
            end = _run_job(control, config, route, scratch, *fds)
    else:
        end = _run_job(control, config, route, namespaces.SCRATCH, *fds)
        if route == "bubblewrap":
            _empty("/")
    return end


def _run_job(
    control: Channel, config: Any, route: str, scratch: str, program_fd: int, tests_fd: int | None = None
) -> dict[str, Any]:
    """How the program had ended before it was ended; tests in Python have a process of their own beside it."""
    isolated = route != "none"
    ours, theirs = Channel.pair() if tests_fd is not None else (None, None)

    def be_program() -> None:
        if route == "user namespaces":
            namespaces.own_scratch(config["scratch_mb"])
        if isolated:
            _leave_keyring()
        os.chdir(scratch)
        _give_up_rights(config, isolated)
        source = _channel(program_fd)
        serve_calls(source, theirs or source)

    def be_tests() -> None:
        assert tests_fd is not None and ours is not None
        _give_up_rights(config, isolated)
        run_tests(_channel(tests_fd), ours)

    children = [_fork(be_program, [program_fd] + ([theirs.fileno()] if theirs else []))]
    os.close(program_fd)
    if tests_fd is not None and ours is not None and theirs is not None:
        children.append(_fork(be_tests, [tests_fd, ours.fileno()]))
        os.close(tests_fd)
        ours.close()
        theirs.close()
    try:
        control.receive()  # whoever asked has the verdict, or gave up
    finally:
        ends = _end_all(children, isolated)
    end: dict[str, Any] = ends.get(children[0], {})
    return end


def _empty(root: str) -> None:
    """Remove whatever a program left under the root, and make the scratch folder anew."""
    os.chmod(root, 0o700)
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, onerror=_try_again)
        else:
            os.unlink(entry.path)
    os.mkdir(root + namespaces.SCRATCH.lstrip("/"), 0o700)
    os.chmod(root, 0o500)


def _try_again(remove: Callable[[str], Any], path: str, error: Any) -> None:
    """A program may have taken its folders' rights away."""
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    remove(path)


def _channel(fd: int) -> Channel:
    return Channel(socket.socket(fileno=fd))


def _fork(run: Callable[[], None], fds: list[int]) -> int:
    """A child that has these file descriptors, /dev/null, and no others."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        low = 3
        for fd in sorted(fds):
            os.closerange(low, fd)
            low = fd + 1
        os.closerange(low, 1 << 16)
        run()
    except BaseException:  # noqa: S110 - a child has nobody to tell; its end without a verdict says it
        pass
    finally:
        os._exit(0)


def _give_up_rights(config: Any, isolated: bool) -> None:
    # Counted inside are this server, what it was forked from, and the tests' process, besides the program's own.
    namespaces.limit_resources(
        memory_mb=config["memory_mb"],
        cpu_s=config["timeout_s"],
        files_mb=config["scratch_mb"],
        processes=3 + config["processes"],
    )
    if isolated:
        namespaces.drop_capabilities()
    random.seed(0)


def _end_all(children: list[int], isolated: bool) -> dict[int, Any]:
    """Kill everything but this process, and wait until it is gone; how the children had ended, by process number."""
    ends: dict[int, Any] = {}
    # Those that have ended by themselves, before a signal can change how they end.
    for pid in children:
        _reap(pid, os.WNOHANG, ends)
    if isolated:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            _reap(-1, 0, ends, killed=True)
    return ends


def _reap(pid: int, options: int, ends: dict[int, Any], *, killed: bool = False) -> None:
    if not killed and pid in ends:
        return
    found, status, usage = os.wait4(pid, options)
    if found:
        ends[found] = {
            "alone": not killed,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "exit": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }
