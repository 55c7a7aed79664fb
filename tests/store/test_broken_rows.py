"""Rows with numbers that no run can measure are refused with file, line and field; their neighbours are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from covent.errors import StoreError
from covent.report.page import page
from covent.store.reader import read_run
from covent.store.schema import FaultRow


def put(path: Path, line: int, field: str, value: Any) -> None:
    """Set a field, with dots into sections and numbers into lists, of one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[line - 1])
    *parents, last = (int(part) if part.isdigit() else part for part in field.split("."))
    place = row
    for parent in parents:
        place = place[parent]
    place[last] = value
    lines[line - 1] = json.dumps(row)
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")


IMPOSSIBLE = [
    ("steps", 4, "entropy.sum", -5.0, "entropy: sum / count is -"),
    ("steps", 4, "entropy.sum", 1e300, "entropy: sum / count"),
    ("steps", 4, "entropy.count", -1, "entropy.count"),
    ("steps", 1, "step", -1, "step: Input should be greater"),
    ("steps", 10, "step", 10**30, "step: Input should be less"),
    ("steps", 4, "reward.sum", 1e6, r"reward\.sum 1e\+06 over reward\.count 256"),
    ("steps", 4, "reward.sum", -1.0, r"reward\.sum -1"),
    ("steps", 4, "truncated.sum", 257.0, "truncated: sum is 257"),
    ("steps", 4, "response_length.sum", -1.0, "response_length: sum is -1"),
    ("steps", 4, "num_groups", -1, "num_groups"),
    ("updates", 4, "clip_high.sum", -1.0, "clip_high: sum is -1"),
    ("updates", 4, "control.num_selected", 817, "control: num_selected is 817"),
    ("updates", 4, "control.num_candidates", -1, "control: num_candidates is -1"),
    ("updates", 4, "probe.observed", 1e308, r"probe: observed is 1e\+308"),
    ("updates", 4, "probe.accounted", -1e308, r"probe: accounted is -1e\+308"),
    ("updates", 4, "probe.entropy_before", -1.0, "probe: entropy_before is -1"),
    ("evaluations", 2, "num_samples", 0, "num_samples"),
    ("evaluations", 2, "num_problems", 127, "num_right has 128 entries for 127 problems"),
    ("evaluations", 2, "num_right.3", -1, "num_right has -1 right of 4 samples"),
    ("evaluations", 2, "num_right.3", 5, "num_right has 5 right of 4 samples"),
    ("evaluations", 2, "num_right", [1, 2], "num_right has 2 entries for 128"),
    ("evaluations", 2, "pass_at.abc", {"value": 0.5, "low": 0.4, "high": 0.6}, "pass_at has the key 'abc'"),
    ("evaluations", 2, "pass_at.x5", {"value": 0.5, "low": 0.4, "high": 0.6}, "pass_at has the key 'x5'"),
    ("evaluations", 2, "avg.value", 1.5, "avg.value: the proportion is 1.5"),
    ("evaluations", 3, "step", 0, r"step 0 and split validation again, after line 2"),
    ("verdicts", 2, "verdicts.right", -1, "verdicts.right"),
    ("samples", 2, "logprobs", [-0.5], "logprobs has 1 entries for 18 tokens"),
    ("samples", 1, "covariances", [], "covariances has 0 entries for 18 tokens"),
    ("samples", 1, "selected", [True] * 19, "selected has 19 entries for 18 tokens"),
]


@pytest.mark.parametrize(("kind", "line", "field", "value", "reason"), IMPOSSIBLE)
def test_an_impossible_number_is_refused_with_file_line_and_field(
    folder: Path, kind: str, line: int, field: str, value: object, reason: str
) -> None:
    path = folder / f"{kind}.jsonl"
    put(path, line, field, value)
    with pytest.raises(StoreError, match=rf"{kind}\.jsonl:{line} .*{reason}"):
        read_run(folder)


@pytest.mark.parametrize(
    ("kind", "line", "field", "value"),
    [
        ("steps", 4, "entropy.sum", 0.0),
        ("steps", 4, "entropy.sum", -1e-7),
        ("steps", 4, "reward.sum", 0.0),
        ("steps", 4, "reward.sum", 256.0),
        ("steps", 4, "truncated.sum", 256.0),
        ("updates", 4, "control.num_selected", 816),
        ("updates", 4, "control.num_candidates", None),
        ("evaluations", 2, "num_right.3", 4),
        ("evaluations", 2, "pass_at", {}),
        ("evaluations", 2, "avg.value", 1.0),
        ("samples", 1, "covariances", None),
    ],
)
def test_the_ends_of_a_range_are_allowed(folder: Path, kind: str, line: int, field: str, value: object) -> None:
    """The negative control: the checks refuse what is outside and nothing at the edge."""
    put(folder / f"{kind}.jsonl", line, field, value)
    assert read_run(folder).notes == []


