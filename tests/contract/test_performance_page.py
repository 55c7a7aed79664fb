"""docs/performance.md is what the script makes of the committed results."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.contract.source import ROOT

BENCHMARKS = ROOT / "benchmarks"


def generated(results: Path) -> str:
    call = "import sys; from pathlib import Path; from lm_head_page import page; print(page(Path(sys.argv[1])), end='')"
    words = [sys.executable, "-c", call, str(results)]
    done = subprocess.run(words, cwd=BENCHMARKS, capture_output=True, text=True, check=True, encoding="utf-8")
    return done.stdout


def test_the_page_is_that_of_the_results(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page == generated(BENCHMARKS / "results")
    for file in BENCHMARKS.glob("results/lm_head_*.json"):
        shutil.copy(file, tmp_path)
    changed = json.loads((tmp_path / "lm_head_bf16_32k.json").read_text(encoding="utf-8"))
    changed["seconds"]["floor"] = [2 * seconds for seconds in changed["seconds"]["floor"]]
    (tmp_path / "lm_head_bf16_32k.json").write_text(json.dumps(changed), encoding="utf-8")
    assert page != generated(tmp_path)


def drawn_numbers(result: Path) -> str:
    call = "import json, sys; from lm_head_plot import drawn_numbers; print(drawn_numbers(json.load(sys.stdin)))"
    words, text = [sys.executable, "-c", call], result.read_text(encoding="utf-8")
    return subprocess.run(words, cwd=BENCHMARKS, input=text, capture_output=True, text=True, check=True).stdout.strip()


def test_the_plot_is_that_of_the_result(tmp_path: Path) -> None:
    """The file says which numbers it draws, so this needs no matplotlib."""
    svg = (ROOT / "docs" / "images" / "lm_head_memory.svg").read_text(encoding="utf-8")
    (described,) = re.findall(r"<dc:description>(.*)</dc:description>", svg)
    result = BENCHMARKS / "results" / "lm_head_sweep.json"
    assert html.unescape(described) == drawn_numbers(result)
    assert "(images/lm_head_memory.svg)" in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    changed = json.loads(result.read_text(encoding="utf-8"))
    changed["peak_mib"]["naive"]["1024"] += 1
    (tmp_path / "changed.json").write_text(json.dumps(changed), encoding="utf-8")
    assert html.unescape(described) != drawn_numbers(tmp_path / "changed.json")
