"""The tables of docs/trainer.md are what the benchmarks make of the committed results."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest

from benchmarks import overhead, rollout_throughput
from benchmarks.law_tables import with_table
from tests.contract.source import ROOT

PAGE = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "benchmark"), [("overhead", overhead), ("throughput", rollout_throughput)])
def test_the_table_is_that_of_the_results(name: str, benchmark: ModuleType) -> None:
    found: dict[str, Any] = json.loads(benchmark.RESULT.read_text(encoding="utf-8"))
    assert with_table(PAGE, name, benchmark.table(found)) == PAGE
    # The negative control: one number changed.
    changed = json.loads(json.dumps(found))
    if name == "overhead":
        changed["parts"]["probe states"][0] *= 2
    else:
        next(iter(changed["models"].values()))["tokens"] *= 2
    assert with_table(PAGE, name, benchmark.table(changed)) != PAGE
