"""docs/attribution.md shows the numbers of the committed result, as the script that made them prints them."""

from __future__ import annotations

import copy
import json

from tests.contract.source import ROOT, benchmark

PAGE = (ROOT / "docs" / "attribution.md").read_text(encoding="utf-8")
RESULT = json.loads((ROOT / "benchmarks" / "results" / "attribution.json").read_text(encoding="utf-8"))


def test_the_tables_are_those_of_the_result() -> None:
    tables = benchmark("attribution").tables(RESULT).split("\n\n")
    assert len(tables) == 2
    assert all(table in PAGE for table in tables)
    changed = copy.deepcopy(RESULT)
    changed["runs"]["grpo"]["sum"]["parts"]["momentum"] += 1e-3
    assert benchmark("attribution").tables(changed).split("\n\n")[1] not in PAGE


def test_the_result_is_of_the_scripts_settings() -> None:
    module = benchmark("attribution")
    assert RESULT["settings"] == module.SETTINGS
    assert RESULT["variants"] == module.VARIANTS
    for run in RESULT["runs"].values():
        found = run["sum"]
        lines = [*found["parts"].values(), *found["left_over"].values()]
        assert abs(sum(lines) - found["observed"]) < 1e-12
