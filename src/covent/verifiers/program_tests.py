"""In the tests' process: tests written in Python call the program's functions through its connection; one verdict."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any, NoReturn

from covent.verifiers.channel import Channel
from covent.verifiers.program_cases import Found, Program
from covent.verifiers.program_child import execute, fresh_namespace
from covent.verifiers.verdict import Verdict


class _Ended(BaseException):
    """The program can be asked no more."""


class _Functions:
    """The program's functions for the tests' code."""

    def __init__(self, calls: Channel) -> None:
        self._program = Program(calls)
        self.ended: Found | None = None

    def named(self, name: str) -> Callable[..., Any]:
        """The function of this name: it returns and raises what the program's own does."""

        def function(*arguments: Any, **named: Any) -> Any:
            found, raised, ended = self._program.call(name, [arguments], named)
            if ended is not None:
                self._end(ended)
            if raised or not found:
                raise _exception(raised)
            return found[0]

        return function

    def _end(self, found: Found) -> NoReturn:
        """Kept too, because the tests' code may catch whatever is raised."""
        self.ended = self.ended or found
        raise _Ended


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


def run_tests(verdicts: Channel, calls: Channel) -> None:
    """Read the tests, run them, send `{"nonce": …, "verdict": …, "reason": …}`."""
    tests = verdicts.receive()
    functions = _Functions(calls)
    found = _found(functions, tests)
    verdict, reason = functions.ended or found
    verdicts.send({"nonce": tests["nonce"], "verdict": verdict, "reason": reason[:300]})


def _found(functions: _Functions, tests: Any) -> Found:
    names = fresh_namespace("tests")
    names |= {name: functions.named(name) for name in tests["functions"]}
    for number, text in enumerate(tests["cases"], 1):
        try:
            execute(compile(text, "<tests>", "exec", dont_inherit=True), names)
        except BaseException as error:
            what = "failed" if isinstance(error, AssertionError) else type(error).__name__
            return Found(Verdict.WRONG, f"case {number}: {what}: {' '.join(str(error).split())[:200]}")
    return Found(Verdict.RIGHT)
