"""Results never land on older ones."""

from __future__ import annotations

from pathlib import Path

from covent.cli.folders import next_free, run_folders


def test_the_first_free_number_is_taken(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    taken = []
    for _ in range(3):
        taken.append(next_free(wanted))
        taken[-1].mkdir()
    assert [folder.name for folder in taken] == ["demo", "demo-2", "demo-3"]


def test_a_file_is_in_the_way_too(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("mine")
    assert next_free(tmp_path / "clock").name == "clock-2"


def test_run_folders_are_found_by_their_header(tmp_path: Path) -> None:
    for name in ("grpo", "clip_cov", "cache"):
        (tmp_path / name).mkdir()
    (tmp_path / "grpo" / "run.json").touch()
    (tmp_path / "clip_cov" / "run.json").touch()
    assert [folder.name for folder in run_folders(tmp_path)] == ["clip_cov", "grpo"]
    assert run_folders(tmp_path / "grpo") == [tmp_path / "grpo"]
    assert run_folders(tmp_path / "nothing here") == []
