"""The live view of running runs: each row once, torn lines later, and the same numbers as the strict reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from covent.cli.live import LiveRun, Tail, sparkline
from covent.store.reader import read_run
from covent.store.schema import StepRow
from tests.support.synthetic import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "grpo", "grpo", num_steps=20)


def test_a_file_that_grows_byte_by_byte_gives_each_row_once(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "steps.jsonl").read_bytes()
    growing = tmp_path / "steps.jsonl"
    tail = Tail(growing, StepRow)
    tail.read()
    assert tail.rows == []
    for end in range(0, len(whole) + 1, 997):
        growing.write_bytes(whole[:end])
        tail.read()
        assert len(tail.rows) == whole[:end].count(b"\n")
    growing.write_bytes(whole)
    tail.read()
    tail.read()
    assert tail.rows == read_run(folder).steps


def test_the_cells_are_the_last_values(folder: Path) -> None:
    run = read_run(folder)
    live = LiveRun("grpo", folder, num_steps=20)
    live.read()
    name, step, entropy, course, reward, validation = live.cells()
    assert (name, step) == ("grpo", "20/20")
    assert entropy == f"{run.steps[-1].entropy.value:.3f}"
    assert reward == f"{run.steps[-1].reward.value:.2f}"
    assert validation == f"{[row for row in run.evaluations if row.split == 'validation'][-1].avg.value:.2f}"
    assert course[0] == "█"
    assert len(course) == 20


def test_a_run_that_has_not_begun_is_empty(tmp_path: Path) -> None:
    live = LiveRun("grpo", tmp_path / "grpo", num_steps=20)
    live.read()
    assert live.cells() == ["grpo", "0/20", "", "", "", ""]


def test_a_curve_of_zeros_has_no_top() -> None:
    assert sparkline([0.0, 0.0], width=8) == "▁▁"
    assert sparkline([], width=8) == ""


def test_stretches_of_a_long_curve_are_means() -> None:
    assert sparkline([1.0] * 300 + [0.5] * 100, width=4) == "███▅"
