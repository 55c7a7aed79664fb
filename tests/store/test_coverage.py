"""Rows that were taken out of a real run's folder are missed, by file and step; a whole run, and one that stopped
early, miss nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from covent.store.coverage import spans
from covent.store.reader import read_run
from tests.support.tiny import tiny_run

Cut = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six rollout steps; validation and samples at 1, 3 and 5, tests at 0 and 6."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = tiny_run(folder, attribute_every=2, seed=2)
    assert run.gaps == {} and run.notes == []
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run")


def cut(folder: Path, kind: str, how: Cut) -> None:
    path = folder / f"{kind}.jsonl"
    path.write_text("".join(how(path.read_text("utf-8").splitlines(keepends=True))), "utf-8")


def nothing(_: list[str]) -> list[str]:
    return []


def without_last(lines: list[str]) -> list[str]:
    return lines[:-1]


def without_second(lines: list[str]) -> list[str]:
    return [lines[0], *lines[2:]]


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("updates", nothing, "holds 0 of the "),
        ("updates", without_last, "some are missing at rollout step 5."),
        ("updates", without_second, "some are missing at rollout step 0."),
        (
            "evaluations",
            nothing,
            "lacks the validation at rollout steps 1 to 5, the test before the first step and the test after step 6.",
        ),
        ("evaluations", without_last, "lacks the test after step 6."),
        ("evaluations", without_second, "lacks the validation at rollout step 1."),
        ("verdicts", nothing, "0 of 8 after step 0, 0 of 8 after step 6."),
        ("verdicts", without_last, "in part: 7 of 8 after step 6."),
        ("verdicts", without_second, "in part: 7 of 8 after step 0."),
        ("samples", nothing, "no response of rollout steps 1 to 5."),
        ("attributions", nothing, "lacks optimizer steps 0 to"),
        ("attributions", without_second, "lacks optimizer steps 2."),
    ],
)
def test_rows_that_were_taken_out_are_missed(folder: Path, kind: str, how: Cut, words: str) -> None:
    cut(folder, kind, how)
    run = read_run(folder)
    assert list(run.gaps) == [kind] and words in run.gaps[kind][0]
    assert run.remarks == run.gaps[kind]


def test_samples_and_faults_are_missed_by_step(folder: Path) -> None:
    kept = read_run(folder).samples[0].step
    cut(folder, "samples", lambda lines: [line for line in lines if json.loads(line)["step"] != kept])
    assert read_run(folder).gaps["samples"] == [f"samples.jsonl holds no response of rollout step {kept}."]

    def with_fault(lines: list[str]) -> list[str]:
        return [json.dumps(json.loads(lines[0]) | {"num_not_applied": 2}) + "\n", *lines[1:]]

    cut(folder, "steps", with_fault)
    assert "holds 0 of the 2 optimizer steps" in read_run(folder).gaps["faults"][0]


def test_steps_are_missed_by_what_was_trained_on_them(folder: Path) -> None:
    cut(folder, "steps", lambda lines: lines[:2])
    assert read_run(folder).gaps["steps"] == ["steps.jsonl ends at step 1, updates.jsonl at step 5."]
    # The control: in a run that was killed in a step, updates are one step ahead of the rows of steps.
    cut(folder, "updates", lambda lines: [line for line in lines if json.loads(line)["step"] <= 2])
    assert "steps" not in read_run(folder).gaps


def test_a_run_that_was_stopped_lacks_no_test_at_its_end(folder: Path) -> None:
    cut(folder, "evaluations", without_last)
    status = json.loads((folder / "status.json").read_text("utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"state": "interrupted"}), "utf-8")
    assert "evaluations" not in read_run(folder).gaps


def test_spans_join_what_follows_one_another_in_what_is_due() -> None:
    due = list(range(2, 60, 5))
    assert spans([2, 7, 12, 22], due) == "2 to 12 and 22"
    assert spans(due[::2], due) == "2, 12, 22 and 3 more"
    assert spans([7], due) == "7"
