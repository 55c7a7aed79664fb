"""A missing library ends with the extra that brings it, and never hides another fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from covent.cli import extras
from covent.cli.extras import require_extra
from covent.errors import MissingExtraError

_WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from covent.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def _without_torch(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *words], capture_output=True, text=True, cwd=folder, timeout=60
    )


@pytest.mark.parametrize("words", [["demo"], ["train", "clock.yaml"]], ids=" ".join)
def test_without_torch_it_says_what_to_install(words: list[str], tmp_path: Path) -> None:
    done = _without_torch(*words, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: covent {words[0]} needs torch, which is not installed."
        " Install the extra: pip install 'covent[train]'. On Linux plain pip brings torch with CUDA, several gigabytes;"
        " README.md, “Which torch?”, says how to get the CPU build.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_rest_works(tmp_path: Path) -> None:
    done = _without_torch("report", "no-such-run", folder=tmp_path)
    assert done.returncode == 2
    assert "no-such-run" in done.stderr
    assert "torch" not in done.stderr


def test_what_is_installed_is_no_error() -> None:
    require_extra("train", "this test")


def test_a_library_that_is_installed_but_broken_keeps_its_own_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "covent_broken_library.py").write_text("import covent_library_below_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(extras.EXTRAS, "made_up", ("covent_broken_library",))
    with pytest.raises(ModuleNotFoundError, match="covent_library_below_it") as broken:
        require_extra("made_up", "this test")
    assert not isinstance(broken.value, MissingExtraError)
