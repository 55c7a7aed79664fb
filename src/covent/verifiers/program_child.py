"""In the program's process: load it, then answer calls with plain data until the other end closes.

`execute` is the one place in covent that runs code from a model or from tests, and it is only ever reached from `jail`.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
from types import CodeType
from typing import Any

from covent.verifiers.channel import Channel, ChannelClosed
from covent.verifiers.program_values import NotPlain, decoded, encoded

_MAX_OUTPUT_BYTES = 1 << 20


def serve_calls(source: Channel, calls: Channel) -> None:
    """Read the program from `source`, then serve `calls` of its functions; the two may be one channel.

    A request is `{"call": name, "cases": [arguments, …], "named": {…}}` or `{"stdin": [text, …]}`. The reply is
    `{"values": […]}` or `{"outputs": [text, …]}`, with `"raised"` if a case raised, which is then the last; or
    `{"no_program": reason}`.
    """
    failure: dict[str, Any]
    text = source.receive()
    if source is not calls:
        source.close()
    try:
        code = compile(text, "<program>", "exec")
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
                namespace = {"__name__": "program"}
                reply = _run(code, namespace, "")
            if "raised" in reply:
                code, failure = None, reply | {"values": []}
                reply = failure
            else:
                reply = _called(namespace, request)
        calls.send(reply)


def _called(namespace: dict[str, Any], request: Any) -> dict[str, Any]:
    function = namespace.get(request["call"])
    if not callable(function):
        return {"no_program": f"it defines no function '{request['call']}'"}
    values: list[Any] = []
    try:
        named = {name: decoded(value) for name, value in request["named"].items()}
        for arguments in request["cases"]:
            values.append(encoded(function(*map(decoded, arguments), **named)))
    except NotPlain as error:
        return {"values": values, "raised": f"TypeError: returned {error}"}
    except BaseException as error:
        return {"values": values, "raised": _described(error)}
    return {"values": values}


def _printed(code: CodeType, texts: list[str]) -> dict[str, Any]:
    outputs: list[str] = []
    for text in texts:
        reply = _run(code, {"__name__": "__main__"}, text)
        if "raised" in reply:
            return {"outputs": outputs, "raised": reply["raised"]}
        outputs.append(reply["output"])
    return {"outputs": outputs}


def _run(code: CodeType, namespace: dict[str, Any], stdin: str) -> dict[str, Any]:
    """Execute the whole program once with this standard input; what it printed."""
    output = _Output()
    try:
        _replace_stdin(stdin)
        sys.stdout = io.TextIOWrapper(output, encoding="utf-8", write_through=True)
        execute(code, namespace)
    except SystemExit:
        pass
    except BaseException as error:
        return {"raised": _described(error)}
    return {"output": output.getvalue().decode("utf-8", errors="replace")}


def execute(code: CodeType, namespace: dict[str, Any]) -> None:
    """Run compiled code in a namespace of its own."""
    namespace["__builtins__"] = builtins
    exec(code, namespace)  # noqa: S102 - running programs is what a code task does; see the module's docstring


def _replace_stdin(text: str) -> None:
    """File descriptor 0 and `sys.stdin` both read this text: programs use either."""
    with open("stdin", "w+b") as file:
        os.unlink("stdin")
        file.write(text.encode())
        file.flush()
        file.seek(0)
        os.dup2(file.fileno(), 0)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open for the program


class _Output(io.BytesIO):
    """Standard output up to a size."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > _MAX_OUTPUT_BYTES:
            raise OSError(f"more than {_MAX_OUTPUT_BYTES} bytes of output")
        return super().write(data)


def _described(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:200]
    except BaseException:
        text = ""
    return f"{type(error).__name__}: {text}"
