"""Whatever standard output is, a command ends with a message and an exit code, never with a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOG = str(Path(__file__).parents[1] / "logs" / "data" / "verl_console.log")
FULL = Path("/dev/full")


def call(*words: str, encoding: str = "utf-8", out: str | None = None) -> subprocess.CompletedProcess[str]:
    """A call in a process of its own, with standard output of an encoding, or into a file."""
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "error"}
    command = [sys.executable, "-m", "covent", *words]
    if out is None:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    with Path(out).open("w") as file:
        return subprocess.run(command, env=environment, stdout=file, stderr=subprocess.PIPE, text=True, check=False)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("fit", LOG, "--json"), ("fit", LOG), ("--help",), ("--version",)])
def test_a_full_disk_behind_standard_output_ends_with_4(words: tuple[str, ...]) -> None:
    ended = call(*words, out=str(FULL))
    assert ended.returncode == 4
    assert "No space left" in ended.stderr
    assert "Traceback" not in ended.stderr and "ignored" not in ended.stderr


@pytest.mark.parametrize("words", [("fit", LOG), ("--help",)])
def test_an_encoding_without_our_characters_is_no_crash(words: tuple[str, ...]) -> None:
    plain, rich = call(*words, encoding="ascii"), call(*words)
    assert (plain.returncode, rich.returncode) == (0, 0)
    assert plain.stdout.isascii() and not rich.stdout.isascii()
    assert "R = -" in plain.stdout or words == ("--help",)


def test_an_error_in_such_an_encoding_is_a_message(tmp_path: Path) -> None:
    ended = call("fit", str(tmp_path / "none.csv"), encoding="ascii")
    assert ended.returncode == 2
    assert "does not exist" in ended.stderr and "Traceback" not in ended.stderr
