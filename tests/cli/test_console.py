"""Whatever a run or a log calls itself, the terminal sees no control character of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console

from covent.cli.main import main
from tests.support.synthetic import write_run

STEERING = "\x1b[31mred\x1b]0;owned\x07 \u202e12"
SHOWN = r"\x1b[31mred\x1b]0;owned\x07 \u202e12"
CONTROLS = ("\x1b", "\x07", "\u202e")


def steered(folder: Path, **arguments: object) -> str:
    """A run folder whose name, notes and status try to steer the terminal."""
    write_run(folder, "clip_cov", text=lambda text: text + STEERING, **arguments)
    updates = folder / "updates.jsonl"
    rows = [json.loads(line) for line in updates.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["control"] |= {"name": row["control"]["name"] + STEERING, "note": STEERING}
    updates.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder)


def calls(tmp_path: Path) -> dict[str, list[str]]:
    """A call of each command that prints what others wrote."""
    run = steered(tmp_path / "run")
    table = tmp_path / "log.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", f"entropy{STEERING}", f"accuracy{STEERING}"])
        writer.writerows([step, 0.5 * 0.9**step, 0.9 - 0.4 * 0.9**step + 0.001 * (step % 3)] for step in range(30))
    columns = ["--entropy", f"entropy{STEERING}", "--metric", f"accuracy{STEERING}"]
    return {
        "report": ["report", run, "--out", str(tmp_path / "report.html")],
        "explain": ["explain", run],
        "fit": ["fit", str(table), *columns],
        "forecast": ["forecast", str(table), *columns],
        "no such column": ["fit", str(table), "--metric", f"nothing{STEERING}"],
        "no such dump": ["measure", str(tmp_path / f"dump{STEERING}.jsonl")],
        "no such folder": ["report", str(tmp_path / STEERING)],
    }


@pytest.mark.parametrize(
    "case", ["report", "explain", "fit", "forecast", "no such column", "no such dump", "no such folder"]
)
def test_no_command_passes_a_control_character_on(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    main(calls(tmp_path)[case])
    captured = capfd.readouterr()
    text = captured.out + captured.err
    assert SHOWN in text
    assert [char for char in CONTROLS if char in text] == []


def test_a_plain_console_passes_them_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The negative control: rich itself takes the bell away and leaves escape sequences and overrides."""
    Console(markup=False, highlight=False).print(STEERING)
    printed = capsys.readouterr().out
    assert "\x1b[31m" in printed and "\u202e" in printed


def test_the_json_line_says_what_was_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["report", steered(tmp_path / "run", num_steps=20), "--out", str(tmp_path / "report.html"), "--json"])
    line = capfd.readouterr().out
    assert line.isascii() and "\x1b" not in line
    assert json.loads(line)["runs"][0]["name"] == "clip_cov" + STEERING
