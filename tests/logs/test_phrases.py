"""The sentences that every command shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from covent.logs import LogSeries, fit_result
from covent.logs.phrases import curve_text, law_text, share, typographic
from tests.logs.logfiles import json_lines, law_rows, series_of


@pytest.fixture
def log(tmp_path: Path) -> LogSeries:
    return series_of(json_lines(tmp_path / "log.jsonl", law_rows(60, every=2)))


def test_minus_signs_are_those_of_numbers_only() -> None:
    assert typographic("difference -0.5, x-axis, 3-1, 1e-4") == "difference −0.5, x-axis, 3-1, 1e-4"


def test_shares_of_any_size() -> None:
    assert [share(value) for value in (0.0004, 0.0498, 0.0997, 0.31, 1.0, 0.0)] == [
        "0.040 %",
        "5.0 %",
        "10 %",
        "31 %",
        "100 %",
        "0 %",
    ]


def test_the_formula_shows_each_sign_once(log: LogSeries) -> None:
    law = fit_result(log)
    assert curve_text(law.model_copy(update={"a": 2.4, "b": 3.36})) == "R = −2.40·exp(H) + 3.36"
    assert curve_text(law.model_copy(update={"a": -2.4, "b": -1.0})) == "R = 2.40·exp(H) − 1.00"


def test_a_law_that_is_not_identified_has_no_ceiling_to_read_off(log: LogSeries) -> None:
    sound = law_text(fit_result(log))
    assert "a ceiling of 80.0 %" in sound and "Not identified" not in sound
    rising = fit_result(replace(log, accuracy=log.accuracy[::-1].copy()))
    text = law_text(rising)
    assert text.startswith("Not identified") and "carries no weight" in text
    assert "a ceiling of" not in text and rising.forms not in text


def test_a_percentage_and_a_fraction_are_said_in_one_unit(log: LogSeries) -> None:
    percent = replace(log, unit="percent", accuracy=100 * log.accuracy)
    assert "a ceiling of 80.0 %" in law_text(fit_result(percent))
