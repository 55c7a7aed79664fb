"""`covent report` of damaged folders: a banner names what is left out, and whole runs beside them are whole."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from covent.cli.main import main
from tests.support.synthetic import write_run

STEPS = 12
MADE_OF_ROWS = "What is shown is made of the rows that are there."


@pytest.fixture(scope="module", autouse=True)
def one_position_of_the_slider() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("covent.report.law_plots.FRACTIONS", (0.3,))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole") / "grpo", "grpo", num_steps=STEPS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "clip_cov", "clip_cov", num_steps=STEPS)


@pytest.fixture(scope="module")
def clean(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page about whole folders."""
    place = tmp_path_factory.mktemp("clean")
    other = write_run(place / "clip_cov", "clip_cov", num_steps=STEPS)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("covent.cli.output.Output.warn", lambda _, message: said.append(message))
        assert main(["report", str(whole), str(other), "--out", str(place / "page.html")]) == 0
    assert said == []
    return place / "page.html"


def words_of(page: Path) -> str:
    """The text of a page without its scripts."""
    text = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", page.read_text("utf-8"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def tables_of(page: Path, label: str) -> list[object]:
    """The tables under all plots, as far as they are about one run."""
    # A plot of several runs may show nothing of this one.
    found = re.findall(r'<script type="application/json" id="[^"]*-table">(.*?)</script>', page.read_text("utf-8"))
    tables = [json.loads(text) for text in found]
    rows = [
        (table["title"], [row for row in table["rows"] if table["run"] == 0 or row[0] == label])
        for table in tables
        if table["run"] in (None, 0)
    ]
    return [table for table in rows if table[1]]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def bad_line(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:30]
    path.write_bytes(b"\n".join(lines))


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("steps.jsonl", bad_line, "steps.jsonl: line 2 cannot be read and is left out"),
        ("updates.jsonl", bad_line, "updates.jsonl: line 2 cannot be read and is left out"),
        ("evaluations.jsonl", bad_line, "evaluations.jsonl: line 2 cannot be read and is left out"),
        ("samples.jsonl", bad_line, "samples.jsonl: line 2 cannot be read and is left out"),
        ("run.json", half, "run.json cannot be read"),
        ("status.json", half, "status.json cannot be read"),
        ("config.yaml", emptied, "config.yaml cannot be read"),
        ("steps.jsonl", emptied, "the rows of steps.jsonl are missing"),
        ("updates.jsonl", emptied, f"updates.jsonl holds 0 of the {4 * STEPS} optimizer steps made"),
        (
            "updates.jsonl",
            half,
            f"updates.jsonl holds 24 of the {4 * STEPS} optimizer steps made; some are missing at rollout steps",
        ),
    ],
)
def test_a_damaged_run_gives_a_page_with_a_banner_and_its_neighbour_is_whole(
    whole: Path,
    clean: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    page = tmp_path / "page.html"
    assert not any(word in words_of(clean) for word in (words, "are missing", "cannot be read", "Rows are missing"))
    damage(folder / name)
    assert main(["report", str(whole), str(folder), "--out", str(page)]) == 0
    assert f"warning: clip_cov: {words}" in capsys.readouterr().err.replace(
        "status.json says finished after 12 rollout steps; ", ""
    )
    banners = re.findall(r'<p class="banner" role="note">(.*?)</p>', page.read_text("utf-8"))
    assert any(words in html.unescape(re.sub(r"<[^>]+>", "", banner).replace("\u00a0", " ")) for banner in banners)
    same = tables_of(clean, "grpo")
    assert len(same) > 10 and [one for one in tables_of(page, "grpo") if one in same] == same


def test_missing_rows_are_not_explained_away(folder: Path, tmp_path: Path) -> None:
    page, path = tmp_path / "page.html", folder / "updates.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:20]), "utf-8")
    assert main(["report", str(folder), "--out", str(page)]) == 0
    text = words_of(page).replace("\u00a0", " ")
    assert "in 20 updates, of 48 made: the rest is missing" in text and "Rows are missing" in text
    assert "a rollout with few groups of mixed rewards gives fewer" not in text
    # Said at each section that is made of them, and at no other.
    assert text.count(MADE_OF_ROWS) == 8
    path.write_text("", "utf-8")
    assert main(["report", str(folder), "--out", str(page)]) == 0
    text = words_of(page)
    assert "Not here: the rows it is made of are missing." in text and "No covariance was logged" not in text
    # The control: of a run that has none, the page says how to get them.
    steps = folder / "steps.jsonl"
    rows = [json.loads(line) | {"num_updates": 0} for line in steps.read_text("utf-8").splitlines()]
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert main(["report", str(folder), "--out", str(page)]) == 0
    assert "No covariance was logged" in words_of(page)


def test_answers_that_rest_on_missing_rows_are_not_sure(folder: Path, tmp_path: Path, clean: Path) -> None:
    doubt = "Confidence: low (rows are missing in steps.jsonl)"
    bad_line(folder / "steps.jsonl")
    page = tmp_path / "page.html"
    assert main(["report", str(folder), "--out", str(page)]) == 0
    assert words_of(page).count(doubt) >= 2 and doubt not in words_of(clean)


def test_what_cannot_be_read_at_all_is_left_out_with_a_banner(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, log, empty = tmp_path / "page.html", tmp_path / "log.csv", tmp_path / "empty"
    log.write_text("step,nothing\n1,2\n")
    empty.mkdir()
    assert main(["report", str(whole), str(log), str(empty), "--out", str(page)]) == 0
    error, text = capsys.readouterr().err, words_of(page)
    assert error.count("warning: Left out: ") == 2 and text.count("Left out: ") == 2
    assert str(log) in text and str(empty) in text
    # Nothing to show, or a path that was never there, is an error.
    page.unlink()
    assert main(["report", str(log), "--out", str(page)]) == 2
    assert main(["report", str(empty), "--out", str(page)]) == 2
    assert main(["report", str(whole), str(tmp_path / "none"), "--out", str(page)]) == 2
    assert not page.exists()


def test_the_strict_commands_stay_strict(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad_line(folder / "steps.jsonl")
    for command in ("fit", "forecast", "explain"):
        assert main([command, str(folder)]) == 2
        assert "steps.jsonl:2" in capsys.readouterr().err


def test_a_run_that_goes_on_beside_a_damaged_line_is_watched(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    bad_line(folder / "updates.jsonl")
    page = tmp_path / "page.html"
    assert main(["watch", str(folder), str(tmp_path / "other"), "--html", str(page), "--once"]) == 0
    assert "updates.jsonl: line 2 cannot be read" in words_of(page)
    assert "lines not readable" in capsys.readouterr().out
    # The control: whole runs have no such row.
    assert main(["watch", str(tmp_path / "other"), "--once"]) == 0
    assert "not readable" not in capsys.readouterr().out
