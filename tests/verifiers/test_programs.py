"""Programs as people write them: right ones are right, wrong ones beside them are not. Tests that assert nothing are
refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from covent.errors import DataError
from covent.tasks import DataSettings, DataTask, VerifierSettings
from covent.verifiers.program_values import decoded, encoded, matches
from covent.verifiers.programs import tests_of as parsed_tests
from covent.verifiers.sandbox import Sandbox
from covent.verifiers.verdict import Verdict
from tests.verifiers.test_sandbox import LONG_S, SETTINGS, isolated

SUMS = {"inputs": ["1\n2\n", "3\n4\n", "5\n6\n"], "outputs": ["3", "7", "11"]}
NEXT = {"name": "f", "cases": [[[1], 2], [[5], 6]]}

READ = "a, b = int(input()), int(input())\n"
ADDERS = {
    "descriptor 0": "a, b = map(int, open(0).read().split())\nprint(a + b)",
    "descriptor 0, closed": "with open(0) as file:\n    a, b = map(int, file)\nprint(a + b)",
    "descriptor 0, raw": "import os\na, b = map(int, os.read(0, 99).split())\nos.write(1, str(a + b).encode())",
    "descriptor 1": READ + "print(a + b, file=open(1, 'w'))",
    "descriptor 1, left open": READ + "out = open(1, 'w')\ndef show(x):\n    out.write(str(x))\nshow(a + b)",
    "descriptor 1, closed": READ + "import os\nos.write(1, str(a + b).encode())\nos.close(1)",
    "streams replaced": "import sys\nsys.stdin, sys.stdout = open(0), open(1, 'w')\n" + READ + "print(a + b)",
    "first streams": "import sys\n" + READ + "sys.__stdout__.write(str(a + b))",
    "stream closed": "import sys\n" + READ + "print(a + b)\nsys.stdout.close()",
    "exit": READ + "print(a + b)\nexit()\nprint('more')",
    "quit": READ + "print(a + b)\nquit(0)",
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n" + READ + "print(A(a).x + A(b).x)"
    ),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(SETTINGS.model_copy(update={"timeout_s": LONG_S}))
    yield made
    made.close()


USUAL = {
    "a stream of its own": (
        "import os, sys\nclass Out:\n    def write(self, text): os.write(1, text.encode())\n"
        "    def flush(self): os.getpid()\nsys.stdout = Out()\nprint(5)"
    ),
    "a buffered stream of its own": (
        "import io, os, sys\nclass Out(io.IOBase):\n    def __init__(self): self.buffer = io.BytesIO()\n"
        "    def write(self, text): self.buffer.write(text.encode())\n"
        "    def flush(self): os.write(1, self.buffer.getvalue()); self.buffer.truncate(0); self.buffer.seek(0)\n"
        "sys.stdout = Out()\nprint(5)"
    ),
    "a date": "from datetime import datetime\nprint(datetime.strptime('2024-02-05', '%Y-%m-%d').day)",
    "a time": "import time\nprint(time.strptime('2024-02-05', '%Y-%m-%d').tm_mday)",
    "fileinput": "import fileinput\nprint(5 + len(list(fileinput.input())))",
    "codecs": (
        "import codecs\nfor name in ('utf-16-le', 'cp1252', 'utf-8-sig', 'punycode', 'unicode_escape'):\n"
        "    assert 'a'.encode(name).decode(name) == 'a'\n"
        "assert codecs.encode('a', 'rot13') == 'n' and codecs.encode(b'a', 'hex') == b'61'\nprint(5)"
    ),
    "no arguments": "import sys\nassert len(sys.argv) == 1\nprint(5)",
    "doctest": "import doctest\nassert not doctest.testmod().failed\nprint(5)",
}


@isolated
@pytest.mark.parametrize("name", ADDERS)
def test_programs_read_and_print_in_every_usual_way(sandbox: Sandbox, name: str) -> None:
    """The negative control is the same program with one other operation."""
    right, wrong = (sandbox.judge(text, parsed_tests(SUMS)) for text in (ADDERS[name], ADDERS[name].replace("+", "*")))
    assert right.verdict is Verdict.RIGHT, right
    assert wrong.verdict is Verdict.WRONG and "case 1 failed" in wrong.reason, wrong


@isolated
@pytest.mark.parametrize("write", ["print('x' * 2 ** 21)", "import os\nos.write(1, b'x' * 2 ** 21)"])
def test_output_has_an_end(sandbox: Sandbox, write: str) -> None:
    tests = parsed_tests({"inputs": [""], "outputs": ["x" * 2**21]})
    found = sandbox.judge(write, tests)
    assert found.verdict is Verdict.WRONG and "bytes of output" in found.reason
    assert sandbox.judge(write.replace("21", "19"), tests).reason.startswith("case 1 failed: 'xxx")


CALLED = {
    "dataclass": (
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef f(x):\n    return A(x).x + 1"
    ),
    "annotations are objects": "def f(x: int):\n    return x + (f.__annotations__ == {'x': int})",
    "Solution": "class Solution:\n    def f(self, x):\n        return x + 1",
    "Solution, each time anew": (
        "class Solution:\n    def __init__(self):\n        self.seen = 0\n    def f(self, x):\n"
        "        self.seen += 1\n        return x + self.seen"
    ),
    "modules": (
        "import argparse, asyncio, concurrent.futures, graphlib, logging, pickle, unittest, zoneinfo\n"
        "async def g(x):\n    return x + 1\n"
        "def f(x):\n    return pickle.loads(pickle.dumps(asyncio.run(g(x))))"
    ),
}


@isolated
@pytest.mark.parametrize("name", CALLED)
def test_functions_are_found_and_called(sandbox: Sandbox, name: str) -> None:
    for tests in (NEXT, {"asserts": ["assert f(1) == 2", "assert f(5) == 6"]}):
        judgement = sandbox.judge(CALLED[name], parsed_tests(tests))
        assert judgement.verdict is Verdict.RIGHT, judgement


@isolated
@isolated
@pytest.mark.parametrize("name", USUAL)
def test_what_programs_usually_do_works(sandbox: Sandbox, name: str) -> None:
    tests = {"kind": "stdin", "cases": [["", "5"]]}
    assert sandbox.judge(USUAL[name], tests).verdict is Verdict.RIGHT, sandbox.judge(USUAL[name], tests).reason
    assert sandbox.judge(USUAL[name].replace("5", "6"), tests).verdict is Verdict.WRONG


@isolated
def test_numpy_can_be_allowed() -> None:
    tests = {"kind": "calls", "name": "f", "cases": [[[[1.0, 2.0]], 3.0]]}
    allowed = Sandbox(SETTINGS.model_copy(update={"modules": ("numpy",), "memory_mb": 1024, "timeout_s": 20.0}))
    with closing(allowed):
        assert allowed.judge("import numpy\ndef f(x): return float(numpy.sum(x))", tests).verdict is Verdict.RIGHT
        assert allowed.judge("import numpy\ndef f(x): return float(numpy.prod(x))", tests).verdict is Verdict.WRONG


@isolated
@pytest.mark.parametrize(
    "case", ["assert all(map(lambda p: f(p[0]) == p[1], [(1, 2)]))", "for x in map(f, [1]): assert x == 2"]
)
@pytest.mark.parametrize("raised", ["StopIteration", "StopAsyncIteration", "type('S', (StopIteration,), {})"])
def test_a_program_cannot_end_the_loops_of_its_tests(sandbox: Sandbox, case: str, raised: str) -> None:
    tests = parsed_tests({"asserts": [case]})
    assert sandbox.judge(f"def f(x): raise {raised}()", tests).verdict is Verdict.WRONG
    assert sandbox.judge("def f(x): return x + 1", tests).verdict is Verdict.RIGHT


@isolated
@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("class Own(ValueError): pass\ndef f(): raise Own('no')", "ValueError"),
        ("import json\ndef f(): json.loads('{')", "ValueError"),
        ("def f(): {}['k']", "KeyError"),
        ("def f(): raise KeyError(object())", "KeyError"),
        ("def f(): b'\\xff'.decode()", "UnicodeDecodeError"),
    ],
)
def test_exceptions_reach_the_tests_as_what_they_are(sandbox: Sandbox, program: str, expected: str) -> None:
    text = "try: f()\nexcept {}: pass\nelse: raise AssertionError"
    assert sandbox.judge(program, parsed_tests({"test": text.format(expected)})).verdict is Verdict.RIGHT
    assert sandbox.judge(program, parsed_tests({"test": text.format("OSError")})).verdict is Verdict.WRONG


@isolated
def test_an_exception_keeps_its_arguments(sandbox: Sandbox) -> None:
    text = "try: f()\nexcept KeyError as error: assert error.args == ('k', 2)\nelse: assert False"
    tests = parsed_tests({"test": text})
    assert sandbox.judge("def f(): raise KeyError('k', 2)", tests).verdict is Verdict.RIGHT
    assert sandbox.judge("def f(): raise KeyError('k', 3)", tests).verdict is Verdict.WRONG


@isolated
@pytest.mark.parametrize(
    "truth",
    [
        {"asserts": ["import surely_not_there", "assert f(1) == 2"]},
        {"asserts": ["assert f(lambda: 1) == 2"]},
        {"asserts": ["assert f(range(3)) == 2"]},
        {"test_list": ["assert f(1) == 2"], "test_setup_code": "1 / 0"},
    ],
)
def test_tests_that_cannot_be_run_are_an_error_and_not_a_wrong_program(sandbox: Sandbox, truth: dict[str, Any]) -> None:
    judged = sandbox.judge("def f(x): return 2", parsed_tests(truth))
    assert judged.verdict is Verdict.ERROR
    assert "the tests cannot be run" in judged.reason
    importing = sandbox.judge("def f(x): import surely_not_there", parsed_tests({"asserts": ["assert f(1) == 2"]}))
    assert importing.verdict is Verdict.WRONG, "a program's own import is its own fault"


@isolated
def test_set_up_code_comes_before_the_tests(sandbox: Sandbox) -> None:
    imports, setup = ["import math"], "two = 2"
    truth = {"test_list": ["assert math.isclose(f(1), two)"], "test_imports": imports, "test_setup_code": setup}
    assert sandbox.judge("def f(x): return x + 1.0", parsed_tests(truth)).verdict is Verdict.RIGHT
    assert sandbox.judge("def f(x): return x", parsed_tests(truth)).verdict is Verdict.WRONG
    with pytest.raises(DataError, match="neither define nor import 'math'"):
        parsed_tests({"test_list": truth["test_list"]})


@isolated
def test_lists_of_lines_are_texts(sandbox: Sandbox) -> None:
    tests = parsed_tests({"inputs": [["1", "2"]], "outputs": [["2", "1"]]})
    assert sandbox.judge("a = input()\nprint(input())\nprint(a)", tests).verdict is Verdict.RIGHT
    assert sandbox.judge("a = input()\nprint(a)\nprint(input())", tests).verdict is Verdict.WRONG
    with pytest.raises(DataError, match="text, or a list of its lines"):
        parsed_tests({"inputs": [{"a": 1}], "outputs": ["1"]})


def test_only_a_solutions_own_method_counts(sandbox: Sandbox) -> None:
    for text in (
        "class Solution:\n    def g(self, x):\n        return x + 1",
        "class Other:\n    f = abs",
        "Solution = 3",
    ):
        assert sandbox.judge(text, parsed_tests(NEXT)).verdict is Verdict.UNPARSABLE
    raises = "class Solution:\n    def __init__(self):\n        raise ValueError('no')\n    def f(self, x): return 2"
    assert "ValueError: no" in sandbox.judge(raises, parsed_tests(NEXT)).reason


@isolated
def test_what_was_not_imported_before_cannot_be(sandbox: Sandbox) -> None:
    judgement = sandbox.judge("import sqlite3\ndef f(x):\n    return x + 1", parsed_tests(NEXT))
    assert judgement.verdict is Verdict.WRONG and "ModuleNotFoundError" in judgement.reason


@isolated
def test_tests_in_python_may_have_dataclasses_too(sandbox: Sandbox) -> None:
    lines = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\nassert A(f(1)) == A(2)"
    for text, verdict in (("x + 1", Verdict.RIGHT), ("x", Verdict.WRONG)):
        assert sandbox.judge(f"def f(x):\n    return {text}", parsed_tests({"test": lines})).verdict is verdict


@isolated
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ("Counter('aab')", {"a": 2, "b": 1}),
        ("defaultdict(int, a=1)", {"a": 1}),
        ("OrderedDict(a=deque([1, 2]))", {"a": [1, 2]}),
        ("deque([1, 2])", [1, 2]),
    ],
)
def test_the_containers_of_collections_are_plain_data(sandbox: Sandbox, made: str, expected: Any) -> None:
    text = f"from collections import *\ndef f(x):\n    return {made}"
    assert sandbox.judge(text, parsed_tests({"name": "f", "cases": [[[1], expected]]})).verdict is Verdict.RIGHT
    assert sandbox.judge(text, parsed_tests({"name": "f", "cases": [[[1], [expected]]]})).verdict is Verdict.WRONG
    kind, _, arguments = made.partition("(")
    own = f"from collections import *\nclass C({kind}):\n    pass\ndef f(x):\n    return C({arguments}"
    assert "only plain data" in sandbox.judge(own, parsed_tests({"name": "f", "cases": [[[1], expected]]})).reason


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (1.2e-16, 0.0, True),
        (1e-9, 0.0, False),
        (0.0, 1.38e-23, False),
        (0, 0.0, True),
        (10.0**10 + 1, 10**10, False),
        (10**10 + 1, 10**10, False),
        (10.0**10, 10**10, True),
        (10.0**10 + 1, 1e10, True),
        (10.0**10 + 100, 1e10, False),
        (float("nan"), 0.0, False),
        (float("inf"), float("inf"), True),
        ("0", 0.0, False),
        (True, 1.0, False),
    ],
)
def test_numbers_are_compared_as_what_is_expected(value: Any, expected: Any, same: bool) -> None:
    assert matches(value, expected) is same
    assert matches(decoded(encoded([value])), [expected]) is same


CHECK = "def check(candidate):\n    assert candidate(1) == 2\n"


@pytest.mark.parametrize(
    ("tests", "says"),
    [
        ({"test": CHECK}, "never call it"),
        ({"test": "def check(candidate):\n    candidate(1) == 2\n", "entry_point": "f"}, "asserts nothing"),
        ({"asserts": ["f(1) == 2"]}, "only compares"),
        ({"asserts": ["assert f(1) == 2", "f(5) == 6"]}, "only compares"),
        ({"asserts": ["# nothing"]}, "assert nothing"),
        ({"asserts": [""]}, "assert nothing"),
        ({"test_list": ["x = f(1)", "print(x)"]}, "assert nothing"),
        ({"test": "def test():\n    assert f(1) == 2\n"}, "assert nothing"),
        ({"test": "class Tests:\n    def one(self):\n        assert f(1) == 2\n"}, "assert nothing"),
        ({"test": "def a():\n    b()\ndef b():\n    a()\n    assert f(1)\n"}, "assert nothing"),
    ],
)
def test_tests_that_assert_nothing_are_refused(tests: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        parsed_tests(tests)


def test_a_row_whose_tests_assert_nothing_is_named_with_its_line(tmp_path: Path) -> None:
    """Negative control beside it: the file without that row is read."""
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"q{number}", "answer": {"asserts": ["assert f(1) == 2"]}} for number in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(path=str(path), verifier="code")
    DataTask(settings, VerifierSettings())
    rows[6]["answer"] = {"test": CHECK}
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"rows\.jsonl:7: .*never call it"):
        DataTask(settings, VerifierSettings())


@pytest.mark.parametrize(
    "tests",
    [
        {"test": CHECK, "entry_point": "f"},
        {"test": CHECK + "check(f)"},
        {"test": "assert f(1) == 2", "entry_point": "f"},
        {"test": "def a():\n    b()\ndef b():\n    assert f(1) == 2\na()"},
        {"test": "class Tests:\n    def one(self):\n        assert f(1) == 2\nTests().one()"},
        {"test": "def test():\n    assert f(1) == 2\nfor n in list(globals()):\n    n == 'test' and globals()[n]()"},
        {"test": "if f(1) != 2:\n    raise ValueError"},
        {"test_list": ["import unittest", "unittest.TestCase().assertEqual(f(1), 2)"]},
    ],
)
@isolated
def test_tests_that_assert_something_are_run(sandbox: Sandbox, tests: dict[str, Any]) -> None:
    """The other half of the control: each tells a right program from a wrong one."""
    for text, verdict in (("x + 1", Verdict.RIGHT), ("x", Verdict.WRONG)):
        judgement = sandbox.judge(f"def f(x):\n    return {text}", parsed_tests(tests))
        assert judgement.verdict is verdict, judgement
