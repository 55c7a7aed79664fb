"""Code tasks: the program in a response, the tests in a data set's row, and a pool of sandboxes that judges them."""

from __future__ import annotations

import json
import queue
import re
from collections.abc import Mapping, Sequence
from typing import Any

from covent.errors import DataError
from covent.verifiers.assertions import (
    called_names,
    defines,
    parsed,
    refuse_unknown_modules,
    refuse_without_assertion,
)
from covent.verifiers.in_parallel import in_parallel
from covent.verifiers.sandbox import Sandbox
from covent.verifiers.settings import VerifierSettings
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

MAX_PROGRAM_CHARS = 100_000
_FENCE = re.compile(r"^```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)
_FORMS = (
    '{"name": f, "cases": [[[argument, …], expected], …]}, {"inputs": […], "outputs": […], "fn_name": f},'
    ' {"inputs": [text, …], "outputs": [text, …]} for standard input and output,'
    ' {"asserts": ["assert f(1) == 2", …]}, {"test_list": […]} or {"test": …, "entry_point": f}'
)


class ProgramVerifier:
    """Judges programs by their tests, in sandboxes. Any thread may call it."""

    def __init__(self, settings: VerifierSettings) -> None:
        """Starts nothing yet; the limits and the number of sandboxes are the settings'."""
        self._size = settings.processes
        self._sandboxes = [Sandbox(settings) for _ in range(self._size)]
        self._free: queue.LifoQueue[Sandbox] = queue.LifoQueue()
        for sandbox in self._sandboxes:
            self._free.put(sandbox)

    def warm(self) -> None:
        """Start one sandbox, so that a machine without isolation is known before anything else.

        Raises: IsolationError
        """
        sandbox = self._free.get()
        try:
            sandbox.start()
        finally:
            self._free.put(sandbox)

    def close(self) -> None:
        """End all sandboxes."""
        for sandbox in self._sandboxes:
            sandbox.close()

    def judge(self, pairs: Sequence[tuple[str, Mapping[str, Any]]], poll: Poll = keep_waiting) -> list[Judgement]:
        """The judgement of each (program, tests).

        Args:
            pairs: Python source from `program_in`, tests from `tests_of`.
            poll: see `Poll`.

        Raises: IsolationError: this machine cannot isolate programs, and that is not allowed for.
        """
        # Samples of one problem are often the same; a program does the same each time.
        distinct = {(program, id(tests)): (program, tests) for program, tests in pairs}
        judged = in_parallel(self._judge_one, list(distinct.values()), size=self._size, poll=poll)
        by_key = dict(zip(distinct, judged, strict=True))
        return [by_key[program, id(tests)] for program, tests in pairs]

    def _judge_one(self, pair: tuple[str, Mapping[str, Any]], poll: Poll) -> Judgement:
        program, tests = pair
        if not program.strip() or len(program) > MAX_PROGRAM_CHARS:
            return Judgement.of(Verdict.UNPARSABLE, "no program, or a too long one")
        sandbox = self._free.get()
        try:
            return sandbox.judge(program, tests, poll)
        finally:
            self._free.put(sandbox)


def program_in(response: str) -> str:
    """The last fenced Python block of a response, or all of it where nothing is fenced.

    Example:
        >>> program_in("Here:\\n```python\\nx = 1\\n```\\ndone"), program_in("x = 1")
        ('x = 1\\n', 'x = 1')
    """
    blocks = _FENCE.findall(response[-2 * MAX_PROGRAM_CHARS :])
    return str(blocks[-1]) if blocks else response


def tests_of(truth: Any) -> dict[str, Any]:
    """The tests of a row, from any of the forms that data sets use, as the sandbox takes them.

    Args:
        truth: a dict, or JSON text of one.

    Raises: DataError: none of the known forms, no test in it, or test code that is not Python or asserts nothing.

    Example:
        >>> tests_of({"inputs": ["1 2"], "outputs": ["3"]})
        {'kind': 'stdin', 'cases': [['1 2', '3']]}
        >>> tests_of({"asserts": ["assert add(1, 2) == 3"]})["functions"]
        ['add']
    """
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the tests are no JSON: {error}") from error
    tests = _tests(truth) if isinstance(truth, dict) else None
    if tests is None:
        raise DataError(f"the tests have none of the known forms: {_FORMS}")
    if not tests["cases"]:
        raise DataError("there is not one test in it")
    return tests


def _tests(truth: dict[str, Any]) -> dict[str, Any] | None:
    if "cases" in truth and "name" in truth:
        return {"kind": "calls", "name": truth["name"], "cases": _pairs(truth["cases"])}
    if "inputs" in truth and "outputs" in truth:
        if len(truth["inputs"]) != len(truth["outputs"]):
            raise DataError(f"{len(truth['inputs'])} inputs and {len(truth['outputs'])} outputs")
        pairs = _pairs(zip(truth["inputs"], truth["outputs"], strict=True))
        if truth.get("fn_name"):
            return {"kind": "calls", "name": truth["fn_name"], "cases": pairs}
        return {"kind": "stdin", "cases": [[_text(given), _text(printed)] for given, printed in pairs]}
    code = truth.get("asserts") or truth.get("test_list") or truth.get("test")
    if not code:
        return None
    cases = [str(each) for each in code] if isinstance(code, list) else [str(code)]
    if truth.get("entry_point") and defines(parsed(cases), "check"):
        cases.append(f"check({truth['entry_point']})")
    setup = "\n".join([*map(str, truth.get("test_imports") or []), str(truth.get("test_setup_code") or "")]).strip()
    trees = parsed(cases)
    refuse_without_assertion(trees)
    trees += parsed([setup])
    refuse_unknown_modules(trees)
    return {"kind": "asserts", "setup": setup, "cases": cases, "functions": called_names(trees)}


def _text(given: Any) -> str:
    """What a program reads or prints, which some data sets keep as a list of its lines."""
    if isinstance(given, list):
        return "\n".join(map(_text, given))
    if isinstance(given, dict) or given is None:
        raise DataError(f"a program reads and prints text, or a list of its lines, and not {str(given)[:80]}")
    return str(given)


def _pairs(items: Any) -> list[list[Any]]:
    try:
        return [[given, expected] for given, expected in items]
    except (TypeError, ValueError) as error:
        raise DataError("each test must be a pair of what is given and what is expected") from error
