"""The floor is a program of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.contract.source import ROOT


def test_it_runs_alone() -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "lm_head_floor.py"), "--case", "tiny", "--repeats", "1"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=variables)
    assert re.fullmatch(r"[\d.]+ s, [\d,]+ GFLOP/s; from [\d.]+ to [\d.]+ s\n", done.stdout)
