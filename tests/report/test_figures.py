"""The plots as files: each draws, the same plot is the same file, and the tables keep every digit."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from covent.errors import MissingExtraError
from covent.report.chart import Table
from covent.report.figures import csv_text, named_charts, write_figure
from covent.report.subject import subjects
from covent.store.reader import Run


def test_every_plot_has_a_name_and_a_table_that_comes_back(runs: dict[str, Run]) -> None:
    charts = named_charts(subjects([runs["clip_cov"]]))
    assert {"curves-1", "law", "forecast", "covariance", "histogram", "tail", "polarity", "tests-2"} <= set(charts)
    for chart in charts.values():
        head, *rows = csv.reader(csv_text(chart.table).splitlines())
        assert head == chart.table.columns and len(rows) == len(chart.table.rows)
        for read, row in zip(rows, chart.table.rows, strict=True):
            numbers = [(text, value) for text, value in zip(read, row, strict=True) if isinstance(value, int | float)]
            assert all(float(text) == value for text, value in numbers)
    forecast = next(trace for trace in charts["forecast"].figure.data if trace.name == "forecast")
    assert len(forecast.x) > 5, "what the slider would put in is there"


def test_text_is_no_formula_of_a_spreadsheet_and_steers_nothing() -> None:
    text = csv_text(Table(["a", "b"], [["=1+1", -1.5], ["x\x1b[31m,\n", None]]))
    assert list(csv.reader(text.splitlines(keepends=True))) == [["a", "b"], ["'=1+1", "-1.5"], ["x\\x1b[31m,\n", ""]]


def test_without_matplotlib_the_extra_is_named(
    runs: dict[str, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covent.report.figures.find_spec", lambda name: None)
    chart = named_charts(subjects([runs["grpo"]]))["law"]
    with pytest.raises(MissingExtraError, match=r"covent\[plots\]"):
        write_figure(chart, tmp_path / "law.pdf")


def test_every_plot_draws_and_comes_out_the_same_twice(runs: dict[str, Run], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    charts = named_charts(subjects(list(runs.values())))
    for name, chart in charts.items():
        first = write_figure(chart, tmp_path / "a" / f"{name}.pdf").read_bytes()
        assert first.startswith(b"%PDF") and len(first) > 5000, name
    again = write_figure(charts["curves-1"], tmp_path / "b" / "curves-1.pdf")
    assert again.read_bytes() == (tmp_path / "a" / "curves-1.pdf").read_bytes()
    assert again.read_bytes() != (tmp_path / "a" / "curves-2.pdf").read_bytes()
