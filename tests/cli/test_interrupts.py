"""Ctrl-C while a command loads its libraries: exit code 130, and no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

AT_AN_IMPORT = """
import signal, sys

class Interrupting:
    left = {number}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        cls.left -= 1
        if cls.left == 0:
            signal.raise_signal(signal.SIGINT)

from {module} import main
sys.meta_path.insert(0, Interrupting)
sys.argv[1:] = {words}
raise SystemExit(main())
"""


AS_IN_A_TERMINAL = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""A shell's background job, which a test may be, ignores Ctrl-C."""


def interrupted(module: str, number: int, *words: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """A command that gets Ctrl-C when it looks for its n-th module."""
    script = first + AT_AN_IMPORT.format(module=module, number=number, words=list(words))
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


@pytest.mark.parametrize("number", [1, 100, 400, 1000])
def test_ctrl_c_while_libraries_are_loaded(number: int) -> None:
    done = interrupted("covent.__main__", number, "doctor")
    assert (done.returncode, "Traceback" in done.stderr) == (130, False), done.stderr


def test_unprepared_it_would_be_a_traceback() -> None:
    """The negative control: the words are parsed before a command can say that it was interrupted."""
    done = interrupted("covent.cli.main", 1, "doctor", first=AS_IN_A_TERMINAL)
    assert done.returncode != 130 and "KeyboardInterrupt" in done.stderr
