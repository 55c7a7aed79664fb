"""The words for a run follow from its numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covent.law import accuracy
from covent.logs import LogSeries, explanation
from covent.logs.explain import Course, entropy_course, gain_won
from tests.logs.logfiles import json_lines, law_rows, series_of
from tests.support.tolerances import TIGHT

STEPS = np.arange(1, 101)


def with_entropy(series: LogSeries, entropies: np.ndarray) -> LogSeries:
    """The same log with another course of entropy."""
    return replace(series, entropy_steps=np.arange(1, entropies.size + 1), entropies=entropies)


@pytest.fixture
def log(tmp_path: Path) -> LogSeries:
    return series_of(json_lines(tmp_path / "log.jsonl", law_rows(60, every=2)))


@pytest.mark.parametrize(
    ("entropies", "phase"),
    [
        (0.5 * np.exp(-STEPS / 10), "collapsed"),
        (0.5 - 0.002 * STEPS, "spending"),
        (0.2 + 0.3 * np.exp(-STEPS / 8), "plateau"),
        (0.2 + 0.004 * STEPS, "rising"),
        (0.2 + 0.6 * np.abs(STEPS / 100 - 0.5) - 0.1, "surging"),
        (np.array([0.5, 0.4]), "too short"),
    ],
)
def test_the_phase_follows_from_the_course(log: LogSeries, entropies: np.ndarray, phase: str) -> None:
    assert entropy_course(with_entropy(log, entropies)).phase == phase


def test_the_shares_of_the_thirds_add_up(log: LogSeries) -> None:
    course = entropy_course(with_entropy(log, 0.5 - 0.002 * STEPS))
    assert course.thirds is not None
    assert sum(course.thirds) == pytest.approx(1.0, abs=TIGHT)
    assert course.thirds == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=0.02)


def test_the_gain_won_is_that_of_the_law_whatever_its_coefficients() -> None:
    course = Course(start=0.9, end=0.3, lowest=0.3, thirds=None)
    for a, b in ((0.2, 0.9), (3.0, 4.0)):
        start, end, top = accuracy([0.9, 0.3, 0.0], a, b)
        assert gain_won(course) == pytest.approx((end - start) / (top - start), rel=TIGHT)
    assert gain_won(course) != pytest.approx((0.9 - 0.3) / 0.9, rel=0.01), "it is no share of entropy"


def test_an_exhausted_run_is_advised_to_stop(log: LogSeries) -> None:
    told = explanation(log)
    assert told.phase == "collapsed"
    assert told.gain_won_frac is not None and told.gain_won_frac > 0.9
    assert told.advice.startswith("Stop here")
    assert "% of the entropy is spent" in told.reason


def test_a_run_that_still_spends_is_advised_to_go_on(tmp_path: Path) -> None:
    told = explanation(series_of(json_lines(tmp_path / "log.jsonl", law_rows(10, every=1))))
    assert told.phase == "spending"
    assert told.advice == "Go on."
    assert "left to win" in told.reason


def test_an_explosion_is_not_advised_to_go_on(log: LogSeries) -> None:
    told = explanation(with_entropy(log, 0.2 + 0.01 * STEPS))
    assert told.phase == "rising"
    assert told.advice.startswith("Do not go on")
    assert told.gain_won_frac is None


def test_idle_groups_come_before_the_law(log: LogSeries) -> None:
    idle = replace(log, others={"zero_variance": (STEPS, np.linspace(0.1, 0.9, 100))})
    assert "give no gradient" in explanation(idle).reason
    busy = replace(log, others={"zero_variance": (STEPS, np.linspace(0.1, 0.3, 100))})
    assert "give no gradient" not in explanation(busy).reason


def test_nothing_is_said_of_what_was_not_logged(log: LogSeries) -> None:
    topics = [finding.topic for finding in explanation(log).findings]
    assert topics == ["Entropy", "Accuracy", "The law", "Covariance"]
    assert "covent measure" in explanation(log).findings[-1].text
    whole = replace(
        log,
        others={
            "zero_variance": (STEPS, np.full(100, 0.2)),
            "all_right": (STEPS, np.full(100, 0.1)),
            "clipped_length": (STEPS, np.full(100, 0.4)),
            "covariance": (STEPS, np.linspace(0.04, 0.002, 100)),
        },
    )
    told = {finding.topic: finding.text for finding in explanation(whole).findings}
    assert "All right: 10 %" in told["Groups"]
    assert "40 % at the start" in told["Length"]
    assert "from 0.0384" not in told["Covariance"] and "lowers entropy" in told["Covariance"]


def test_a_law_that_is_not_identified_gives_no_advice_to_stop(log: LogSeries) -> None:
    rising = replace(log, accuracy=log.accuracy[::-1].copy())
    told = explanation(rising)
    assert not told.identified
    assert told.advice == "Take no decision from the law yet."
    assert told.gain_won_frac is None
    assert math.isfinite(told.entropy_spent_frac)


def test_an_entropy_that_was_not_logged_to_the_end_is_not_known(tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in row.items() if key != "entropy" or row["step"] <= 30}
        for row in law_rows(60, every=1)
    ]
    told = explanation(series_of(json_lines(tmp_path / "log.jsonl", rows)))
    assert told.phase == "not known"
    assert told.gain_won_frac is None
    assert "not logged after step 30" in told.findings[0].text
    assert told.advice.startswith("Log entropy again")
    whole = explanation(series_of(json_lines(tmp_path / "whole.jsonl", law_rows(60, every=1))))
    assert whole.phase == "collapsed"
