"""Calling a program's functions through its connection and comparing what comes back, wherever that is done.

Whoever compares holds the expected values, and the program's process never does: what it sends is plain data that is
right or is not, so that it cannot pass by patching, printing or exiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from covent.verifiers.channel import Channel, ChannelClosed
from covent.verifiers.program_values import NotPlain, decoded, encoded, matches
from covent.verifiers.verdict import Poll, Verdict

_MAX_REPLY_BYTES = 8 << 20


class Found(NamedTuple):
    """What the tests found."""

    verdict: Verdict
    reason: str = ""


class Raised(NamedTuple):
    """What a function raised."""

    text: str = ""
    """Class and message; empty if it raised nothing."""
    kind: str = ""
    """The first of its classes that is built in."""
    arguments: tuple[Any, ...] = ()
    """Its arguments, where they are plain data."""


class Program:
    """A program in another process."""

    def __init__(self, calls: Channel, *, deadline: float | None = None, poll: Poll | None = None) -> None:
        self._calls, self._deadline, self._poll = calls, deadline, poll

    def call(
        self, name: str, cases: Sequence[Sequence[Any]], named: Mapping[str, Any] | None = None
    ) -> tuple[list[Any], Raised, Found | None]:
        """What the function returns for each case up to the first that raises, what that raised, and whether the
        program can be asked no more.

        Raises: NotPlain: an argument is no plain data.
        """
        request = {
            "call": name,
            "cases": [[encoded(argument) for argument in case] for case in cases],
            "named": {key: encoded(value) for key, value in (named or {}).items()},
        }
        return self._ask(request, "values")

    def outputs(self, texts: Sequence[str]) -> tuple[list[Any], Raised, Found | None]:
        """The same for what it prints when it reads each text."""
        return self._ask({"stdin": list(texts)}, "outputs")

    def _ask(self, request: Any, what: str) -> tuple[list[Any], Raised, Found | None]:
        try:
            self._calls.send(request, deadline=self._deadline, wait=self._poll)
            reply = self._calls.receive(deadline=self._deadline, wait=self._poll, max_bytes=_MAX_REPLY_BYTES)
        except ChannelClosed as closed:
            return [], Raised(), Found(Verdict.CRASH, f"the program's process ended ({closed})")
        if not isinstance(reply, dict):
            return [], Raised(), Found(Verdict.WRONG, "no reply of the expected form")
        if "no_program" in reply:
            return [], Raised(), Found(Verdict.UNPARSABLE, str(reply["no_program"])[:300])
        if str(reply.get("raised", "")).startswith("MemoryError"):
            return [], Raised(), Found(Verdict.CRASH, "the program ran out of memory")
        try:
            found = [decoded(value) for value in reply[what]]
            arguments = tuple(decoded(value) for value in reply.get("arguments", []))
        except (NotPlain, KeyError, TypeError, RecursionError):
            return [], Raised(), Found(Verdict.WRONG, "no reply of the expected form")
        raised = Raised(str(reply.get("raised", ""))[:300], str(reply.get("kind", "")), arguments)
        return found, raised, None


def judge_cases(program: Program, tests: Mapping[str, Any]) -> Found:
    """Tests that are pairs of what is given and what is expected.

    Raises: ChannelTimeout: the program's deadline is over.
    """
    cases = tests["cases"]
    if tests["kind"] == "calls":
        found, raised, ended = program.call(tests["name"], [given for given, _ in cases])
    else:
        found, raised, ended = program.outputs([given for given, _ in cases])
    if ended is not None:
        return ended
    same = matches if tests["kind"] == "calls" else _same_lines
    for number, (value, (_, expected)) in enumerate(zip(found, cases, strict=False), 1):
        if not _safely(same, value, expected):
            return Found(Verdict.WRONG, f"case {number} failed: {_short(value)} instead of {_short(expected)}")
    if len(found) < len(cases):
        return Found(Verdict.WRONG, f"case {len(found) + 1}: {raised.text or 'no value'}")
    return Found(Verdict.RIGHT)


def _safely(same: Any, value: Any, expected: Any) -> bool:
    """Numbers beyond floats, and nesting beyond the interpreter's depth, are not what was expected."""
    try:
        return bool(same(value, expected))
    except (OverflowError, RecursionError, ValueError):
        return False


def _same_lines(printed: Any, expected: str) -> bool:
    return isinstance(printed, str) and _lines(printed) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _short(value: Any) -> str:
    try:
        return " ".join(repr(value).split())[:120]
    except Exception:
        return type(value).__name__
