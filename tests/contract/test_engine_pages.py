"""The tables of what covent costs inside TRL and verl are what the benchmark makes of the committed results."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from benchmarks.engine_overhead import INSIDE, tables
from benchmarks.law_tables import with_table
from tests.contract.source import ROOT

PAGES = {"trl_overhead": "trl.md", "verl_overhead": "inside_verl.md"}
MICRO_FRAC = 0.05
"""What covent may cost with scope `micro`, of the engine's update."""


@pytest.fixture(params=PAGES)
def result(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    path = ROOT / "benchmarks" / "results" / f"{request.param}.json"
    page = (ROOT / "docs" / PAGES[request.param]).read_text(encoding="utf-8")
    return page, json.loads(path.read_text(encoding="utf-8"))


def test_the_table_is_that_of_the_result(result: tuple[str, dict[str, Any]]) -> None:
    page, found = result
    assert with_table(page, "cost", tables(found)) == page
    changed = copy.deepcopy(found)
    next(iter(changed["cpu_seconds"]["4"].values()))["first update"] = [1000.0]
    for table in changed["cpu_seconds"].values():
        for phases in table.values():
            phases["first update"] = phases["first update"][:1]
    assert with_table(page, "cost", tables(changed)) != page


def test_the_result_is_of_the_size_that_was_asked_for(result: tuple[str, dict[str, Any]]) -> None:
    _, found = result
    settings = found["settings"]
    assert settings["hidden"] >= 256 and settings["batch"] == 128 and settings["rounds"] >= 3
    for table in found["cpu_seconds"].values():
        assert all(len(values) == settings["rounds"] for phases in table.values() for values in phases.values())


def test_micro_costs_little_and_the_window_more(result: tuple[str, dict[str, Any]]) -> None:
    """By the time inside covent; the negative control is the forward pass that the exact window takes."""
    _, found = result
    for split, table in found["cpu_seconds"].items():
        bare = next(iter(table.values()))
        for name, phases in table.items():
            shares = [min(phases[inside]) / min(bare[phase]) for phase, inside in INSIDE.items()]
            if name.endswith("micro"):
                assert max(shares) <= MICRO_FRAC, (split, name)
            elif name.endswith("window") and split == "4":
                assert shares[1] > MICRO_FRAC, name
