"""Watching: the numbers of the rows, a page that is rewritten, and runs that are cut back or have not begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covent.cli.live import Tail
from covent.cli.main import main
from covent.cli.watched import WatchedRun
from covent.store.reader import read_run
from covent.store.schema import StepRow
from tests.support.synthetic import write_run


def test_the_facts_are_those_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", "clip_cov", num_steps=40, stop_after=30)
    page = tmp_path / "page.html"
    assert main(["watch", str(folder), "--html", str(page), "--json"]) == 0
    (fact,) = json.loads(capsys.readouterr().out)["runs"]
    run = read_run(folder)
    assert (fact["state"], fact["step"], fact["num_steps"]) == ("interrupted", 30, 40)
    assert fact["entropy"] == run.steps[-1].entropy.value
    assert fact["accuracy"] == [row for row in run.evaluations if row.split == "validation"][-1].avg.value
    last = run.updates[-20:]
    assert fact["covariance_tail"] == pytest.approx(sum(r.covariance.positive_shares["0.02"] or 0 for r in last) / 20)
    assert fact["selected_frac"] == sum(row.control.num_selected for row in last) / (20 * 816)
    assert "<!doctype html>" in page.read_text("utf-8")


def test_the_time_left_is_that_of_the_steps_to_come(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_steps=40, stop_after=30)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running", "message": ""}))
    run = WatchedRun.of(folder)
    run.read()
    assert not run.has_ended and run.facts()["seconds_left"] == pytest.approx(10 * 0.21)


def test_a_run_that_is_cut_back_is_read_anew(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_steps=10)
    tail = Tail(folder / "steps.jsonl", StepRow)
    tail.read()
    lines = (folder / "steps.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "steps.jsonl").write_bytes(b"".join(lines[:4]))
    tail.read()
    assert [row.step for row in tail.rows] == [0, 1, 2, 3]


def test_hostile_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", num_steps=6, text=lambda text: f"{text}\x1b[2J\u202e")
    assert main(["watch", str(folder), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "\\x1b[2J" in shown and "\x1b[2J" not in shown and "\u202e" not in shown


def test_wrong_calls_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["watch"], ["watch", str(tmp_path)], ["plot"], ["plot", str(tmp_path)]):
        assert main(words) == 2
        assert "error: " in capsys.readouterr().err


def test_tables_of_chosen_plots_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", num_steps=8)
    out = tmp_path / "figures"
    assert main(["plot", str(folder), "--only", "groups,curves", "--csv", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["curves-1.csv", "curves-2.csv", "groups.csv"]
    assert len((out / "groups.csv").read_text().splitlines()) == 9
    assert main(["plot", str(folder), "--only", "grops", "--csv"]) == 2
    assert "groups" in capsys.readouterr().err
