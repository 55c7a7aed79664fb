"""The run folder: what is written comes back, and what is broken is said with file and line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from covent.errors import ConfigError, MissingPathError, NonFiniteError, RunExistsError, StoreError
from covent.store.finite import first_non_finite
from covent.store.reader import read_run
from covent.store.schema import RunHeader, SampleRow
from covent.store.writer import RunWriter
from tests.support.synthetic import UPDATES_PER_STEP, write_run

STEPS = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", num_steps=STEPS)


@pytest.fixture
def header(folder: Path) -> RunHeader:
    return read_run(folder).header


def sample(**changes: object) -> SampleRow:
    row = {
        "step": 0,
        "group": 0,
        "sample": 0,
        "prompt": "p",
        "answer": "a",
        "verdict": "right",
        "reward": 1.0,
        "advantage": 0.5,
        "tokens": ["a", "b"],
        "logprobs": [-0.5, -0.25],
        "entropies": [0.1, 0.2],
        "covariances": None,
        "selected": None,
    }
    return SampleRow.model_validate(row | changes)


def test_what_is_written_comes_back(tmp_path: Path, header: RunHeader) -> None:
    # U+2028 and U+0085 end a line for str.splitlines; they must not end a row.
    row = sample(
        prompt='line\nbreak, "quote", \u2028, \u0085, <b>, 中文', tokens=["\t", "🙂"], logprobs=[-1 / 3, -1e-300]
    )
    with RunWriter.create(tmp_path / "new", header, "seed: 0\n", num_steps=3) as writer:
        writer.append("samples", row)
        writer.append("samples", sample())
        writer.status("finished", step=3, message="done", seconds=1.5)
    run = read_run(tmp_path / "new")
    assert run.header == header
    assert run.samples == [row, sample()]
    assert (run.status.state, run.status.step, run.status.num_steps, run.status.seconds) == ("finished", 3, 3, 1.5)
    assert run.steps == run.updates == run.evaluations == run.verdicts == []
    assert [note for note in run.notes if "steps.jsonl" not in note] == []
    assert (tmp_path / "new" / "config.yaml").read_text() == "seed: 0\n"
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_whole_run_comes_back(folder: Path) -> None:
    run = read_run(folder)
    assert [row.step for row in run.steps] == list(range(STEPS))
    assert [row.update for row in run.updates] == list(range(STEPS * UPDATES_PER_STEP))
    assert run.status.state == "finished"


def test_each_row_is_readable_before_the_writer_is_closed(tmp_path: Path, header: RunHeader) -> None:
    writer = RunWriter.create(tmp_path / "new", header, "", num_steps=1)
    writer.append("samples", sample())
    assert read_run(tmp_path / "new").samples == [sample()]
    assert read_run(tmp_path / "new").status.state == "running"
    writer.close()
    writer.close()
    with pytest.raises(StoreError, match="closed"):
        writer.append("samples", sample())


def test_a_run_never_writes_over_another(folder: Path, header: RunHeader, tmp_path: Path) -> None:
    before = (folder / "steps.jsonl").read_bytes()
    with pytest.raises(RunExistsError, match="not empty"):
        RunWriter.create(folder, header, "", num_steps=1)
    assert (folder / "steps.jsonl").read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(RunExistsError, match="is a file"):
        RunWriter.create(tmp_path / "file", header, "", num_steps=1)
    (tmp_path / "empty").mkdir()
    RunWriter.create(tmp_path / "empty", header, "", num_steps=1).close()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"reward": math.nan}, "reward"),
        ({"logprobs": [-0.5, -math.inf]}, r"logprobs\[1\]"),
        ({"covariances": [math.inf, 0.0]}, r"covariances\[0\]"),
    ],
)
def test_a_number_that_is_not_finite_is_named_and_not_written(
    tmp_path: Path, header: RunHeader, changes: dict[str, object], field: str
) -> None:
    with RunWriter.create(tmp_path / "new", header, "", num_steps=1) as writer:
        with pytest.raises(NonFiniteError, match=f"'{field}'"):
            writer.append("samples", sample(**changes))
        writer.append("samples", sample(reward=-1e308))
    assert len(read_run(tmp_path / "new").samples) == 1


def test_first_non_finite_walks_all_nesting() -> None:
    assert first_non_finite({"a": [1.0, {"b": (0.0, math.inf)}], "c": "nan"}) == ("a[1].b[1]", math.inf)
    assert first_non_finite({"a": [1.0, {"b": (0.0, None)}], "c": "nan"}) is None


def test_rows_of_the_wrong_kind_are_refused(tmp_path: Path, header: RunHeader) -> None:
    with RunWriter.create(tmp_path / "new", header, "", num_steps=1) as writer:
        with pytest.raises(ConfigError, match="Did you mean 'samples'"):
            writer.append("sample", sample())
        with pytest.raises(ConfigError, match="StepRow, not SampleRow"):
            writer.append("steps", sample())


def test_a_torn_last_line_is_dropped_and_noted(folder: Path) -> None:
    whole = (folder / "steps.jsonl").read_bytes()
    (folder / "steps.jsonl").write_bytes(whole[:-40])
    run = read_run(folder)
    assert len(run.steps) == STEPS - 1
    assert f"steps.jsonl:{STEPS} was cut off" in run.notes[0]
    assert len(run.notes) == 2 and f"finished after {STEPS}" in run.notes[1]
    # The control: without its newline alone the line is whole, and nothing is lost.
    (folder / "steps.jsonl").write_bytes(whole[:-1])
    assert len(read_run(folder).steps) == STEPS and read_run(folder).notes == []


def edited(path: Path, line: int, edit: dict[str, object]) -> None:
    lines = path.read_text().split("\n")
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | edit)
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        ({"surprise": 1}, "surprise"),
        ({"num_groups": "32"}, "num_groups"),
        ({"num_groups": None}, "num_groups"),
        ({"sampler_gap": math.nan}, "sampler_gap is nan"),
        ({"step": 0}, "must increase"),
    ],
)
def test_a_changed_row_is_an_error_with_file_and_line(folder: Path, edit: dict[str, object], reason: str) -> None:
    edited(folder / "steps.jsonl", 4, edit)
    with pytest.raises(StoreError, match=rf"steps\.jsonl:4 .*{reason}"):
        read_run(folder)


def test_a_broken_line_in_the_middle_is_an_error(folder: Path) -> None:
    lines = (folder / "updates.jsonl").read_bytes().split(b"\n")
    lines[6] = lines[6][:-40]
    (folder / "updates.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(StoreError, match=r"updates\.jsonl:7"):
        read_run(folder)
    (folder / "updates.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(StoreError, match=r"updates\.jsonl:1"):
        read_run(folder)


def test_a_folder_that_is_no_run_says_what_to_do(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(MissingPathError, match="does not exist"):
        read_run(tmp_path / "nothing")
    with pytest.raises(
        MissingPathError, match=r"is not a run folder: it has no run\.json.*give one or more of these: .*run"
    ):
        read_run(tmp_path)
    with pytest.raises(MissingPathError, match="is not a run folder: it is a file"):
        read_run(folder / "run.json")
    (tmp_path / "bare").mkdir()
    with pytest.raises(MissingPathError, match="covent train"):
        read_run(tmp_path / "bare")


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_version_is_refused(folder: Path, version: object) -> None:
    edited(folder / "run.json", 1, {"schema_version": version})
    with pytest.raises(StoreError, match="schema version"):
        read_run(folder)


def test_a_broken_header_is_refused(folder: Path) -> None:
    (folder / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"run\.json is not JSON"):
        read_run(folder)


def test_a_missing_status_is_taken_as_an_interruption(folder: Path) -> None:
    (folder / "status.json").unlink()
    run = read_run(folder)
    assert run.status.state == "interrupted" and run.status.step == STEPS
    assert any("status.json" in note for note in run.notes)


def test_rows_do_not_change(folder: Path) -> None:
    with pytest.raises(ValidationError):
        read_run(folder).steps[0].step = 3  # type: ignore[misc]  # wrong on purpose
