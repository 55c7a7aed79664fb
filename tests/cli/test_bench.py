"""`covent bench` without its minutes: what it calls, in which order, and what it says when something is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from covent.cli import bench
from covent.cli.bench import benchmarks_folder
from covent.cli.main import main
from covent.errors import MissingPathError
from tests.contract.source import ROOT


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Every program that would run; all succeed but those that contain `fails`."""
    found: list[list[str]] = []

    def run(words: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        found.append(words)
        if "venv" in words:
            (Path(words[-1]) / "bin").mkdir(parents=True)
        return subprocess.CompletedProcess(words, returncode=3 if "fails.json" in words[-1] else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return found


def test_the_peers_are_installed_once(calls: list[list[str]], tmp_path: Path) -> None:
    assert main(["bench", "--case", "tiny", "--out", str(tmp_path / "a.json")]) == 0
    venv, peers, without, benchmark = calls
    assert venv[:3] == [sys.executable, "-m", "venv"]
    assert peers[-1].endswith("lm_head_peers.txt")
    assert "--no-deps" not in peers
    assert without[-3:-1] == ["--no-deps", "-r"]
    assert benchmark[0] == peers[0]
    assert benchmark[1:4] == [str(ROOT / "benchmarks" / "lm_head.py"), "--case", "tiny"]
    calls.clear()
    assert main(["bench", "--case", "tiny", "--out", str(tmp_path / "b.json")]) == 0
    assert len(calls) == 1


def test_a_benchmark_that_fails(calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--out", str(tmp_path / "fails.json")]) == 1
    assert "ended with exit code 3" in capsys.readouterr().err


def test_without_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="need a checkout"):
        benchmarks_folder(tmp_path)
    assert benchmarks_folder(bench._CHECKOUT).is_dir()


def test_what_would_fail_after_minutes_is_said_at_once(
    calls: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["bench", "--out", str(tmp_path / "nowhere" / "a.json")]) == 2
    assert "make it first" in capsys.readouterr().err
    assert main(["bench", "--out", str(tmp_path)]) == 2
    assert "is a folder. Name the file" in capsys.readouterr().err
    (tmp_path / "there.json").touch()
    for name, asked in (("there.json", tmp_path / "there.json"), ("new.json", tmp_path)):
        with monkeypatch.context() as locked:
            # Not by its mode: to a superuser every file is open.
            locked.setattr("os.access", lambda path, mode, asked=asked: Path(path) != asked)
            assert main(["bench", "--out", str(tmp_path / name)]) == 4
        assert "may not be written" in capsys.readouterr().err
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(["bench", "--out", str(tmp_path / "a.json")]) == 1
    assert "run the benchmark on Linux" in capsys.readouterr().err
    assert calls == []


def test_the_peers_are_pinned() -> None:
    for name in bench._PEERS:
        lines = (ROOT / "benchmarks" / name).read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert pins
        assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+(; .*)?", line) for line in pins)
