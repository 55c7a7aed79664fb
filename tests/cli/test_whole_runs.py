"""`covent train`, `covent report` and `covent demo` as a person meets them: processes, signals and files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from covent.store.reader import read_run

TINY = """
task: {name: clock}
model: {hidden_size: 16, num_heads: 2, intermediate_size: 32}
warm_start: {steps: 60, cache: false, min_teacher_frac: 0}
rollout: {prompts_per_step: 8, samples_per_prompt: 4}
evaluation: {every: 2, validation_problems: 8, validation_samples: 2, test_problems: 8, test_samples: 4}
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


@contextlib.contextmanager
def _covent(*words: str, workplace: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of a command, gone when the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "covent", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=workplace,
        env=os.environ | {"XDG_CACHE_HOME": str(workplace / "cache")},
    ) as process:
        try:
            yield process
        finally:
            # A demo stops its own processes when it is interrupted, and cannot when it is killed.
            process.send_signal(signal.SIGINT)
            process.communicate()


def _done(*words: str, workplace: Path, longest_s: float = 120) -> tuple[int, str, str]:
    with _covent(*words, workplace=workplace) as process:
        out, err = process.communicate(timeout=longest_s)
        return process.returncode, out, err


def test_a_run_and_its_report(workplace: Path) -> None:
    code, out, err = _done("train", "tiny.yaml", "steps=4", "control.type=kl_cov", "--json", workplace=workplace)
    assert code == 0, err
    line = json.loads(out)
    assert line["run"] == "runs/tiny"
    assert (line["summary"]["method"], line["summary"]["num_steps"]) == ("kl_cov", 4)
    run = read_run(workplace / "runs" / "tiny")
    assert run.status.state == "finished"
    assert len(run.steps) == 4

    code, out, err = _done("report", "runs/tiny", workplace=workplace)
    assert (code, err) == (0, "")
    assert "report: report.html" in out
    assert (workplace / "report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")


def test_ctrl_c_leaves_a_readable_run(workplace: Path) -> None:
    folder = workplace / "runs" / "tiny"
    steps = folder / "steps.jsonl"
    with _covent("train", "tiny.yaml", "steps=100000", workplace=workplace) as process:
        while not (steps.exists() and steps.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "covent report runs/tiny" in out
    assert "Traceback" not in err
    run = read_run(folder)
    assert run.status.state == "interrupted"
    assert len(run.steps) >= 2
    assert run.notes == []


@pytest.mark.slow
def test_the_demo_ends_with_three_runs_and_a_report(workplace: Path) -> None:
    code, out, err = _done("demo", "--steps", "4", "--seed", "3", "--json", workplace=workplace, longest_s=900)
    assert code == 0, err
    line = json.loads(out)
    assert [run["method"] for run in line["runs"]] == ["ppo_clip", "clip_cov", "kl_cov"]
    assert {run["seed"] for run in line["runs"]} == {3}
    assert len({read_run(folder.parent).header.start_model for folder in workplace.glob("runs/demo/*/run.json")}) == 1
    assert (workplace / line["report"]).stat().st_size > 100_000
    assert "covent train runs/demo/clip_cov.yaml" in err
