"""`covent theory`: the tables, the line for programs, and the exit code when a theorem fails."""

from __future__ import annotations

import json

import pytest

from covent.cli.main import main
from covent.tabular import BROKEN, HOLDING, Case


def test_the_tables_and_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--problems", "10", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    line = json.loads(printed.out)
    assert (line["command"], line["exit_code"], line["agrees"], line["problems"]) == ("theory", 0, True, 10)
    assert [row["case"] for row in line["holding"]] == [case.name for case in HOLDING]
    assert [row["case"] for row in line["broken"]] == [case.name for case in BROKEN]
    theorem = line["holding"][2]
    assert len(theorem["step_sizes"]) == len(theorem["median_relative_errors"])
    assert theorem["verdict"] == "first order"
    for words in ("Where the assumptions are met", "With one assumption broken", "Every statement holds"):
        assert words in printed.err


def test_people_read_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--problems", "10"]) == 0
    printed = capsys.readouterr().out
    assert [case.setting for case in BROKEN if case.setting not in printed] == []


def test_a_theorem_that_fails_ends_with_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    adam = next(case for case in BROKEN if case.name == "adam")
    monkeypatch.setattr("covent.tabular.theory.HOLDING", (Case("adam", "Theorem 1", "Adam", adam.draw),))
    monkeypatch.setattr("covent.tabular.theory.BROKEN", ())
    assert main(["theory", "--problems", "10", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["agrees"] is False


def test_too_few_problems_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", "--problems", "0"]) == 2
    assert "problems = 0" in capsys.readouterr().err
