"""Watching: the numbers of the rows, a page that is rewritten, and runs that are cut back or have not begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covent.cli.live import Tail
from covent.cli.main import main
from covent.cli.watched import WatchedRun
from covent.store.lock import locked
from covent.store.reader import read_run
from covent.store.schema import ForecastRow, StepRow
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


def running(folder: Path) -> Path:
    """A run that was cut off, with the status of one that goes on."""
    write_run(folder, num_steps=40, stop_after=30)
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running", "message": ""}))
    return folder


def test_the_time_left_is_that_of_the_steps_to_come(tmp_path: Path) -> None:
    folder = running(tmp_path / "run")
    with locked(folder):
        run = WatchedRun.of(folder)
        run.read()
        assert not run.has_ended and run.facts()["seconds_left"] == pytest.approx(10 * 0.21)
    # Its process is gone: there is nothing to wait for.
    run.read()
    assert run.has_ended and run.facts()["seconds_left"] is None


def test_a_page_follows_its_run_and_stays_as_it_is_when_the_run_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = running(tmp_path / "run"), tmp_path / "page.html"
    held, pages = locked(folder), []

    def next_look(_: float) -> None:
        pages.append(page.read_text("utf-8"))
        if len(pages) == 2:
            held.release()

    monkeypatch.setattr("covent.cli.watch.time.sleep", next_look)
    assert main(["watch", str(folder), "--html", str(page)]) == 0
    pages.append(page.read_text("utf-8"))
    follows = ['<noscript><meta http-equiv="refresh" content="15">' in text for text in pages]
    assert follows == ['data-reload="15"' in text for text in pages] == [True, True, False]
    # Nothing was new at the second look, so nothing was written.
    assert pages[0] == pages[1]
    assert "interrupted" in capsys.readouterr().out and "is not finished" in pages[0]
    assert "was interrupted after 30 of 40 rollout steps" in pages[2] and "it was killed" in pages[2]


def test_a_page_whose_watcher_leaves_does_not_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, page = running(tmp_path / "run"), tmp_path / "page.html"

    def leave(_: float) -> None:
        assert "data-reload" in page.read_text("utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr("covent.cli.watch.time.sleep", leave)
    with locked(folder):
        assert main(["watch", str(folder), "--html", str(page)]) == 0
    assert "data-reload" not in page.read_text("utf-8")


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


def test_the_ceiling_of_a_watched_run_says_that_it_is_a_live_forecast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = write_run(tmp_path / "run", num_steps=20), tmp_path / "page.html"
    ahead = ForecastRow(
        step=14,
        num_points=3,
        ceiling=0.91,
        ceiling_low=0.8,
        ceiling_high=0.97,
        identified=True,
        final=None,
        final_low=None,
        final_high=None,
    )
    (folder / "forecasts.jsonl").write_text(ahead.model_dump_json() + "\n", "utf-8")
    assert main(["watch", str(folder), "--once", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "ceiling, live" in shown and "91.0 % [80.0, 97.0] (step 14)" in " ".join(shown.split())
    assert "The report fits all points of the run" in " ".join(shown.split())
    assert "covent watch shows the last live forecast of it instead" in page.read_text("utf-8").replace("\u00a0", " ")
    # The line about the page stands by itself.
    assert f"\n\nreport: {page}\n" in shown
    # The control: without a forecast there is no ceiling to speak of.
    (folder / "forecasts.jsonl").unlink()
    assert main(["watch", str(folder), "--once"]) == 0
    assert "(step" not in capsys.readouterr().out


def test_a_plot_of_nothing_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_run(tmp_path / "empty", num_steps=8, stop_after=0, evaluate=False)
    whole = write_run(tmp_path / "run", num_steps=8)
    out = tmp_path / "figures"
    for words in ([], ["--only", "law"]):
        assert main(["plot", str(empty), "--csv", *words]) == 2
        assert "nothing to draw" in capsys.readouterr().err
    assert main(["plot", str(whole), "--csv", "--only", "attribution", "--out", str(out)]) == 2
    assert "attribute_every=10" in capsys.readouterr().err and not out.exists()
    assert main(["plot", str(empty), str(whole), "--csv", "--only", "groups", "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["groups.csv"]


def test_tables_are_written_where_figures_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_run(tmp_path / "run", num_steps=8), tmp_path / "figures"
    monkeypatch.setattr("covent.report.figures.find_spec", lambda name: None)
    call = ["plot", str(folder), "--only", "groups", "--pdf", "--out", str(out)]
    assert main(call) == 2 and not out.exists()
    capsys.readouterr()
    assert main([*call, "--csv"]) == 2
    told = capsys.readouterr()
    assert [path.name for path in out.iterdir()] == ["groups.csv"]
    assert "groups.csv" in told.out and "matplotlib" in told.err and "plots" in told.err
