"""In the tests' process: tests written in Python call the program's functions through its connection; one verdict."""

from __future__ import annotations

import builtins
import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

from covent.verifiers.channel import Channel
from covent.verifiers.program_cases import Found, Program, Raised
from covent.verifiers.program_child import execute, fresh_namespace
from covent.verifiers.program_values import NotPlain
from covent.verifiers.verdict import Verdict


class _Ended(BaseException):
    """The program can be asked no more."""


class _Functions:
    """The program's functions for the tests' code."""

    def __init__(self, calls: Channel) -> None:
        self._program = Program(calls)
        self.ended: Found | None = None
        self.raised: Exception | None = None
        """The newest exception of the program."""

    def named(self, name: str) -> Callable[..., Any]:
        """The function of this name: it returns and raises what the program's own does."""

        def function(*arguments: Any, **named: Any) -> Any:
            try:
                found, raised, ended = self._program.call(name, [arguments], named)
            except NotPlain as error:
                self._end(Found(Verdict.ERROR, f"the tests cannot be run: they give '{name}' {error}"))
            if ended is not None:
                self._end(ended)
            if raised.text or not found:
                self.raised = _exception(raised)
                raise self.raised
            return found[0]

        return function

    def _end(self, found: Found) -> NoReturn:
        """Kept too, because the tests' code may catch whatever is raised."""
        self.ended = self.ended or found
        raise _Ended


_ENDS_ITERATIONS = (StopIteration, StopAsyncIteration)
"""Raised among the tests' own loops, one of these would end them as if every case had passed."""


def _exception(raised: Raised) -> Exception:
    """What the program raised, as the built-in exception that it is or derives from: tests may expect it."""
    kind = getattr(builtins, raised.kind, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, _ENDS_ITERATIONS):
        for arguments in (raised.arguments, (raised.text.partition(": ")[2],)):
            with contextlib.suppress(TypeError, ValueError):
                return kind(*arguments)
    return RuntimeError(raised.text)


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
    parts = [("the set-up", tests["setup"])] if tests.get("setup") else []
    parts += [(f"case {number}", text) for number, text in enumerate(tests["cases"], 1)]
    for part, text in parts:
        try:
            execute(compile(text, "<tests>", "exec", dont_inherit=True), names)
        except BaseException as error:
            what = "failed" if isinstance(error, AssertionError) else type(error).__name__
            reason = f"{part}: {what}: {' '.join(str(error).split())[:200]}"
            # What no program can change: a module that is not there, a set-up that fails by itself.
            if error is not functions.raised and (isinstance(error, ImportError) or part == "the set-up"):
                return Found(Verdict.ERROR, f"the tests cannot be run: {reason}")
            return Found(Verdict.WRONG, reason)
    return Found(Verdict.RIGHT)
