"""T1: mathematical equivalence by math-verify, each answer in a child that is killed at its deadline.

An answer that `exact` finds equal is right without asking; math-verify decides the others. Its own time-outs are off:
they work in the main thread only, and do not cover all that it does.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from covent.errors import MissingExtraError
from covent.verifiers.children import Children, Limits, Outcome
from covent.verifiers.exact import MAX_RESPONSE_CHARS, bare_truth, equal_answers, marked_answer
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

_TARGET = "covent.verifiers.mathematics:equivalence"
_MAX_RECURSION = 3_000


class MathVerifier:
    """Judges final answers against right ones. Any thread may call it."""

    def __init__(self, settings: VerifierSettings, *, marked: bool = True) -> None:
        r"""Starts nothing yet.

        Args:
            settings: deadline, memory and number of the children.
            marked: judge only what the last `\boxed{}`, `<answer>` or `####` marks; otherwise math-verify looks for the
                answer anywhere in the response.

        Raises: MissingExtraError: math-verify is not installed.
        """
        require_math_verify()
        self._marked, self._timeout_s = marked, settings.timeout_s
        self._children = Children(
            _TARGET,
            {},
            size=settings.processes,
            limits=Limits(memory_mb=settings.memory_mb, cpu_s=settings.timeout_s, no_files=True),
        )

    def warm(self) -> None:
        """Start the first child, so that the first answer does not wait for imports."""
        self._children.warm()

    def close(self) -> None:
        """End the children."""
        self._children.close()

    def judge(self, pairs: Sequence[tuple[str, str]], poll: Poll = keep_waiting) -> list[Judgement]:
        """The judgement of each (response, right answer).

        Args:
            pairs: responses of any length and content, and right answers, bare or marked.
            poll: see `Poll`.
        """
        found: list[Judgement | None] = []
        requests: list[dict[str, str]] = []
        for response, truth in pairs:
            marked, truth = marked_answer(response), bare_truth(truth)
            if marked is not None and equal_answers(marked, truth):
                found.append(Judgement.of(Verdict.RIGHT))
            elif not response or (self._marked and marked is None):
                found.append(Judgement.of(Verdict.UNPARSABLE))
            else:
                answer = _boxed(marked) if self._marked and marked else response[-MAX_RESPONSE_CHARS:]
                found.append(None)
                requests.append({"answer": answer, "truth": _boxed(truth)})
        # Samples of one problem often end in the same answer.
        distinct = {tuple(request.values()): request for request in requests}
        outcomes = self._children.ask_all(list(distinct.values()), self._timeout_s, poll)
        by_key = {key: _judgement(outcome) for key, outcome in zip(distinct, outcomes, strict=True)}
        judged = (by_key[tuple(request.values())] for request in requests)
        return [next(judged) if known is None else known for known in found]


def _boxed(answer: str) -> str:
    """As math-verify finds it best; what is not balanced cannot be boxed."""
    return f"\\boxed{{{answer}}}" if answer.count("{") == answer.count("}") else answer


def _judgement(outcome: Outcome) -> Judgement:
    match outcome.kind:
        case "done":
            return Judgement.of(Verdict(outcome.value))
        case "time-out":
            return Judgement.of(Verdict.TIME_OUT, f"math-verify: {outcome.detail}")
        case "memory" | "crash":
            return Judgement.of(Verdict.CRASH, f"math-verify: {outcome.detail}")
        case _:
            return Judgement.of(Verdict.ERROR, f"math-verify: {outcome.kind}: {outcome.detail}")


def require_math_verify() -> None:
    """Raises: MissingExtraError: math-verify is not installed."""
    from importlib.util import find_spec

    if find_spec("math_verify") is None:
        raise MissingExtraError(
            "task.verifier = 'math' needs math-verify, which is not installed. Install the extra:"
            " pip install 'covent[math]', or use task.verifier=exact."
        )


def equivalence(settings: Any) -> Callable[[Any], str]:
    """In the child: the handler that compares one answer with the right one."""
    import math_verify

    logging.disable()
    # Deep nesting shall end in an error of Python's, not in an overflow of the C stack.
    sys.setrecursionlimit(_MAX_RECURSION)

    def parsed(text: str) -> list[Any]:
        return list(math_verify.parse(text, parsing_timeout=None))

    # What is loaded late is loaded before children are forked.
    math_verify.verify(parsed("$\\frac{1}{2}+x$"), parsed("$\\frac{2}{4}+x$"), timeout_seconds=None)

    def compare(request: Any) -> str:
        answer = parsed(request["answer"])
        if not answer:
            return str(Verdict.UNPARSABLE)
        gold = parsed(request["truth"])
        same = bool(gold) and math_verify.verify(gold, answer, timeout_seconds=None)
        return str(Verdict.RIGHT if same else Verdict.WRONG)

    return compare
