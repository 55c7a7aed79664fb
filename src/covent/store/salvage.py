"""Reading a damaged run folder as far as it goes: what cannot be read is left out and named, file by file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from covent import strict_yaml
from covent.errors import StoreError
from covent.store.coverage import Gaps, is_own
from covent.store.reader import Run, read_header, run_of
from covent.store.schema import ROW_FILES, SCHEMA_VERSION, RunHeader

_MOST_LINES = 8
"""Line numbers that are named one by one."""


def salvaged_run(folder: Path | str) -> Run:
    """The run in `folder` as `read_run` gives it, and if it is damaged what can still be read of it.

    Each line that does not fit the schema is left out; a row file or status.json that cannot be read counts as missing.
    Without a run.json the settings are those of config.yaml. `Run.gaps` says all that was left out, with file and line.

    Args:
        folder: a folder with run.json in it, or with rows and what else covent writes.

    Raises:
        MissingPathError: it is no run folder.
        StoreError: another schema version, or not one row and no settings can be read.
    """
    folder = Path(folder)
    if (folder / "run.json").is_file() or not is_headless(folder):
        # A folder of another schema is whole, and for another covent.
        try:
            read_header(folder)
        except StoreError as error:
            if "schema version" in str(error) and "schema version None" not in str(error):
                raise
    damage: dict[str, list[tuple[int | None, str]]] = {}

    def leave_out(path: Path, line: int | None, error: StoreError) -> None:
        damage.setdefault(path.stem, []).append((line, _reason(path, line, error)))

    header, lost = _header(folder)
    run = run_of(folder, header, leave_out)
    told: Gaps = {"run": [lost]} if lost else {}
    if not lost and is_own(header.config) and not _config(folder / "config.yaml"):
        told["config"] = ["config.yaml cannot be read: the run cannot be repeated from it."]
    told |= {kind: [_left_out(folder, kind, faults)] for kind, faults in damage.items()}
    if lost and not header.config and not any(getattr(run, kind) for kind in ROW_FILES):
        raise StoreError(
            f"Nothing in {folder} can be read: {' '.join(text for texts in told.values() for text in texts)}"
        )
    kinds = list(dict.fromkeys([*told, *run.gaps]))
    both = {kind: [*told.get(kind, []), *run.gaps.get(kind, [])] for kind in kinds}
    return replace(run, gaps=both, is_header_lost=bool(lost))


def is_headless(folder: Path) -> bool:
    """Whether covent wrote the folder and its run.json is gone."""
    return (
        not (folder / "run.json").exists()
        and (folder / "steps.jsonl").is_file()
        and any((folder / name).is_file() for name in ("status.json", "config.yaml", "run.lock"))
    )


def _header(folder: Path) -> tuple[RunHeader, str]:
    """What run.json says; without it what config.yaml and the folder's name do, and the sentence about that."""
    try:
        if not is_headless(folder):
            return read_header(folder), ""
        reason = "run.json is missing"
    except StoreError as error:
        reason = f"run.json cannot be read ({_reason(folder / 'run.json', None, error)})"
    config = _config(folder / "config.yaml")
    known = "its settings are those of config.yaml" if config else "its settings are not known"
    name, seed = config.get("name"), config.get("seed")
    header = RunHeader(
        schema_version=SCHEMA_VERSION,
        name=name if isinstance(name, str) and name else folder.name,
        created="",
        config=config,
        seed=seed if isinstance(seed, int) else 0,
        threads=0,
        versions={},
        commit=None,
        hardware="",
        num_parameters=0,
        start_model=None,
    )
    return header, f"{reason}: {known}; versions, hardware and start model are not known."


def _config(path: Path) -> dict[str, Any]:
    try:
        found = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(key, str) for key in found) else {}


def _left_out(folder: Path, kind: str, faults: list[tuple[int | None, str]]) -> str:
    """One sentence about a file: which lines are left out, and what is wrong with the first."""
    name = next(f"{kind}{end}" for end in (".jsonl", ".json") if (folder / f"{kind}{end}").exists())
    lines = [str(line) for line, _ in faults if line is not None]
    if not lines:
        return f"{name} cannot be read and is left out ({faults[0][1]})."
    named = lines[:_MOST_LINES] + ([f"{len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else [])
    many = "lines" if len(lines) > 1 else "line"
    verb = "are" if len(lines) > 1 else "is"
    first = "the first: " if len(lines) > 1 else ""
    return f"{name}: {many} {', '.join(named)} cannot be read and {verb} left out ({first}{faults[0][1]})."


def _reason(path: Path, line: int | None, error: StoreError) -> str:
    """The first sentence of an error without the place, which is named before it."""
    where = str(path) if line is None else f"{path}:{line}"
    text = str(error).removeprefix(where).strip()
    for advice in (" The file was changed", " Restore the file", " Remove or rename", " Two runs may", "; they must"):
        text = text.partition(advice)[0]
    return text.removeprefix("is ").removeprefix("holds ").rstrip(". ")
