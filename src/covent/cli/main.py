"""`covent`: the parser, and what happens to errors. Each command is one file beside this one.

Exit codes: 0 done; 1 the work failed (`CoventError.exit_code`); 2 the call was wrong: a setting, a path, an option;
3 no checkpoint of a run is whole; 4 the disk is full, read-only or broken; 130 interrupted by Ctrl-C (SIGINT), 143 by
SIGTERM, 129 by the end of the terminal (SIGHUP), each after the state of a run was saved. `lint` alone ends with 3
after a warning, 4 after an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import get_args

import tyro

from covent import __version__
from covent.cli.bench import Bench
from covent.cli.compare import Compare
from covent.cli.demo import Demo
from covent.cli.doctor import Doctor
from covent.cli.encoding import say_in_any_encoding
from covent.cli.eval import Eval
from covent.cli.explain import Explain
from covent.cli.fit import Fit
from covent.cli.folders import run_folders
from covent.cli.forecast import Forecast
from covent.cli.lint import Lint
from covent.cli.measure import Measure
from covent.cli.options import one_line, repeated_option, unknown_word
from covent.cli.output import Output
from covent.cli.report import Report
from covent.cli.resume import Resume
from covent.cli.theory import Theory
from covent.cli.track import Track
from covent.cli.train import Train
from covent.errors import CoventError, DiskError
from covent.stopping import Stopped, interrupts_raised

Command = (
    Demo
    | Train
    | Resume
    | Eval
    | Track
    | Fit
    | Forecast
    | Explain
    | Compare
    | Measure
    | Lint
    | Report
    | Theory
    | Bench
    | Doctor
)
"""Each command: its options as fields, and what it does as `run`; the class name is the command's name."""

_DESCRIPTION = f"""covent {__version__}: see, explain, forecast and control the entropy of a language model in
reinforcement learning (arXiv 2505.22617). Start with `covent demo`."""

_FLAGS = {"-h", "--help"} | {
    f"--{field.name}".replace("_", "-")
    for command in get_args(Command)
    for field in dataclasses.fields(command)
    if field.type == "bool"
}
"""Options that take no value."""

_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""Refusals of the operating system that are the disk's fault and not the call's."""

_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after `covent`; those of the process if None.
    """
    say_in_any_encoding(sys.stdout, sys.stderr)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words == ["--version"]:
            print(f"covent {__version__}", flush=True)
            return 0
        command = parse(words or ["--help"])
    except OSError as error:
        return _unwritable(error)
    return _run(command)


def parse(words: Sequence[str]) -> Command:
    """The command that the words after `covent` ask for.

    Raises:
        SystemExit: with code 2 after a message about what is wrong with them, or with code 0 after help.
    """
    commands = {each.__name__.lower(): each for each in get_args(Command)}
    wrong = unknown_word(words, commands) or repeated_option(words, commands)
    said = io.StringIO()
    if wrong is None:
        try:
            with contextlib.redirect_stderr(said):
                command: Command = tyro.cli(
                    Command,
                    prog="covent",
                    description=_DESCRIPTION,
                    args=positionals_first(words),
                    config=(tyro.conf.FlagCreatePairsOff,),
                )
            return command
        except SystemExit as end:
            if not end.code:
                raise
            wrong = one_line(said.getvalue())
    Output(as_json="--json" in words).complain(wrong)
    raise SystemExit(CoventError.exit_code)


def positionals_first(words: Sequence[str]) -> list[str]:
    """Options after the other words, since tyro reads `covent train CONFIG --out DIR steps=200` in that order only.

    Example:
        >>> positionals_first(["train", "clock.yaml", "--out", "runs/a", "steps=200", "--json"])
        ['train', 'clock.yaml', 'steps=200', '--out', 'runs/a', '--json']
    """
    positionals: list[str] = []
    options: list[str] = []
    takes_value = False
    for word in words:
        is_option = word.startswith("-")
        (options if is_option or takes_value else positionals).append(word)
        takes_value = is_option and word.replace("_", "-") not in _FLAGS and "=" not in word
    return positionals + options


def _run(command: Command) -> int:
    output = Output(as_json=command.json)
    try:
        with interrupts_raised(), output.reserved():
            outcome = command.run(output)
        exit_code, facts = outcome.exit_code, outcome.facts
    except CoventError as error:
        output.complain(str(error))
        exit_code, facts = error.exit_code, {"error": type(error).__name__, "message": str(error)}
    except OSError as error:
        message = _refused_by_the_system(error)
        output.complain(message)
        exit_code, facts = _exit_code(error), {"error": type(error).__name__, "message": message}
    except KeyboardInterrupt as interrupt:
        message = _interrupted(command)
        output.say(message)
        exit_code = interrupt.exit_code if isinstance(interrupt, Stopped) else _INTERRUPTED
        facts = {"error": type(interrupt).__name__, "message": message}
    try:
        output.result(type(command).__name__.lower(), exit_code, facts)
        sys.stdout.flush()
    except OSError as error:
        return _unwritable(error)
    return exit_code


def _unwritable(error: OSError) -> int:
    """Standard output cannot be written; neither can what stands in its buffer when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    Output(as_json=True).complain(f"standard output: {_refused_by_the_system(error)}")
    return _exit_code(error)


def _exit_code(error: OSError) -> int:
    return DiskError.exit_code if error.errno in _DISK else CoventError.exit_code


def _refused_by_the_system(error: OSError) -> str:
    """What the operating system would not do, and with which file."""
    where = " and ".join(f"'{name}'" for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or str(error) or type(error).__name__
    return f"{where}: {reason}. Check the path and its permissions." if where else f"{reason}."


def _interrupted(command: Command) -> str:
    if not isinstance(command, Demo | Train | Resume):
        return "interrupted"
    folders = run_folders(command.folder)
    if not folders:
        return "interrupted; no run had begun"
    names = " ".join(map(str, folders))
    go_on = "\n".join(f"go on: covent resume {folder}" for folder in folders)
    return f"interrupted; what was done is in {names} and can be read: covent report {names}\n{go_on}"
