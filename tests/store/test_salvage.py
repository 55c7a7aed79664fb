"""A damaged folder is read as far as it goes: what is left is the whole run's own, and all else is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from covent.errors import MissingPathError, StoreError
from covent.store.reader import Run, read_run
from covent.store.salvage import salvaged_run
from covent.store.schema import ROW_FILES
from tests.store.conftest import STEPS


def rows(run: Run) -> dict[str, list[object]]:
    return {kind: list(getattr(run, kind)) for kind in ROW_FILES}


def test_a_whole_run_is_read_as_ever(folder: Path) -> None:
    assert salvaged_run(folder) == read_run(folder) and salvaged_run(folder).gaps == {}


@pytest.mark.parametrize("kind", ["steps", "updates", "evaluations", "verdicts", "samples", "attributions"])
@pytest.mark.parametrize("damage", [b"{", b"\xff\xfe", b"[1, 2]", b'{"step": NaN}', b"[" * 100_000, b""])
def test_a_bad_line_costs_that_line_alone(folder: Path, kind: str, damage: bytes) -> None:
    before, path = rows(read_run(folder)), folder / f"{kind}.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    with pytest.raises(StoreError, match=f"{kind}.jsonl:2"):
        read_run(folder)
    run = salvaged_run(folder)
    before[kind].pop(1)
    assert rows(run) == before
    assert run.gaps[kind][0].startswith(f"{kind}.jsonl: line 2 cannot be read and is left out (")
    assert str(folder) not in run.gaps[kind][0]


def test_many_bad_lines_are_counted(folder: Path) -> None:
    path = folder / "updates.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"loss":', b'"lost":'))
    run = salvaged_run(folder)
    assert run.updates == [] and len(run.steps) == STEPS
    assert "lines 1, 2, 3, 4, 5, 6, 7, 8, 32 more cannot be read and are left out (the first:" in run.gaps["updates"][0]


@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_without_a_run_json_the_settings_are_those_of_config_yaml(folder: Path, damage: str) -> None:
    before, path = read_run(folder), folder / "run.json"
    half = path.read_bytes()[:200]
    path.unlink()
    if damage != "missing":
        path.write_bytes(half if damage == "half" else b"")
    run = salvaged_run(folder)
    assert rows(run) == rows(before) and run.is_header_lost and run.seed == before.seed
    assert run.header.config["control"] == {"type": "clip_cov"} and "config.yaml" in run.gaps["run"][0]
    # Without config.yaml too, nothing is made up.
    (folder / "config.yaml").unlink()
    run = salvaged_run(folder)
    assert len(run.steps) == STEPS and run.seed is None and run.header.config == {}


@pytest.mark.parametrize("text", ["", '{"state": "finis', '{"state": "dancing", "step": 1, "num_steps": 2}'])
def test_a_bad_status_is_taken_as_an_interruption(folder: Path, text: str) -> None:
    (folder / "status.json").write_text(text)
    run = salvaged_run(folder)
    assert run.status.state == "interrupted" and "status.json cannot be read" in run.gaps["status"][0]
    assert len(run.steps) == STEPS


def test_a_folder_in_the_place_of_a_file_is_left_out(folder: Path) -> None:
    (folder / "samples.jsonl").unlink()
    (folder / "samples.jsonl").mkdir()
    assert "a folder and should be a file" in salvaged_run(folder).gaps["samples"][0]


def test_what_is_no_run_or_of_another_covent_is_still_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingPathError):
        salvaged_run(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingPathError):
        salvaged_run(tmp_path / "empty")
    for path in folder.iterdir():
        if path.is_file():
            path.write_text("")
    with pytest.raises(StoreError, match="Nothing in"):
        salvaged_run(folder)
    (folder / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(StoreError, match="schema version 99"):
        salvaged_run(folder)
