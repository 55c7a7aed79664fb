"""Advice is no surer than what it rests on."""

from __future__ import annotations

import math
from pathlib import Path

from covent.logs.results import all_series
from covent.logs.series import Choice
from covent.report.subject import subjects
from covent.report.verdicts import answers


def advice_on(tmp_path: Path, rows: list[str]) -> tuple[str, str]:
    """(confidence, why) of what to do, for a log."""
    log = tmp_path / "log.csv"
    log.write_text("step,entropy,val/acc\n" + "\n".join(rows) + "\n", encoding="utf-8")
    (subject,) = subjects([], all_series([log], Choice(metric="val/acc", entropy="entropy")))
    found = {answer.question: answer for answer in answers(subject)}["What to do"]
    return found.confidence, found.why


def test_three_points_on_a_line_give_no_confident_advice(tmp_path: Path) -> None:
    confidence, _ = advice_on(tmp_path, ["0,1.0,0.3", "1,0.9,0.4", "2,0.8,0.5"])
    assert confidence == "low"


def test_many_points_of_the_law_do(tmp_path: Path) -> None:
    """The control: where the law holds exactly, advice may rest on it."""
    entropies = [2.0 * 0.97**step for step in range(60)]
    noise = [0.0005 * (-1) ** step for step in range(60)]
    rows = [f"{i},{h},{0.7 - 0.08 * math.exp(h) + e}" for i, (h, e) in enumerate(zip(entropies, noise, strict=True))]
    assert advice_on(tmp_path, rows)[0] == "high"
