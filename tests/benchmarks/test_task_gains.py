"""The table of what small models learn: its interval against scipy's, and that no result is left out of it."""

import json
from pathlib import Path
from statistics import mean

import pytest
from scipy import stats

from benchmarks.task_gains import RESULT, SEEDS, gain, table

GAINS = [0.31, 0.05, -0.12, 0.2, 0.17]


def seeds(gains: list[float]) -> list[dict[str, list[float]]]:
    return [{"avg": [0.3, 0.3 + each]} for each in gains]


def test_the_interval_is_students() -> None:
    expected = stats.t.interval(0.95, len(GAINS) - 1, loc=mean(GAINS), scale=stats.sem(GAINS))
    assert gain(seeds(GAINS)) == pytest.approx((mean(GAINS), *expected), abs=1e-4)
    normal = stats.norm.interval(0.95, loc=mean(GAINS), scale=stats.sem(GAINS))
    assert gain(seeds(GAINS))[1:] != pytest.approx(normal, abs=1e-2), "five seeds are too few for a normal interval"


def test_the_page_has_the_table_of_the_results() -> None:
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    assert all([seed["seed"] for seed in entry["seeds"]] == list(SEEDS) for entry in found.values())
    assert table(found) in (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text(encoding="utf-8")
