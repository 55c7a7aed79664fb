"""Whole runs on data sets with a model folder, and what is said where task and model do not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from covent.cli.main import main
from covent.errors import ConfigError, DataError
from covent.store.reader import Run, read_run
from covent.store.schema import RejectedRow
from covent.train.config import TrainConfig
from covent.train.resume import resume
from covent.train.run import train
from tests.support.local_model import model_folder
from tests.tasks.test_data import json_lines, trl_row, verl_row, with_bad_row
from tests.verifiers.test_functions import FILE


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def settings(path: Path, model: Path | None, **changes: Any) -> dict[str, Any]:
    small = {
        "steps": 2,
        "task": {"name": "data", "path": str(path)},
        "model": {} if model is None else {"path": str(model)},
        "warm_start": {"steps": 0},
        "rollout": {"prompts_per_step": 4, "samples_per_prompt": 4, "max_response_tokens": 6, "group_filter": "none"},
        "optimizer": {"updates_per_rollout": 1, "lr": 1e-3},
        "evaluation": {
            "every": 2,
            "validation_problems": 3,
            "validation_samples": 2,
            "test_problems": 3,
            "test_samples": 2,
        },
        "probe_prompts": 2,
        "samples_kept": 2,
    }
    for name, value in changes.items():
        small[name] = {**small.get(name, {}), **value} if isinstance(value, dict) else value
    return small


def run(folder: Path, path: Path, model: Path | None, **changes: Any) -> Run:
    train(TrainConfig.model_validate(settings(path, model, **changes)), folder)
    return read_run(folder)


@pytest.mark.parametrize("row", [verl_row, trl_row])
def test_both_forms_train_with_a_model_folder(tmp_path: Path, model: Path, row: Any) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [row(number) for number in range(60)])
    found = run(tmp_path / "run", path, model)
    assert found.status.state == "finished"
    assert [step.error.value for step in found.steps if step.error] == [0.0, 0.0]
    assert all(sum(step.verdicts.values()) == 16 for step in found.steps)
    samples = found.samples
    assert samples and all(sample.prompt.startswith("What is ") for sample in samples)


def test_parquet_with_mathematics_and_a_reward_function(tmp_path: Path, model: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the data extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("math_verify", reason="needs the math extra")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([verl_row(number) for number in range(60)]), path)
    found = run(tmp_path / "math", path, model, task={"verifier": "math", "marked": False, "instruction": "boxed"})
    assert found.status.state == "finished"
    rewarded = run(tmp_path / "reward", path, model, reward={"function": f"{FILE}:verl_counts_characters"})
    assert rewarded.status.state == "finished"
    # A reward is a number of characters here.
    assert any((step.reward.value or 0) > 1 for step in rewarded.steps)
    assert any(update.grad_norm > 0 for update in rewarded.updates)


def test_a_run_on_data_resumes_where_it_was(tmp_path: Path, model: Path) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [verl_row(number) for number in range(60)])
    found = run(tmp_path / "run", path, model, checkpoint={"every": 1})
    resume(tmp_path / "run")
    assert read_run(tmp_path / "run").steps == found.steps


def test_chats_go_through_the_template_and_text_does_not(tmp_path: Path, model: Path) -> None:
    import torch

    from covent.tasks import make_task
    from covent.train.model import load_model

    for row, shown in (
        (verl_row, "<|im_start|>user\nWhat is 3 + 3?<|im_end|>\n<|im_start|>assistant\n"),
        (trl_row, "What is 3 + 3?"),
    ):
        path = json_lines(tmp_path / "rows.jsonl", [row(number) for number in range(30)])
        config = TrainConfig.model_validate(settings(path, model))
        task = make_task(config.task, 0)
        made = load_model(config.model, task, seed=0, dtype=torch.float32, device="cpu")
        (problem,) = (each for each in task.problems() if "3 + 3" in each.prompt)
        assert made.tokenizer.decode(made.encode_problem(problem)) == shown


def test_bad_rows_stop_the_command_or_are_kept(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_bad_row(tmp_path / "rows.jsonl", "cut-off JSON")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings(path, model)))
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "rows.jsonl:4" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--skip-bad"]) == 0
    assert "1 of 40 rows" in capsys.readouterr().err
    lines = (tmp_path / "run" / "rejected_rows.jsonl").read_text().splitlines()
    (rejected,) = (RejectedRow.model_validate_json(line) for line in lines)
    assert rejected.place == f"{path}:4" and rejected.row == '{"prompt": "p", "ans'


@pytest.mark.parametrize(
    ("changes", "with_model", "words"),
    [
        ({}, False, ["no vocabulary", "Set model.path"]),
        ({"warm_start": {"steps": 5}}, True, ["no demonstrations", "warm_start.steps=0"]),
        ({"rollout": {"max_response_tokens": None}}, True, ["Set rollout.max_response_tokens"]),
        ({"evaluation": {"test_problems": 50}}, True, ["only", "test problems", "asks for 50"]),
        ({"probe_prompts": 50}, True, ["only", "validation problems", "probe_prompts asks for 50"]),
    ],
)
def test_what_a_data_set_needs_is_said(
    tmp_path: Path, model: Path, changes: dict[str, Any], with_model: bool, words: list[str]
) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [trl_row(number) for number in range(60)])
    with pytest.raises(ConfigError) as error:
        run(tmp_path / "run", path, model if with_model else None, **changes)
    assert [word for word in words if word not in str(error.value)] == []


def test_a_chat_needs_a_template(tmp_path: Path) -> None:
    path = json_lines(tmp_path / "rows.jsonl", [verl_row(number) for number in range(60)])
    plain = model_folder(tmp_path / "model", chat=False)
    with pytest.raises(ConfigError, match=r"rows\.jsonl:\d+ is a chat.*prompt_form=text"):
        run(tmp_path / "run", path, plain)
    assert run(tmp_path / "again", path, plain, task={"prompt_form": "text"}).status.state == "finished"


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no system role') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
        "{% for x in %}",
    ],
)
def test_a_template_that_fails_or_tries_to_get_out_is_named(tmp_path: Path, model: Path, template: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "chat_template.jinja").write_text(template.replace("MARKER", str(tmp_path / "marker")))
    path = json_lines(tmp_path / "rows.jsonl", [verl_row(number) for number in range(60)])
    with pytest.raises(ConfigError, match="chat template of this model's tokenizer fails"):
        run(tmp_path / "run", path, folder)
    assert not (tmp_path / "marker").exists()


def test_a_prompt_that_does_not_fit_is_named(tmp_path: Path) -> None:
    rows = [trl_row(number) for number in range(60)]
    rows[6]["prompt"] = "word " * 60
    path = json_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"1 prompts leave no room.*rows\.jsonl:7 \(\d+ tokens\)"):
        run(tmp_path / "run", path, model_folder(tmp_path / "model", positions=64))
    assert not (tmp_path / "run").exists()
