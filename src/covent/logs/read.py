"""Any log to runs: the format is told by what is in the file, never by its name alone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from covent.errors import MissingPathError
from covent.logs import database, parquet, wandb_file
from covent.logs.console import console_runs, read_console
from covent.logs.json_rows import read_json, read_json_lines
from covent.logs.rows import LogError, LoggedRun
from covent.logs.table import read_csv
from covent.logs.tensorboard_events import EVENT_FILE, read_events

_HEAD_BYTES = 4096
_TABLE_SUFFIXES = {".csv", ".tsv", ".tab"}
_LOG_SUFFIXES = _TABLE_SUFFIXES | {".jsonl", ".ndjson", ".log", ".parquet", ".db", ".sqlite", ".wandb"}
_LISTED = 8
_PACKED = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "binary: a zip archive, or a pickle of torch, never opened, since opening one runs its code",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ\x00": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
"""First bytes → what the file is, where its content is a log that covent could read otherwise."""
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def read_logs(
    path: Path | str, *, step: str | None = None, by: str | None = None, run: str | None = None
) -> list[LoggedRun]:
    """Every run in a log file, or in a folder of one.

    Args:
        path: a file of any known format; or a folder with trainer_state.json, with checkpoints of transformers or TRL
            (the newest counts), or with TensorBoard event files. A run folder of covent is read by `covent.store`.
        step: the column that counts steps, where the known names do not apply.
        by: a column that tells several runs of one table apart.
        run: the name of the run that is wanted, where a log holds several.

    Returns:
        One entry a run, in the order of the log.

    Raises:
        MissingPathError: nothing is there, or nothing that looks like a log.
        MissingExtraError: the format needs a library that is not installed; the message names the extra.
        LogError: the log is damaged or empty; the message names file and line.
    """
    path = Path(path)
    if not path.exists():
        raise MissingPathError(f"{path} does not exist. Give a log file, or a run folder.")
    if not path.is_dir() and not path.is_file():
        raise LogError(f"{path} is a pipe or a device, and a log is read more than once: save it to a file first.")
    runs = _folder(path, step) if path.is_dir() else _file(path, step, by)
    if run is None:
        return runs
    wanted = [found for found in runs if found.name == run]
    if not wanted:
        raise LogError(f"{path} has no run '{run}', which --run asks for. It has {', '.join(r.name for r in runs)}.")
    return wanted


def _folder(path: Path, step: str | None) -> list[LoggedRun]:
    if (path / "trainer_state.json").is_file():
        return [_beside(run, path, "trainer_state.json") for run in read_json(path / "trainer_state.json", step=step)]
    states = {
        int(match[1]): state
        for state in path.glob("checkpoint-*/trainer_state.json")
        if (match := _CHECKPOINT.fullmatch(state.parent.name))
    }
    if states:
        newest = states[max(states)]
        (found,) = read_json(newest, step=step)
        note = f"The newest of {len(states)} checkpoints was read: {newest.parent.name}; later steps are not in it."
        return [LoggedRun(found.source, path.name, found.format, found.rows, [*found.notes, note])]
    events: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob(EVENT_FILE)):
        events.setdefault(file.parent, []).append(file)
    if events:
        return [read_events(files, folder, step=step) for folder, files in events.items()]
    runs = sorted(str(header.parent) for header in path.glob("*/run.json"))
    if runs:
        raise MissingPathError(f"{path} is a folder of runs; give one or more of these: {' '.join(runs)}")
    inside = sorted(child.name for child in path.iterdir())[:8]
    raise MissingPathError(
        f"{path} is a folder without a log: run.json (covent), trainer_state.json, checkpoint-*/ (TRL) or TensorBoard"
        f" event files are known. It holds {', '.join(inside) or 'nothing'}. Name the log file itself."
    )


def _beside(run: LoggedRun, folder: Path, taken: str) -> LoggedRun:
    """The run with a note of the logs that lie beside the one that was read."""
    others = sorted(child.name for child in folder.iterdir() if child.suffix in _LOG_SUFFIXES)
    if not others:
        return run
    more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
    note = f"Of {folder} {taken} was read; not read, name it if it is meant: {', '.join(others[:_LISTED])}{more}."
    return replace(run, notes=[*run.notes, note])


def _file(path: Path, step: str | None, by: str | None) -> list[LoggedRun]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.strip():
        raise LogError(f"{path} is empty. Give the log of a run that has logged something.")
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        raise LogError(f"{path} is {packed}. Unpack it, or save it as UTF-8, and give the file that comes out.")
    if head.startswith(database.MAGIC):
        return database.read_database(path, step=step)
    if head.startswith(wandb_file.MAGIC) or path.suffix == ".wandb":
        return wandb_file.read_wandb(path, step=step)
    if head.startswith(parquet.MAGIC):
        return parquet.read_parquet(path, step=step, by=by)
    if "tfevents" in path.name:
        return [read_events([path], path, step=step)]
    if b"\x00" in head:
        raise LogError(
            f"{path} is binary and of no known format: sqlite, .wandb, Parquet and TensorBoard events are. Files of"
            " pickled Python objects (.pt, .pkl, .bin) are never opened, since opening one runs its code."
        )
    return _text(path, head, step, by)


def _text(path: Path, head: bytes, step: str | None, by: str | None) -> list[LoggedRun]:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"["):
        return read_json(path, step=step, by=by)
    if start.startswith(b"{'"):
        return read_console(path, step=step)
    if start.startswith(b"{"):
        # A document that is spread over lines, or lines of one object each.
        first = start.split(b"\n", 1)[0].rstrip()
        one_line = first.endswith(b"}") or path.suffix in (".jsonl", ".ndjson")
        is_state = b'"log_history"' in first or not one_line
        return read_json(path, step=step) if is_state else read_json_lines(path, step=step, by=by)
    if path.suffix in _TABLE_SUFFIXES:
        return read_csv(path, step=step, by=by)
    # Consoles begin with whatever was printed, which may have as many commas a line as a table.
    found = console_runs(path, step=step)
    if found:
        return found
    return read_csv(path, step=step, by=by) if _looks_like_a_table(start) else read_console(path, step=step)


def _looks_like_a_table(start: bytes) -> bool:
    lines = [line for line in start.splitlines(keepends=True) if line.strip() and not line.startswith(b"#")]
    whole = [line for line in lines if line.endswith((b"\n", b"\r"))][:3]
    counts = [[line.count(delimiter) for line in whole] for delimiter in (b",", b"\t", b";")]
    return len(whole) > 1 and any(min(count) > 0 and max(count) == min(count) for count in counts)
