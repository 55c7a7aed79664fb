"""Shell scripts, read here and run by bash: the same settings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from covent.errors import ConfigError
from covent.lint.shell import parsed, shell_settings

SCRIPTS = {
    "variables": 'n=32\nm="$n"\nshow a.b=$n a.c="${m}" a.d=\'$n\'',
    "arithmetic": "k=$((1024 * 2))\ngen=$((k * 3 + 1))\nshow a.b=$k a.c=$((k + gen)) a.d=$((-7 / 2)) a.e=$((7 % 4))",
    "defaults": 'nodes=${NOT_SET_ANYWHERE:-4}\nshow a.b=$nodes a.c=${nodes:-9} a.d="${empty_one:-x}"',
    "continuation": 'x=1\nshow \\\n  a.b=$x \\\n  a.c=2 \\\n  \'a.d=["one","two"]\'',
    "comments": "x=1 # the number, isn't it\n# show a.b=3\nshow a.d='#5' # a.c=4\nshow a.b=$x",
    "export": 'export x=0.2\nshow a.b="$x"',
    "last wins": "x=1\nshow a.b=$x\nx=2\nshow a.b=$x",
    "before a command": "x=5 show a.b=1",
    "several lines in quotes": "show 'a.b=one\ntwo' a.c=1",
    "here-documents": "cat <<'EOF' >/dev/null\nit isn't a.b=1\nEOF\nshow a.b=2",
    "no here-documents": "x=$((1 << 4))\ncat <<<x >/dev/null\nshow a.b=1",
    "plus": "show +a.b=1 ++a.c=2",
}


def by_bash(script: str) -> dict[str, object]:
    """The settings that a command of the script was really given."""
    prologue = "show() { printf '%s\\0' \"$@\"; }\n"
    done = subprocess.run(["bash", "-c", prologue + script], capture_output=True, text=True, check=True)
    words = [word.lstrip("+").partition("=") for word in done.stdout.split("\0") if word]
    return {name: parsed(value) for name, _, value in words}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("name", SCRIPTS)
def test_the_settings_are_those_that_bash_passes(name: str) -> None:
    script = SCRIPTS[name]
    read = shell_settings(script, name).values
    assert read == by_bash(script)
    last = script.rindex("=") + 1
    assert shell_settings(script[:last] + "9" + script[last:], name).values != read, "another script says the same"


def test_what_only_the_run_knows_stays_unknown() -> None:
    read = shell_settings("x=$(nproc)\nshow a.b=$HOME a.c=$((x * 2)) a.d=$x", "s").values
    assert read["a.b"] == "$HOME" and all("$" in str(read[name]) for name in ("a.c", "a.d"))


def test_options_are_settings_too() -> None:
    read = shell_settings("python t.py --learning-rate 1e-6 --use_vllm --num_generations=8", "s").values
    assert read == {"learning_rate": 1e-6, "use_vllm": True, "num_generations": 8}


def test_nothing_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "made"
    shell_settings(f"x=$(touch {trap})\ny=`touch {trap}`\nshow a.b=$((__import__('os').system('touch {trap}')))", "s")
    assert not trap.exists()


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_quote_that_is_not_closed_is_said_at_once(lines: int) -> None:
    with pytest.raises(ConfigError, match=r"run\.sh: a quote is not closed"):
        shell_settings("show a.b='1\n" + "a.c=2\n" * lines, "run.sh")


@pytest.mark.parametrize(
    ("script", "missing"),
    [
        ("set -u\nshow a.b=$gone", {"gone"}),
        ("set -xeuo pipefail\nshow a.b=${gone}", {"gone"}),
        ("show a.b=$gone", set()),
        ("set -u\nshow a.b=$GONE", set()),
        ("set -u\nshow a.b=${gone:-1}", set()),
        ("set -u\nfor gone in 1 2; do show a.b=$gone; done", set()),
    ],
)
def test_variables_that_nothing_assigns(script: str, missing: set[str]) -> None:
    assert shell_settings(script, "s").missing == missing
