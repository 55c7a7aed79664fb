"""The card says what is known, and is no surer than what it rests on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from covent.logs.definitions import EntropyDefinition
from covent.logs.results import all_series
from covent.logs.series import Choice
from covent.report.subject import subjects
from covent.report.verdicts import Answer, answers
from covent.store.reader import Run

KNOWN = EntropyDefinition(
    estimator="exact", temperature=1.0, policy="sampler", weighting="response", tokens="all responses"
)


def card(tmp_path: Path, rows: list[str], definition: EntropyDefinition = KNOWN) -> dict[str, Answer]:
    """The answers of a log's card by their question, for a log whose entropy is of this definition."""
    log = tmp_path / "log.csv"
    log.write_text("step,entropy,val/acc\n" + "\n".join(rows) + "\n", encoding="utf-8")
    found = all_series([log], Choice(metric="val/acc", entropy="entropy"))
    (subject,) = subjects([], [replace(series, definition=definition) for series in found])
    return {answer.question: answer for answer in answers(subject)}


def advice_on(tmp_path: Path, rows: list[str]) -> tuple[str, str]:
    """(confidence, why) of what to do, for a log."""
    found = card(tmp_path, rows)["What to do"]
    return found.confidence, found.why


def on_the_law(num_steps: int = 60) -> list[str]:
    """Rows on which the law holds."""
    entropies = [2.0 * 0.97**step for step in range(num_steps)]
    noise = [0.0005 * (-1) ** step for step in range(num_steps)]
    return [f"{i},{h},{0.7 - 0.08 * math.exp(h) + e}" for i, (h, e) in enumerate(zip(entropies, noise, strict=True))]


def test_three_points_on_a_line_give_no_confident_advice(tmp_path: Path) -> None:
    confidence, _ = advice_on(tmp_path, ["0,1.0,0.3", "1,0.9,0.4", "2,0.8,0.5"])
    assert confidence == "low"


def test_many_points_of_the_law_do(tmp_path: Path) -> None:
    """The control: where the law holds exactly, advice may rest on it."""
    assert advice_on(tmp_path, on_the_law())[0] == "high"


def test_a_ceiling_of_an_unknown_entropy_is_not_sure(tmp_path: Path) -> None:
    assert card(tmp_path, on_the_law())["Ceiling"].confidence == "high"
    for unknown in (EntropyDefinition(), KNOWN.model_copy(update={"temperature": None})):
        found = card(tmp_path, on_the_law(), unknown)
        assert found["Ceiling"].confidence == found["What to do"].confidence == "medium"
        assert "does not say which entropy" in found["Ceiling"].why


def test_the_card_of_a_log_has_its_accuracy_as_it_was_logged(tmp_path: Path) -> None:
    rows = on_the_law()
    accuracies = [float(row.rpartition(",")[2]) for row in rows]
    start, end = (100 * sum(part) / 3 for part in (accuracies[:3], accuracies[-3:]))
    found = card(tmp_path, rows)["Accuracy"]
    assert found.answer == f"{start:.1f} % → {end:.1f} %"
    assert found.reason == "val/acc, means of the first and the last 5 % of 60 points."
    assert found.confidence == "medium" and "[" not in found.why


def test_the_card_of_a_run_has_that_of_the_test_problems(runs: dict[str, Run]) -> None:
    """The control: paired by problem, with its interval."""
    (subject,) = subjects([runs["grpo"]])
    found = {answer.question: answer for answer in answers(subject)}["Accuracy"]
    assert "test problems" in found.reason and "[" in found.why
