"""Files of real engines (make_golden.py): every reader finds the numbers that the engine's own file holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from covent.errors import MissingExtraError
from covent.logs import Choice, LogSeries, log_series, read_logs
from tests.logs.logfiles import GOLDEN, one_run, series_of
from tests.support.tolerances import PRINTED, TIGHT

REWARD = "rewards/low_digit_first/mean"


def trl_history() -> list[dict[str, Any]]:
    """The rows of the trainer state, read by nothing but json."""
    history: list[dict[str, Any]] = json.loads((GOLDEN / "trl_trainer_state.json").read_text())["log_history"]
    return history


def trl_points() -> tuple[list[int], list[float], list[float]]:
    """(steps, entropies, accuracies) of the law by plain loops: two trained steps before each evaluation."""
    entropies = {row["step"]: row["entropy"] for row in trl_history() if "entropy" in row}
    evaluations = {row["step"]: row[f"eval_{REWARD}"] for row in trl_history() if f"eval_{REWARD}" in row}
    steps = sorted(evaluations)
    means = [(entropies[step - 1] + entropies[step]) / 2 for step in steps]
    return steps, means, [evaluations[step] for step in steps]


def agrees(series: LogSeries, tolerance: float) -> bool:
    """Whether a series is that of the TRL run."""
    steps, entropies, accuracies = trl_points()
    return (
        series.step.tolist() == steps
        and series.entropy.tolist() == pytest.approx(entropies, rel=tolerance)
        and series.accuracy.tolist() == pytest.approx(accuracies, rel=tolerance)
    )


@pytest.mark.parametrize(
    ("file", "format"),
    [
        ("trl_trainer_state.json", "TRL trainer state"),
        ("wandb_history.jsonl", "JSON Lines"),
        ("trackio.db", "trackio database"),
        ("trl_history.csv", "CSV"),
    ],
)
def test_trl_through_trackers(file: str, format: str) -> None:
    series = series_of(GOLDEN / file)
    assert agrees(series, TIGHT)
    assert series.format == format
    assert series.kind == "validation"
    assert series.accuracy_metric.endswith(REWARD)
    assert series.definition.policy == "learner"
    assert series.definition.temperature is None


def test_trl_console_has_four_digits_and_counted_steps() -> None:
    series = series_of(GOLDEN / "trl_console.log")
    assert agrees(series, 20 * PRINTED)
    assert not agrees(series, TIGHT)
    assert any("counted" in warning for warning in series.warnings)


def test_wandb_panel_has_rows_for_steps() -> None:
    series = series_of(GOLDEN / "wandb_panel.csv")
    _, entropies, accuracies = trl_points()
    assert series.name == "golden"
    assert series.entropy.tolist() == pytest.approx(entropies, rel=TIGHT)
    assert series.accuracy.tolist() == pytest.approx(accuracies, rel=TIGHT)


def test_another_log_is_told_apart(tmp_path: Path) -> None:
    text = (GOLDEN / "trl_trainer_state.json").read_text()
    entropy = trl_history()[0]["entropy"]
    (tmp_path / "state.json").write_text(text.replace(str(entropy), str(entropy + 0.001)))
    assert not agrees(series_of(tmp_path / "state.json"), TIGHT)


def verl_rows() -> list[dict[str, Any]]:
    """verl's file logger, read by nothing but json."""
    lines = (GOLDEN / "verl_file_logger.jsonl").read_text().splitlines()
    return [{"step": row["step"], **row["data"]} for row in map(json.loads, lines)]


@pytest.mark.parametrize("file", ["verl_console.log", "verl_file_logger.jsonl", "mlflow.db"])
def test_verl(file: str) -> None:
    series = series_of(GOLDEN / file)
    rows = verl_rows()
    accuracy = "val-core/openai/gsm8k/acc/mean@1"
    evaluated = [row["step"] for row in rows if accuracy in row and row["step"] > 0]
    entropy = {row["step"]: row["actor/entropy"] for row in rows if "actor/entropy" in row}
    means = [sum(entropy[step - back] for back in range(4)) / 4 for step in evaluated]
    assert series.step.tolist() == evaluated
    assert series.entropy.tolist() == pytest.approx(means, rel=TIGHT)
    assert series.accuracy.tolist() == [row[accuracy] for row in rows if row["step"] in evaluated]
    assert series.accuracy_metric == accuracy
    assert series.definition.policy == "old"
    assert any("start model" in warning for warning in series.warnings), "the evaluation at step 0 meets no entropy"


def test_verl_console_keeps_its_lines() -> None:
    run = one_run(GOLDEN / "verl_console.log")
    lines = (GOLDEN / "verl_console.log").read_text().splitlines()
    assert all(f"step:{row.step} - " in lines[row.line - 1] for row in run.rows)


OPTIONAL = [
    ("events.out.tfevents.1.host.1.0", "tensorboard", "tensorboard"),
    ("trl_offline.wandb", "wandb", "wandb"),
    ("trl_history.parquet", "pyarrow", "data"),
]


@pytest.mark.parametrize(("file", "module", "extra"), OPTIONAL)
def test_binary_formats_where_their_library_is_installed(file: str, module: str, extra: str) -> None:
    pytest.importorskip(module, reason=f"the {extra} extra is not installed")
    # TensorBoard holds float32.
    assert agrees(series_of(GOLDEN / file), 1e-6 if module == "tensorboard" else TIGHT)


@pytest.mark.parametrize(("file", "module", "extra"), OPTIONAL)
def test_without_its_library_a_format_names_the_extra(
    file: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.split(".")[0] == module:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{file} needs {module}.*covent\[{extra}\]"):
        read_logs(GOLDEN / file)


def test_folders_of_engines(tmp_path: Path) -> None:
    state = (GOLDEN / "trl_trainer_state.json").read_bytes()
    for step in (9, 12, 100):
        folder = tmp_path / "out" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_bytes(state if step == 100 else b"{}")
    run = one_run(tmp_path / "out")
    assert agrees(log_series(run), TIGHT)
    assert any("checkpoint-100" in note for note in run.notes), "100 is newer than 9, though not in the alphabet"
    assert agrees(series_of(tmp_path / "out" / "checkpoint-100"), TIGHT)


def test_golden_files_are_small_and_hold_no_path_of_a_machine() -> None:
    for path in GOLDEN.iterdir():
        data = path.read_bytes()
        assert len(data) < 60_000, path.name
        assert not any(word in data for word in (b"/tmp", b"/home", b"/root", b"/work")), path.name


def test_a_declared_temperature_completes_the_definition() -> None:
    run = one_run(GOLDEN / "verl_console.log")
    assert log_series(run).definition.unknown == ["temperature"]
    declared = log_series(run, Choice(temperature=1.0)).definition
    assert declared.unknown == []
    assert declared.reading(0.5).definition == declared.text


def test_logs_that_lie_beside_the_one_that_was_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_bytes((GOLDEN / "trl_trainer_state.json").read_bytes())
    (run,) = read_logs(tmp_path)
    assert not any("not read" in note for note in run.notes)
    (tmp_path / "other.csv").write_text("step,entropy,accuracy\n1,0.5,0.2\n")
    (tmp_path / "config.json").write_text("{}")
    (run,) = read_logs(tmp_path)
    (note,) = (note for note in run.notes if "not read" in note)
    assert "trainer_state.json was read" in note and "other.csv" in note and "config.json" not in note
