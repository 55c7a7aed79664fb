"""Logs as printed: verl's console lines, the dictionaries of transformers and TRL, ROLL's tagged JSON.

Nothing of a line is run as code: dictionaries are parsed as literals.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from covent.logs.json_rows import run_of_rows, runs_of_objects
from covent.logs.rows import LogError, LoggedRun, LogRow, numbers, parsed

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_VERL = re.compile(r"step:(\d+) - (\S+:.*)$")
# Two workers, or a buffer without its newline, can leave several steps on one line; global_step:3 begins none.
_VERL_STEPS = re.compile(r"(?<![A-Za-z_/])(?=step:\d+ - \S+:)")
_NUMPY = re.compile(r"np\.\w+\(([^()]*)\)")
_DICTIONARY = re.compile(r"\{'[^{}]*\}")
_BARE = re.compile(r"(?<=[:\s])(?:-?inf|nan)(?=[,}])")
_TAGGED = re.compile(r"metrics_tag: (\{.*\})\s*$")

_FORMS = (
    "verl (`step:3 - actor/entropy:0.4 - …`), transformers and TRL (`{'loss': …, 'entropy': …}`), ROLL"
    " (`metrics_tag: {…}`)"
)
_COUNTED = (
    "The console prints no steps: rows of training are counted 1, 2, 3, …; a step of the log may be several of"
    " training."
)


def read_console(path: Path, *, step: str | None = None) -> list[LoggedRun]:
    """The run that a console log tells of; lines of other kinds are left out.

    A last line without newline may have lost digits when the run died: it is dropped and noted.

    Raises:
        LogError: no line of a known form.
    """
    runs = console_runs(path, step=step)
    if runs:
        return runs
    raise LogError(
        f"{path} is text without any line of metrics that covent knows: {_FORMS}. Give the tracker's file instead:"
        " JSON Lines, CSV, trainer_state.json, TensorBoard events."
    )


def console_runs(path: Path, *, step: str | None = None) -> list[LoggedRun]:
    """As `read_console`, but none where no line is of a known form."""
    lines, notes = _lines(path)
    for reader in (_verl, _tagged, _dictionaries):
        run = reader(path, lines, step, notes)
        if run is not None:
            return [run]
    return []


def _lines(path: Path) -> tuple[list[tuple[int, str]], list[str]]:
    text = path.read_bytes().decode("utf-8", errors="replace")
    whole = text.split("\n")
    notes = []
    if whole.pop():
        notes.append(f"{path.name}:{len(whole) + 1} was cut off while it was written; this last line was dropped.")
    # A progress bar returns the carriage, so one line of the file can hold several of the screen.
    parts = ((number, part) for number, line in enumerate(whole, start=1) for part in line.split("\r"))
    return [(number, _ANSI.sub("", part)) for number, part in parts if part], notes


Reader = Callable[[Path, list[tuple[int, str]], str | None, list[str]], LoggedRun | None]


def _verl(path: Path, lines: list[tuple[int, str]], step: str | None, notes: list[str]) -> LoggedRun | None:
    rows: list[tuple[int, dict[str, float | None]]] = []
    parts = ((number, part) for number, line in lines for part in _VERL_STEPS.split(line))
    for number, part in parts:
        match = _VERL.match(part)
        if match is None:
            continue
        pairs = (item.rpartition(":") for item in match[2].split(" - "))
        values: dict[str, object] = {"step": float(match[1])}
        rows.append((number, numbers(values | {name.strip(): _value(text) for name, _, text in pairs if name})))
    return run_of_rows(path, path.stem, "verl console", rows, step or "step", notes) if rows else None


def _value(text: str) -> object:
    """A printed number: `0.31`, `1e-06`, `nan`, or numpy's `np.float64(0.31)`; other text stays text."""
    text = text.strip()
    match = _NUMPY.match(text)
    try:
        return float(match[1] if match else text)
    except ValueError:
        return text


def _tagged(path: Path, lines: list[tuple[int, str]], step: str | None, notes: list[str]) -> LoggedRun | None:
    objects: list[tuple[int, Mapping[str, object]]] = []
    for number, line in lines:
        match = _TAGGED.search(line)
        if match is None:
            continue
        try:
            row = parsed(match[1])
        except ValueError as error:
            raise LogError(f"{path}:{number}: what follows `metrics_tag:` is not JSON: {error}.") from error
        if isinstance(row, Mapping):
            objects.append((number, row))
    return runs_of_objects(path, "ROLL console", objects, step=step, notes=notes)[0] if objects else None


def _dictionaries(path: Path, lines: list[tuple[int, str]], step: str | None, notes: list[str]) -> LoggedRun | None:
    """transformers prints no step: training rows are counted, and an evaluation belongs to the last of them."""
    rows: list[LogRow] = []
    done = 0
    for number, line in lines:
        for text in _DICTIONARY.findall(line):
            values = _literal(text)
            if values is None or not {"loss", "eval_loss", "entropy", "epoch"} & set(values):
                continue
            metrics = numbers(
                {name: _value(value) if isinstance(value, str) else value for name, value in values.items()}
            )
            if "train_runtime" in metrics:
                continue
            done += not any(name.startswith("eval_") for name in metrics)
            rows.append(LogRow(number, done, metrics))
    if not rows:
        return None
    return LoggedRun(path, path.stem, "TRL console", rows, [*notes, _COUNTED])


def _literal(text: str) -> dict[str, object] | None:
    try:
        found = ast.literal_eval(_BARE.sub("None", _NUMPY.sub(r"\1", text)))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return found if isinstance(found, dict) and all(isinstance(name, str) for name in found) else None
