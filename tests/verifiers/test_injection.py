"""B5 row 27: text that would run if anything evaluated it, through everything in covent that reads text."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covent.errors import CoventError
from covent.logs.dump import read_dump
from covent.logs.read import read_logs
from covent.store.reader import read_run
from covent.tasks import ClockSettings, ClockTask, DataSettings, DataTask, GridSettings, GridTask, VerifierSettings
from covent.tasks.base import Answer
from covent.train.config_file import load_config
from covent.verifiers.exact import judge_exactly
from covent.verifiers.functions import RewardFunction
from covent.verifiers.mathematics import MathVerifier
from covent.verifiers.program_values import NotPlain, decoded
from covent.verifiers.programs import program_in
from covent.verifiers.programs import tests_of as parsed_tests
from covent.verifiers.settings import RewardSettings
from tests.support.figures import figure
from tests.verifiers.payloads import payloads

Parser = Callable[[str, Path], Any]


def as_answer(text: str, folder: Path) -> None:
    judge_exactly(f"\\boxed{{{text}}}", text)
    judge_exactly(text, text)


def as_response(text: str, folder: Path) -> None:
    clock, grid = ClockTask(ClockSettings(), 0), GridTask(GridSettings(), 0)
    for task in (clock, grid):
        problem = next(task.stream("train", 0))
        task.judge([Answer(problem, text), Answer(problem, f"answer {text}")])


def as_data(text: str, folder: Path) -> None:
    values = [
        {"prompt": text, "answer": "1"},
        {"prompt": "p", "answer": text},
        {"prompt": [{"role": text, "content": text}], "reward_model": {"ground_truth": text}},
    ]
    lines = [json.dumps({"prompt": "fine", "answer": "1"}), *map(json.dumps, values), text.replace("\n", " ")]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    task = DataTask(DataSettings(path=str(folder / "rows.jsonl"), skip_bad=True), VerifierSettings())
    task.judge([Answer(problem, f"\\boxed{{{text}}}") for problem in task.problems()])


def as_tests(text: str, folder: Path) -> None:
    program_in(f"```python\n{text}\n```")
    for truth in (
        text,
        {"asserts": [text]},
        {"test": text, "entry_point": text},
        {"inputs": [text], "outputs": [text]},
    ):
        try:
            parsed_tests(truth)
        except CoventError:
            continue


def as_values(text: str, folder: Path) -> None:
    for value in (text, {text: text}, {"list": text}, {"int": text}, {"dict": [[text, text]]}):
        try:
            decoded(value)
        except NotPlain:
            continue


def as_config(text: str, folder: Path) -> None:
    (folder / "run.yaml").write_text(text)
    (folder / "fine.yaml").write_text("seed: 0\n")
    for path, overrides in (
        (folder / "run.yaml", []),
        (folder / "fine.yaml", [f"name={text}"]),
        (folder / "fine.yaml", [text]),
        (folder / "fine.yaml", [f"task={text}"]),
    ):
        try:
            load_config(path, overrides)
        except CoventError:
            continue


def as_reward_function(text: str, folder: Path) -> None:
    for name in (text, f"{text}:score"):
        try:
            RewardFunction(RewardSettings(function=name))
        except CoventError:
            continue


def as_log(text: str, folder: Path) -> None:
    contents = {
        "a.jsonl": json.dumps({"step": 1, "entropy": text, text: 1.0}) + "\n" + text,
        "a.csv": f"step,entropy,{json.dumps(text)}\n1,{json.dumps(text)},2\n",
        "a.log": text,
        "trainer_state.json": json.dumps({"log_history": [{"step": 1, "entropy": text, text: text}]}),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        for read in (read_logs, read_dump):
            try:
                read(folder / name)
            except CoventError:
                continue


def as_run_folder(text: str, folder: Path) -> None:
    for name in ("run.json", "status.json", "steps.jsonl", "config.yaml"):
        (folder / name).write_text(text)
        try:
            read_run(folder)
        except CoventError:
            continue


PARSERS: list[Parser] = [
    as_answer,
    as_response,
    as_data,
    as_tests,
    as_values,
    as_config,
    as_reward_function,
    as_log,
    as_run_folder,
]


@pytest.fixture(scope="module")
def mathematics() -> Iterator[MathVerifier]:
    pytest.importorskip("math_verify", reason="needs the math extra")
    made = MathVerifier(VerifierSettings(timeout_s=2, memory_mb=512))
    yield made
    made.close()


def filled(marker: Path) -> list[str]:
    return [payload.replace("MARKER", str(marker)) for payload in payloads()]


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.__name__)
def test_nothing_that_is_read_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parser: Parser) -> None:
    monkeypatch.chdir(tmp_path)
    marker = tmp_path / "marker"
    for number, text in enumerate(filled(marker)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.suppress(CoventError):
            parser(text, folder)
        assert not marker.exists(), text


def in_children(mathematics: MathVerifier, texts: list[str]) -> None:
    boxed = [(f"\\boxed{{{text}}}", "1") for text in texts]
    anywhere = MathVerifier(VerifierSettings(timeout_s=2, memory_mb=512), marked=False)
    for verifier, pairs in ((mathematics, boxed), (anywhere, [(text, "1") for text in texts])):
        verifier.judge(pairs)
        verifier.judge([("\\boxed{1}", truth) for truth in texts])
    anywhere.close()


def test_nothing_runs_in_math_verifys_children(tmp_path: Path, mathematics: MathVerifier) -> None:
    """Short form: every 8th. The children may write no file at all, which is the second line of defence."""
    in_children(mathematics, filled(tmp_path / "marker")[::8])
    assert not (tmp_path / "marker").exists()


@pytest.mark.slow
def test_100_payloads_run_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mathematics: MathVerifier) -> None:
    """B5 row 27: the figure for the table."""
    for parser in PARSERS:
        folder = tmp_path / parser.__name__
        folder.mkdir()
        test_nothing_that_is_read_runs(folder, monkeypatch, parser)
    in_children(mathematics, filled(tmp_path / "marker"))
    assert not (tmp_path / "marker").exists()
    names = ", ".join(parser.__name__.removeprefix("as_").replace("_", " ") for parser in PARSERS)
    figure(
        27,
        f"100 of 100 through {len(PARSERS) + 1} readers ({names}, math-verify); 0 markers;"
        " 0 banned calls outside the sandbox",
    )


@pytest.mark.parametrize(
    "run",
    [
        "import sys; eval(sys.argv[1])",
        "import sys, yaml; yaml.unsafe_load('!!python/object/apply:eval [' + repr(sys.argv[1]) + ']')",
        "import sys, sympy; sympy.sympify(sys.argv[1])",
    ],
    ids=["eval", "unsafe YAML", "sympify"],
)
def test_what_covent_does_not_call_would_run_them(tmp_path: Path, run: str) -> None:
    """Negative control: the payloads are live."""
    if "sympy" in run:
        pytest.importorskip("sympy")
    marker = tmp_path / "marker"
    subprocess.run([sys.executable, "-c", run, filled(marker)[0]], capture_output=True)
    assert marker.exists()


@given(st.text(max_size=200))
def test_any_text_is_only_text(text: str) -> None:
    as_tests(text, Path())
    as_values(text, Path())
