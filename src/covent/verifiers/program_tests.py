"""In the tests' process: call the program's functions through its connection, compare, and send one verdict."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, NoReturn

from covent.verifiers.channel import Channel, ChannelClosed
from covent.verifiers.program_child import execute
from covent.verifiers.program_values import decoded, encoded, matches

_MAX_REPLY_BYTES = 32 << 20


class _Ended(BaseException):
    """The verdict is known."""


def _exception(description: str) -> Exception:
    """What the program raised, as the built-in exception of that name where there is one: tests may expect it."""
    name, _, text = description.partition(": ")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass
    return RuntimeError(description)


class Program:
    """The program in the other process, as a mapping from its functions' names to something that calls them."""

    def __init__(self, calls: Channel) -> None:
        self._calls = calls
        self.case = "loading"
        self.ended: tuple[str, str] | None = None

    def call(self, name: str, arguments: list[Any], named: dict[str, Any]) -> Any:
        """What the function returns. Raises: what it raised."""
        reply = self._ask(
            {
                "call": name,
                "arguments": [encoded(argument) for argument in arguments],
                "named": {key: encoded(value) for key, value in named.items()},
            }
        )
        return decoded(reply.get("value"))

    def output(self, stdin: str) -> str:
        """What the program prints when it reads `stdin`. Raises: what it raised."""
        return str(self._ask({"stdin": stdin}).get("output", ""))

    def function(self, name: str) -> Callable[..., Any]:
        """The function of this name, for tests written in Python."""
        return lambda *arguments, **named: self.call(name, list(arguments), named)

    def _ask(self, request: Any) -> dict[str, Any]:
        try:
            self._calls.send(request)
            reply = self._calls.receive(max_bytes=_MAX_REPLY_BYTES)
        except ChannelClosed:
            self.end("crash", f"the program's process ended in {self.case}")
        if not isinstance(reply, dict):
            self.end("wrong", f"{self.case}: no reply of the expected form")
        if "no_program" in reply:
            self.end("unparsable", str(reply["no_program"]))
        if str(reply.get("raised", "")).startswith("MemoryError"):
            self.end("crash", f"{self.case}: the program ran out of memory")
        if "raised" in reply:
            raise _exception(str(reply["raised"]))
        found: dict[str, Any] = reply
        return found

    def end(self, verdict: str, reason: str) -> NoReturn:
        """Nothing more can be asked; tests cannot hide this by catching it."""
        self.ended = self.ended or (verdict, reason)
        raise _Ended


def run_tests(verdicts: Channel, calls: Channel) -> None:
    """Read the tests, run them, send `{"nonce": …, "verdict": …, "reason": …}`."""
    tests = verdicts.receive()
    program = Program(calls)
    verdict, reason = "right", ""
    try:
        {"calls": _call_cases, "stdin": _stdin_cases, "asserts": _assertions}[tests["kind"]](program, tests)
    except _Ended:
        pass
    except AssertionError as error:
        verdict, reason = "wrong", f"{program.case} failed: {_short(error)}"
    except BaseException as error:
        verdict, reason = "wrong", f"{program.case}: {type(error).__name__}: {_short(error)}"
    if program.ended is not None:
        verdict, reason = program.ended
    verdicts.send({"nonce": tests["nonce"], "verdict": verdict, "reason": reason[:300]})


def _call_cases(program: Program, tests: Any) -> None:
    for i, (arguments, expected) in enumerate(tests["cases"]):
        program.case = f"case {i + 1}"
        value = program.call(tests["name"], arguments, {})
        assert matches(value, expected), f"{_short(value)} instead of {_short(expected)}"


def _stdin_cases(program: Program, tests: Any) -> None:
    for i, (stdin, expected) in enumerate(tests["cases"]):
        program.case = f"case {i + 1}"
        found, wanted = _lines(program.output(stdin)), _lines(expected)
        assert found == wanted, f"printed {_short(found)} instead of {_short(wanted)}"


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _assertions(program: Program, tests: Any) -> None:
    """Tests written in Python; the program's functions are called across, not executed here."""
    names: dict[str, Any] = {"__name__": "tests"}
    names |= {name: program.function(name) for name in tests["functions"]}
    for i, text in enumerate(tests["cases"]):
        program.case = f"case {i + 1}"
        execute(compile(text, "<tests>", "exec"), names)


def _short(value: Any) -> str:
    try:
        return " ".join(str(value).split())[:120]
    except Exception:
        return type(value).__name__
