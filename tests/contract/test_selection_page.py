"""docs/selection.md shows the numbers of the committed result, as the script that made them prints them."""

from __future__ import annotations

import copy
import json

from tests.contract.source import ROOT, benchmark

PAGE = (ROOT / "docs" / "selection.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "results" / "selection.json").read_text(encoding="utf-8"))


def words(text: str) -> str:
    """Without line ends, which the page has where it likes."""
    return " ".join(text.split())


def test_the_tables_are_those_of_the_result() -> None:
    tables = benchmark("selection").tables(RESULT)
    assert tables.count("| responses in a micro-batch |") == 4
    assert words(tables) in words(PAGE)
    changed = copy.deepcopy(RESULT)
    for run in changed["runs"]:
        run["rows"][3]["both"] -= 50
        run["rows"][3]["candidates_both"] -= 50
    assert words(benchmark("selection").tables(changed)) not in words(PAGE)


def test_the_result_is_of_the_scripts_settings() -> None:
    module = benchmark("selection")
    rows = [row for run in RESULT["runs"] for row in run["rows"]]
    assert {row["micro_batch"] for row in rows} == set(module.MICRO_BATCHES)
    assert {(row["control"], row["ratio"]) for row in rows} == {(c, r) for c, rs in module.RATIOS.items() for r in rs}
    assert len({run["seed"] for run in RESULT["runs"]}) == len(RESULT["runs"]) == 3
    for row in rows:
        assert row["both"] <= min(row["exact"], row["micro"])
        assert row["candidates_both"] <= min(row["candidates_exact"], row["candidates_micro"])