def test_rewards_of_another_engine_have_any_size(folder: Path) -> None:
    put(folder / "steps.jsonl", 4, "reward.sum", -1e6)
    with pytest.raises(StoreError, match="earns 0 or 1"):
        read_run(folder)
    put(folder / "run.json", 1, "config", {"engine": {"name": "trl"}, "control": {"type": "grpo"}})
    assert read_run(folder).steps[3].reward.sum == -1e6


@pytest.mark.parametrize("control", [["x"], [], [{"type": "kl_cov"}, 3]])
def test_a_list_of_controls_holds_sections(folder: Path, control: object) -> None:
    put(folder / "run.json", 1, "config.control", control)
    with pytest.raises(StoreError, match=r"run\.json is not a valid RunHeader: config: control is"):
        read_run(folder)
    put(folder / "run.json", 1, "config.control", [{"type": "kl_cov"}, {"type": "top_entropy"}])
    assert page([read_run(folder)])


def test_a_setting_with_a_dot_in_its_name_stays_apart(folder: Path) -> None:
    put(folder / "run.json", 1, "config.seed", 3)
    lines = (folder / "run.json").read_text(encoding="utf-8")
    (folder / "run.json").write_text(lines.replace('"seed": 3', '"seed": 3, "seed.x": {"y": 4}', 1), encoding="utf-8")
    run = read_run(folder)
    assert run.header.config["seed.x"] == {"y": 4} and run.header.config["seed"] == 3
    text = page([run])
    assert "seed: 3\n" in text and "seed.x:\n  y: 4" in text


def test_nesting_without_end_is_an_error_too(folder: Path) -> None:
    deep = "[" * 100_000
    path = folder / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"config"', f'"config":{deep},"more"'), encoding="utf-8")
    with pytest.raises(StoreError, match=r"run\.json is not JSON: .*recursion"):
        read_run(folder)


def test_deep_rows_are_errors_and_a_deep_torn_line_is_dropped(folder: Path) -> None:
    path = folder / "steps.jsonl"
    rows = path.read_bytes()
    path.write_bytes(rows + b"[" * 100_000)
    assert "was cut off" in read_run(folder).notes[0]
    path.write_bytes(b"[" * 100_000 + b"\n" + rows)
    with pytest.raises(StoreError, match=r"steps\.jsonl:1 "):
        read_run(folder)


@pytest.mark.parametrize("name", ["steps.jsonl", "updates.jsonl", "evaluations.jsonl", "samples.jsonl", "status.json"])
def test_a_folder_in_the_place_of_a_file_is_an_error(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert read_run(folder).header.name == "clip_cov"
    (folder / name).mkdir()
    with pytest.raises(StoreError, match=f"{name} is a folder"):
        read_run(folder)


def cut(folder: Path, rows: slice) -> None:
    lines = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "steps.jsonl").write_text("".join(lines[rows]), encoding="utf-8")


def test_status_and_rows_that_disagree_are_noted(folder: Path) -> None:
    assert read_run(folder).notes == []
    cut(folder, slice(0, 6))
    assert read_run(folder).notes == [
        "status.json says finished after 10 rollout steps; the rows of steps.jsonl end at step 5; the rest is missing."
    ]
    cut(folder, slice(0, 0))
    assert read_run(folder).notes == [
        "status.json says finished after 10 rollout steps; the rows of steps.jsonl are missing."
    ]


def test_a_status_behind_the_rows_loses_none_of_them(folder: Path) -> None:
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    (folder / "status.json").write_text(json.dumps(status | {"step": 7}), encoding="utf-8")
    assert read_run(folder).notes == [
        "status.json says finished after 7 rollout steps; the rows of steps.jsonl go on to step 9: status.json is"
        " behind them."
    ]


def test_a_gap_in_the_rows_is_noted(folder: Path) -> None:
    cut(folder, slice(0, None, 3))
    assert read_run(folder).notes == ["steps.jsonl holds 4 of the rollout steps 0 to 9; the rest is missing."]


def test_a_rollout_that_was_left_out_is_no_gap(folder: Path) -> None:
    lines = (folder / "steps.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "steps.jsonl").write_text("".join(lines[:3] + lines[4:9]), encoding="utf-8")
    assert len(read_run(folder).notes) == 2
    left_out = [FaultRow(step=step, update=None, tensor="t", message="", in_a_row=1, rollout=None) for step in (3, 9)]
    rows = "".join(row.model_dump_json() + "\n" for row in left_out)
    (folder / "faults.jsonl").write_text(rows, encoding="utf-8")
    assert [note for note in read_run(folder).notes if "steps.jsonl" in note] == []


@pytest.mark.parametrize(
    ("state", "step", "agrees"), [("running", 9, True), ("finished", 9, False), ("failed", 8, False)]
)
def test_a_run_killed_between_its_row_and_its_status_is_not_noted(
    folder: Path, state: str, step: int, agrees: bool
) -> None:
    put(folder / "status.json", 1, "state", state)
    put(folder / "status.json", 1, "step", step)
    assert (read_run(folder).notes == []) is agrees
