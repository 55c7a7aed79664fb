"""The Triton kernels, in Triton's interpreter on a CPU and compiled ahead of time for a GPU that is not there.

Each runs in a process of its own: the interpreter is chosen when the kernels are first imported, for the whole process.
Nothing here was measured on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from tests.contract.source import ROOT

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton (pip install triton; Linux only)")


def outcome(script: str, **variables: str) -> Any:
    """What a script of tests/support prints as JSON."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **variables}
    command = [sys.executable, str(ROOT / "tests" / "support" / script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_kernels_agree_with_torch_in_the_interpreter() -> None:
    found = outcome("triton_cases.py", TRITON_INTERPRET="1")
    assert len(found) >= 20
    assert {case["name"]: case["problem"] for case in found if case["problem"]} == {}


def test_a_wrong_kernel_is_caught() -> None:
    found = outcome("triton_cases.py", TRITON_INTERPRET="1", COVENT_TEST_WRONG_KERNEL="1")
    assert found
    assert all(case["problem"] for case in found)


def test_the_kernels_compile_for_an_h100_without_spills() -> None:
    """Registers and spills as the assembler reports them for sm_90; more registers would mean fewer rows at a time."""
    found = outcome("triton_compile.py")
    assert {name for name in found} == {"fold_rows", "fold_rows, all", "gradient_tile", "gradient_tile, all"}
    assert {name: kernel["spill_bytes"] for name, kernel in found.items()} == dict.fromkeys(found, 0)
    assert {name: kernel["registers"] for name, kernel in found.items() if kernel["registers"] > 128} == {}
