"""What verifiers and data sets add to a run's state: a resumed run stops where it would have, and no row is doubled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from covent import stopping
from covent.errors import ChangedRunError, VerifierError
from covent.store import checkpoint
from covent.store.reader import read_resumes, read_run
from covent.tasks import Answer, ClockTask, Judgement, Verdict
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.rollouts import RolloutSource
from covent.train.run import train
from tests.reliability.test_exact_resume import after_step
from tests.support.figures import figure
from tests.support.interrupted import chance_verdict, differences, recorded, settings
from tests.support.local_model import model_folder
from tests.tasks.test_data import BAD_ROWS, json_lines, trl_row

ONE_ERROR_A_STEP = settings("mini-batches", steps=20, verifier={"max_error_frac": 0.04})


def one_error_a_batch(task: ClockTask, answers: Sequence[Answer], poll: Callable[[], None]) -> list[Judgement]:
    """The first response of each batch cannot be judged."""
    poll()
    verdicts = [chance_verdict(task, answer.problem, answer.text) for answer in answers]
    return [Judgement.of(Verdict.ERROR, "away"), *map(Judgement.of, verdicts[1:])]


def train_until_the_verifier_fails(folder: Path) -> Path:
    with pytest.raises(VerifierError):
        train(parse_config(ONE_ERROR_A_STEP, source="test"), folder)
    return folder


def taken_up_after(step: int, whole: Path, folder: Path) -> Path:
    """A run that was killed after a step and taken up again, until its verifier fails."""
    shutil.copytree(whole, folder)
    for path in checkpoint.numbered(folder / checkpoint.FOLDER):
        if int(path.name.split("-")[2]) > step:
            shutil.rmtree(path)
    (folder / "status.json").unlink()
    with pytest.raises(VerifierError):
        resume(folder)
    return folder


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_failing_verifier_stops_a_resumed_run_at_the_same_step(
    forgotten: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error in 8 responses, 4 of the newest 100 allowed: the 5th step stops the run. Its control forgets them."""
    monkeypatch.setattr(ClockTask, "judge", one_error_a_batch)
    monkeypatch.setitem(ONE_ERROR_A_STEP["checkpoint"], "keep", 100)
    whole = train_until_the_verifier_fails(tmp_path / "whole")
    assert len(read_run(whole).steps) == 4
    if forgotten:
        resumed = RolloutSource.resumed
        monkeypatch.setattr(RolloutSource, "resumed", lambda *args: resumed(*args[:-1], ()))
    for step in (1, 3):
        part = taken_up_after(step, whole, tmp_path / f"part {step}")
        assert (recorded(part) == recorded(whole)) != forgotten
        assert len(read_run(part).steps) == (4 + step if forgotten else 4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run on a file with two bad rows, judged by a reward function in a file."""
    folder = tmp_path_factory.mktemp("data")
    bad = [BAD_ROWS[kind][0] for kind in ("no JSON", "a list")]
    path = json_lines(folder / "rows.jsonl", [trl_row(number) for number in range(40)])
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in bad)
    (folder / "rewards.py").write_text(
        "from scales import scale\n\n\n"
        "def lengths(completions, **columns):\n    return [scale(len(text)) for text in completions]\n"
    )
    (folder / "scales.py").write_text("import units\n\n\ndef scale(x):\n    return 0.5 * x * units.UNIT\n")
    (folder / "units").mkdir()
    (folder / "units" / "__init__.py").write_text("UNIT = 1.0\n")
    return {
        **settings("mini-batches", steps=4, warm_start={"steps": 0}, checkpoint={"keep": 100}),
        "task": {"name": "data", "path": str(path), "skip_bad": True},
        "model": {"path": str(model_folder(folder / "model"))},
        "reward": {"function": f"{folder / 'rewards.py'}:lengths"},
    }


@pytest.fixture(scope="module")
def whole(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(data, source="test"), folder)
    return folder


def test_rejected_rows_are_written_once(
    data: dict[str, Any], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(read_run(whole).rejected_rows) == 2
    for step in range(3):
        part = after_step(whole, tmp_path / f"part {step}", step)
        resume(part)
        assert differences(whole, part) == []
    # Stopped, and killed, before there is any checkpoint.
    for number, how in enumerate((stopping.Stopped, RuntimeError)):
        part = tmp_path / f"early {number}"
        with monkeypatch.context() as patch, pytest.raises((stopping.Stopped, RuntimeError)):
            patch.setattr("covent.train.run.Session._warm_start", _raising(how))
            train(parse_config(data, source="test"), part)
        assert bool(checkpoint.numbered(part / checkpoint.FOLDER)) == (how is stopping.Stopped)
        resume(part)
        assert differences(whole, part) == []


def _raising(kind: type[BaseException]) -> Callable[[object], None]:
    def raises(session: object) -> None:
        raise stopping.Stopped(stopping.HEARD[0]) if kind is stopping.Stopped else kind("killed")

    return raises


CHANGES = {
    "a right answer": ("data", "rows.jsonl", "boxed{6}", "boxed{7}"),
    "a column that only a reward function reads": (
        "data",
        "rows.jsonl",
        '{"prompt"',
        '{"extra_info": {"n": 1}, "prompt"',
    ),
    "a reward function": ("reward_code", "rewards.py", "scale(len(text))", "scale(len(text) + 1)"),
    "a module that it imports": ("reward_code", "scales.py", "0.5", "0.25"),
    "a module that this imports": ("reward_code", "units/__init__.py", "1.0", "2.0"),
    "the tokenizer": ("tokenizer", "model/tokenizer.json", '"added_tokens"', ' "added_tokens"'),
    "its settings": ("tokenizer", "model/tokenizer_config.json", "{", '{"padding_side": "left",'),
    "the chat template": ("tokenizer", "model/chat_template.jinja", "assistant", "helper"),
    "the model's settings": ("model_config", "model/config.json", '"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-02'),
    "its settings for sampling": ("model_config", "model/generation_config.json", "{", '{"temperature": 0.5,'),
}
"""What is changed: the condition's name, the file, what stands there, and what shall."""
SHORT = ("a right answer", "a module that it imports", "the chat template", "the model's settings")


@pytest.mark.parametrize("part", [pytest.param(p, marks=[] if p in SHORT else pytest.mark.slow) for p in CHANGES])
def test_a_changed_byte_of_a_file_is_refused_or_allowed_by_name(
    part: str, data: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    name, file, old, new = CHANGES[part]
    path = Path(data["task"]["path"]).parent / file
    before = path.read_text()
    assert old in before
    run, allowed = after_step(whole, tmp_path / "run", 2), after_step(whole, tmp_path / "allowed", 2)
    path.write_text(before.replace(old, new, 1))
    try:
        with pytest.raises(ChangedRunError, match=rf"(?s)these differ:\n  {name}: \w+ -> \w+\nPut.*--allow {name}$"):
            resume(run)
        resume(allowed, allow=[name])
    finally:
        path.write_text(before)
    assert [list(row.changes) for row in read_resumes(allowed)] == [[name]]
    resume(run)
    assert differences(whole, run) == []
    assert not read_resumes(run)[-1].changes
    figure(
        15,
        f"{{count}} of {len(CHANGES)} changes to data, reward code, tokenizer or model config: refused by name, or"
        " allowed and recorded; put back, it goes on identically",
    )


def test_files_that_come_to_a_folder_count_where_they_are_read(
    data: dict[str, Any], whole: Path, tmp_path: Path
) -> None:
    folder = Path(data["task"]["path"]).parent
    added, unread = folder / "model" / "special_tokens_map.json", [folder / "more.py", folder / "model" / "README.md"]
    run = after_step(whole, tmp_path / "run", 2)
    added.write_text("{}")
    try:
        with pytest.raises(ChangedRunError, match=r"--allow tokenizer$"):
            resume(run)
    finally:
        added.unlink()
    for path in unread:
        path.write_text("1")
    try:
        resume(run)
    finally:
        for path in unread:
            path.unlink()
    assert differences(whole, run) == []
