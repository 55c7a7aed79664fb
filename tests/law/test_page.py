"""The tables of docs/law.md are those of the results beside it."""

import json

import pytest

from benchmarks import law_backtest, law_coverage
from benchmarks.law_tables import backtest_tables, with_table, with_tables


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    page = law_coverage.PAGE.read_text(encoding="utf-8")
    found = json.loads(law_coverage.RESULTS.read_text(encoding="utf-8"))
    assert with_tables(page, found) == page
    found["right"][0]["coverage"] -= 0.01
    assert with_tables(page, found) != page


def test_the_backtest_of_the_page_is_that_of_the_results() -> None:
    page = law_backtest.PAGE.read_text(encoding="utf-8")
    found = json.loads(law_backtest.RESULTS.read_text(encoding="utf-8"))
    for name, table in backtest_tables(found).items():
        assert with_table(page, name, table) == page
    found["groups"][0]["origins"][0]["forecast"]["median_rmse"] += 0.01
    assert with_table(page, "backtest", backtest_tables(found)["backtest"]) != page


def test_the_backtest_is_over_at_least_20_runs_on_two_tasks() -> None:
    runs = json.loads(law_backtest.RESULTS.read_text(encoding="utf-8"))["runs"]
    assert len(runs) >= 20
    assert len({(run["task"], run["method"], run["seed"]) for run in runs}) == len(runs)
    assert {run["task"] for run in runs} == {"clock", "grid"}
    assert len({run["method"] for run in runs}) >= 3


def test_the_bar_is_met() -> None:
    """Between 92 and 98 % wherever the model is true, at most 1.8 times as wide as with the correlation known."""
    cells = json.loads(law_coverage.RESULTS.read_text(encoding="utf-8"))["right"]
    assert {(cell["world"], cell["n"]) for cell in cells} == {
        (world, n) for world in ("white", "AR(1) 0.5", "AR(1) 0.8") for n in (30, 60, 200)
    }
    for cell in cells:
        assert cell["num_runs"] == 2000
        assert 0.92 <= cell["coverage"] <= 0.98
        assert cell["width_ratio"] <= 1.8
        assert cell["naive_coverage"] < 0.9 or cell["world"] == "white"


def test_a_page_without_the_marker_is_refused() -> None:
    with pytest.raises(AssertionError, match="no marker"):
        with_table("# A page\n", "coverage", "| a |")


def test_the_interval_does_fail_where_the_page_says_so() -> None:
    cells = json.loads(law_coverage.RESULTS.read_text(encoding="utf-8"))["hard"]
    assert {(cell["n"], cell["num_runs"]) for cell in cells} == {(n, 500) for n in (8, 12, 60, 200)}
    assert min(cell["coverage"] for cell in cells) < 0.6, "the worlds are hard"
    assert all(0.92 <= cell["known_coverage"] <= 0.98 for cell in cells), "and known to be so"
