"""docs/reliability.md shows the committed figures, and each of them names a test that exists."""

from __future__ import annotations

import copy
import json
import re

import pytest

from benchmarks.reliability import FAULTS, PAGE, PEER, RESULT, aggregated, peer_table, short_hash, table
from tests.contract.source import ROOT

FOUND = json.loads(RESULT.read_text(encoding="utf-8"))
TRL = json.loads(PEER.read_text(encoding="utf-8"))


def test_the_table_is_that_of_the_result() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table(FOUND) in page
    changed = copy.deepcopy(FOUND)
    changed["rows"]["1"]["figures"][0]["figure"] += " or so"
    assert table(changed) not in page
    assert all(short_hash(commit) in page for row in FOUND["rows"].values() for commit in row["commits"])
    changed = copy.deepcopy(FOUND)
    changed["rows"]["1"]["commits"] = ["0" * 40]
    assert table(changed) not in page
    assert peer_table(FOUND, TRL) in page


def test_every_row_has_a_figure_of_a_test_that_exists() -> None:
    assert {int(row) for row in FOUND["rows"]} == set(FAULTS)
    for row in FOUND["rows"].values():
        for figure in row["figures"]:
            path, name = figure["test"].split("::")
            assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), figure


@pytest.mark.parametrize("count", [1, 3])
def test_figures_of_one_test_with_several_cases_are_counted(count: int) -> None:
    seen = [{"row": 9, "figure": "{count} of 3 states", "test": f"tests/a.py::test_b[{i}]"} for i in range(count)]
    assert aggregated(seen) == {9: [{"figure": f"{count} of 3 states", "test": "tests/a.py::test_b"}]}
