"""In the program's process: load it, then answer calls with plain data until the other end closes.

`execute` is the one place in covent that runs code from a model or from tests, and it is only ever reached from `jail`.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import sys
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

from covent.verifiers.channel import Channel, ChannelClosed
from covent.verifiers.program_values import NotPlain, decoded, encoded

_MAX_OUTPUT_BYTES = 1 << 20


def serve_calls(source: Channel, calls: Channel) -> None:
    """Read the program from `source`, then serve `calls` of its functions; the two may be one channel.

    A request is `{"call": name, "cases": [arguments, …], "named": {…}}` or `{"stdin": [text, …]}`. The reply is
    `{"values": […]}` or `{"outputs": [text, …]}`, with what `_raised` says if a case raised, which is then the last;
    or `{"no_program": reason}`.
    """
    # What `site` would define: programs end themselves with either.
    vars(builtins).update(exit=sys.exit, quit=sys.exit)
    failure: dict[str, Any]
    text = source.receive()
    if source is not calls:
        source.close()
    try:
        code = compile(text, "<program>", "exec", dont_inherit=True)
    except BaseException as error:
        code, failure = None, {"no_program": _described(error)}
    namespace: dict[str, Any] | None = None
    while True:
        try:
            request = calls.receive()
        except ChannelClosed:
            return
        if code is None:
            reply = failure
        elif "stdin" in request:
            reply = _printed(code, request["stdin"])
        else:
            reply = {}
            if namespace is None:
                namespace = fresh_namespace("program")
                reply = _run(code, namespace, "", keep=True)
            if "raised" in reply:
                code, failure = None, reply | {"values": []}
                reply = failure
            else:
                reply = _called(namespace, request)
        calls.send(reply)


def _called(namespace: dict[str, Any], request: Any) -> dict[str, Any]:
    find = _finder(namespace, request["call"])
    if find is None:
        return {"no_program": f"it defines no function '{request['call']}'"}
    values: list[Any] = []
    try:
        named = {name: decoded(value) for name, value in request["named"].items()}
        for arguments in request["cases"]:
            values.append(encoded(find()(*map(decoded, arguments), **named)))
    except NotPlain as error:
        return {"values": values, "raised": f"TypeError: returned {error}"}
    except BaseException as error:
        return {"values": values, **_raised(error)}
    return {"values": values}


def _finder(namespace: dict[str, Any], name: str) -> Callable[[], Any] | None:
    """What gives the function of this name: the program's own, or, for each call anew, one of its class `Solution`."""
    if callable(function := namespace.get(name)):
        return lambda: function
    solution = namespace.get("Solution")
    if isinstance(solution, type) and callable(getattr(solution, name, None)):
        return lambda: getattr(solution(), name)
    return None


def _printed(code: CodeType, texts: list[str]) -> dict[str, Any]:
    outputs: list[str] = []
    for text in texts:
        reply = _run(code, fresh_namespace("__main__"), text, keep=False)
        if "raised" in reply:
            return {"outputs": outputs, "raised": reply["raised"]}
        outputs.append(reply["output"])
    return {"outputs": outputs}


def _run(code: CodeType, namespace: dict[str, Any], stdin: str, *, keep: bool) -> dict[str, Any]:
    """Execute the whole program once with this standard input; what it printed. Its names end with it unless kept."""
    try:
        printed = _replace_streams(stdin)
        stdout = sys.stdout
        with contextlib.suppress(SystemExit):
            execute(code, namespace)
        for stream in (sys.stdout, stdout):  # the program may have put another there, and closed either
            with contextlib.suppress(ValueError):
                stream.flush()
        if not keep:
            namespace.clear()  # files that it left open write what they hold
            with contextlib.suppress(ValueError):
                stdout.flush()
        output = os.pread(printed, _MAX_OUTPUT_BYTES + 1, 0)
        os.close(printed)
        if len(output) > _MAX_OUTPUT_BYTES:
            raise OSError(f"more than {_MAX_OUTPUT_BYTES} bytes of output")
    except BaseException as error:
        return {"raised": _described(error)}
    return {"output": output.decode("utf-8", errors="replace")}


def fresh_namespace(name: str) -> dict[str, Any]:
    """The namespace of a new module that can be found by its name, as dataclasses and pickle do."""
    sys.modules[name] = ModuleType(name)
    return vars(sys.modules[name])


def execute(code: CodeType, namespace: dict[str, Any]) -> None:
    """Run compiled code in a namespace of its own."""
    namespace["__builtins__"] = builtins
    exec(code, namespace)  # noqa: S102 - running programs is what a code task does; see the module's docstring


def _replace_streams(stdin: str) -> int:
    """File descriptor 0 and `sys.stdin` both read this text, and 1 and `sys.stdout` write to one file: programs use
    any of them. The file's own descriptor, which is left when a program closes those."""
    # What the last run put there may close 0 or 1 as it goes: not after these are the new files.
    sys.stdin = sys.stdout = None
    given, printed = _nameless_file("stdin"), _nameless_file("stdout")
    with open(given, "wb") as file:
        file.write(stdin.encode())
        file.flush()
        file.seek(0)
        os.dup2(given, 0)
    os.dup2(printed, 1)
    # Both names of each stream, which typing holds for constants; they stay open as long as the program runs.
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    return printed


def _nameless_file(name: str) -> int:
    """An empty file, gone when closed, on a descriptor above those of the standard streams."""
    fds = [os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)]
    os.unlink(name)
    while fds[-1] <= 2:  # the program has closed some of them
        fds.append(os.dup(fds[-1]))
    for fd in fds[:-1]:
        os.close(fd)
    return fds[-1]


def _raised(error: BaseException) -> dict[str, Any]:
    """The exception in words, the first of its classes that is built in, and its arguments if they are plain data."""
    kinds = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
    try:
        arguments = [encoded(argument) for argument in error.args]
    except Exception:  # a program's own exception may have anything there
        arguments = []
    return {"raised": _described(error), "kind": kinds[0] if kinds else "", "arguments": arguments}


def _described(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:200]
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"
