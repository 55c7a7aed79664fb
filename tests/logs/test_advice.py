"""Advice follows from the state of a run, and never asks for what the run already does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from covent.logs import FitResult, LogSeries, fit_result
from covent.logs.advice import Advice, State, advice
from covent.logs.series import RunControl
from tests.logs.logfiles import json_lines, law_rows, series_of

FREE = RunControl(names=(), group_filter=None)


@pytest.fixture
def log(tmp_path: Path) -> LogSeries:
    return series_of(json_lines(tmp_path / "log.jsonl", law_rows(60, every=2)))


@pytest.fixture
def law(log: LogSeries) -> FitResult:
    return fit_result(log)


def told(log: LogSeries, law: FitResult, control: RunControl = FREE, **fields: object) -> Advice:
    state = State(
        phase="collapsed",
        ratio=0.05,
        above_lowest=1.0,
        start_accuracy=0.2,
        end_accuracy=0.7,
        won=None,
        idle=0.1,
        all_right=None,
    ).model_copy(update=fields)
    return advice(state, law, replace(log, control=control))


def test_a_filter_that_is_on_is_not_asked_for(log: LogSeries, law: FitResult) -> None:
    idle = {"idle": 0.8, "all_right": 0.75}
    unknown = told(log, law, **idle)
    assert "filter groups of equal rewards" in unknown.text and "already" not in unknown.reason
    for group_filter in ("mixed", "refill"):
        on = told(log, law, RunControl(names=(), group_filter=group_filter), **idle)
        assert "filter groups" not in on.text and "already" in on.reason
    off = told(log, law, RunControl(names=(), group_filter="none"), **idle)
    assert "filter groups of equal rewards" in off.text


def test_the_problems_asked_for_are_harder_or_easier_as_the_groups_say(log: LogSeries, law: FitResult) -> None:
    assert "harder problems" in told(log, law, idle=0.8, all_right=0.7).text
    assert "easier problems" in told(log, law, idle=0.8, all_right=0.1).text
    assert "problems of another difficulty" in told(log, law, idle=0.8).text


def test_a_control_is_offered_to_runs_without_one_only(log: LogSeries, law: FitResult) -> None:
    controlled = RunControl(names=("clip_cov",), group_filter="mixed")
    for fields in ({"idle": 0.8, "all_right": 0.7}, {}):
        assert "Clip-Cov or KL-Cov" in told(log, law, **fields).text
        assert "Clip-Cov or KL-Cov" not in told(log, law, controlled, **fields).text


def test_a_control_that_takes_all_there_is_cannot_be_raised(log: LogSeries, law: FitResult) -> None:
    control = RunControl(names=("clip_cov",), group_filter="mixed", took_all_frac=0.62)
    assert "62 % of the updates" in told(log, law, control).reason
    assert "updates" not in told(log, law, replace(control, took_all_frac=0.4)).reason


def test_a_solved_task_is_not_an_argument_for_a_control(log: LogSeries, law: FitResult) -> None:
    solved = told(log, law, end_accuracy=0.99, idle=0.9, all_right=0.9)
    assert "harder task" in solved.text and "solved" in solved.reason
    assert "solved" not in told(log, law, end_accuracy=0.9, idle=0.9, all_right=0.9).reason


def test_no_decision_rests_on_a_law_that_does_not_hold(log: LogSeries, law: FitResult) -> None:
    assert told(log, law).text.startswith("Stop here")
    rival = law.rivals[0].model_copy(update={"name": "power of H", "aicc": law.rivals[0].aicc - 50})
    for wrong in ({"identified": False}, {"ceiling": 1.2}, {"rivals": [rival, *law.rivals]}):
        assert told(log, law.model_copy(update=wrong)).text == "Take no decision from the law yet."


def test_a_rise_of_entropy_is_no_reason_to_stop_where_accuracy_rose_without_the_law(
    log: LogSeries, law: FitResult
) -> None:
    unknown = law.model_copy(update={"identified": False})
    rising = {"phase": "rising", "above_lowest": 3.0}
    won = told(log, unknown, **rising)
    assert won.text.startswith("Do not stop for the entropy alone") and "50.0 points" in won.reason
    assert "by the law" not in won.reason
    lost = told(log, unknown, **rising, end_accuracy=0.2)
    assert lost.text.startswith("Do not go on") and "did not rise" in lost.reason
    assert "by the law" in told(log, law, **rising).reason


def test_where_entropy_is_not_known_nothing_is_decided_by_it(log: LogSeries, law: FitResult) -> None:
    assert told(log, law, phase="not known").text.startswith("Log entropy again")
