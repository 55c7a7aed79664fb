"""Writing a run folder: append-only JSON Lines, and a status that is replaced in one piece."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from filelock import BaseFileLock

from covent.errors import ConfigError, NonFiniteError, RunExistsError, StoreError, suggestion
from covent.store import durable
from covent.store.finite import first_non_finite
from covent.store.lock import LOCK_FILE, locked
from covent.store.rows import Mark, RowFile, prefix_fault
from covent.store.schema import ROW_FILES, SCHEMA_VERSION, Row, RunHeader, Status

_KEPT_WHOLE = ("resumes",)
"""Rows about the run folder rather than of the run: they are never cut back."""

_DEBRIS = {LOCK_FILE, "config.yaml", "config.yaml.tmp", "run.json.tmp"}
"""What a process can leave that was killed before run.json made its folder a run folder."""


class RunWriter:
    """The one writer of one run folder; it holds the folder's lock.

    Each row reaches the operating system before `append` returns, so a killed process loses at most the line it was
    writing; rows are synced to the disk with each checkpoint, so a power cut loses what came after the last one.

        with RunWriter.create(folder, header, config_yaml, num_steps=160) as writer:
            writer.append("steps", row)
            writer.status("finished", step=160, message="", seconds=31.5)
    """

    def __init__(self, folder: Path, num_steps: int, lock: BaseFileLock) -> None:
        """For `create` and `reopen`; `folder` must hold run.json already."""
        self.folder = folder
        self.num_steps = num_steps
        self._lock = lock
        self._files: dict[str, RowFile] = {}
        self._closed = False

    @classmethod
    def create(cls, folder: Path | str, header: RunHeader, config_yaml: str, num_steps: int) -> Self:
        """Make a run folder with config.yaml, run.json and a status `running`, and open it for rows.

        Args:
            folder: a folder that does not exist yet, or is empty.
            header: what the run is.
            config_yaml: the settings, as `covent train` reads them.
            num_steps: rollout steps asked for; repeated in every status.

        Raises:
            RunExistsError: the folder holds something, or the path is a file.
            RunLockedError: another process is about to write there.
            StoreError: the header carries another schema version than this covent writes.
            NonFiniteError: a setting in the header is NaN or infinite.
            DiskError: nothing can be written there.
        """
        folder = Path(folder)
        if header.schema_version != SCHEMA_VERSION:
            raise StoreError(
                f"The header of {folder} carries schema version {header.schema_version}; this covent writes version"
                f" {SCHEMA_VERSION}. Set schema_version={SCHEMA_VERSION}."
            )
        text = _json_text(header, folder / "run.json")
        with durable.disk_errors(f"Making the run folder {folder}", "then call again"):
            if folder.is_file():
                raise RunExistsError(f"The run folder {folder} is a file. Choose another folder, or remove it.")
            folder.mkdir(parents=True, exist_ok=True)
            durable.sync_folder(folder.parent)
            if not (folder / LOCK_FILE).exists():
                # Somebody else's folder: nothing is left there, not even a lock.
                _must_be_free(folder)
            # If a run is going on there, this says so and names its process.
            lock = locked(folder)
            try:
                _must_be_free(folder)
                durable.replace(folder / "config.yaml", config_yaml, synced=True)
                # Written last: it makes the folder a run folder.
                durable.replace(folder / "run.json", text, synced=True)
            except BaseException:
                lock.release()
                raise
        writer = cls(folder, num_steps, lock)
        writer.status("running", step=0)
        return writer

    @classmethod
    def reopen(cls, folder: Path, num_steps: int) -> Self:
        """Open a run folder to go on with it; its rows must be cut back before any is added.

        Raises:
            RunLockedError: another process writes there.
            DiskError: nothing can be written there.
        """
        with durable.disk_errors(f"Opening the run folder {folder}", "then call again"):
            return cls(folder, num_steps, locked(folder))

    def marks(self) -> dict[str, Mark]:
        """Where each row file ends now."""
        return {kind: file.mark() for kind, file in self._files.items() if kind not in _KEPT_WHOLE}

    def sync(self) -> None:
        """Bring all rows to the disk, so that a checkpoint that counts on them cannot outlive them."""
        with durable.disk_errors(f"Saving the rows of {self.folder}", self._then):
            for file in self._files.values():
                durable.sync(file.descriptor)
            durable.sync_folder(self.folder)

    def cut_back(self, marks: Mapping[str, Mark]) -> None:
        """Make the row files end at their marks again; a file without a mark had not begun.

        Raises: StoreError when a file does not reach its mark or differs before it.
        """
        for kind, mark in marks.items():
            if reason := prefix_fault(self.folder, kind, mark):
                raise StoreError(reason)
        with durable.disk_errors(f"Cutting back the rows of {self.folder}", self._then):
            for kind in ROW_FILES:
                path = self.folder / f"{kind}.jsonl"
                if kind in marks:
                    os.truncate(path, marks[kind].num_bytes)
                elif kind not in _KEPT_WHOLE:
                    path.unlink(missing_ok=True)
            for kind in marks:
                self._open(kind)

    @property
    def _then(self) -> str:
        return f"then: covent resume {self.folder}"

    def header(self, header: RunHeader) -> None:
        """Replace run.json in one piece, for what is known only after the folder was made."""
        path = self.folder / "run.json"
        text = _json_text(header, path)
        with durable.disk_errors(f"Writing {path}", self._then):
            durable.replace(path, text, synced=True)

    def config(self, config_yaml: str) -> None:
        """Replace config.yaml in one piece, for a run that goes on under other settings."""
        path = self.folder / "config.yaml"
        with durable.disk_errors(f"Writing {path}", self._then):
            durable.replace(path, config_yaml, synced=True)

    def append(self, kind: str, row: Row) -> None:
        """Add one row to `kind`.jsonl.

        Args:
            kind: a key of `covent.store.schema.ROW_FILES`, for example steps or updates.
            row: a row of that kind.

        Raises:
            ConfigError: no such kind, or a row of another kind.
            NonFiniteError: a number of the row is NaN or infinite; the message names the field. Nothing is written.
            StoreError: the writer is closed.
            DiskError: the row could not be written; the file is as it was.
        """
        path = self.folder / f"{kind}.jsonl"
        if self._closed:
            raise StoreError(f"The run folder {self.folder} is closed; no row can be added to {path.name}.")
        if kind not in ROW_FILES:
            raise ConfigError(f"There is no kind of row '{kind}'. {suggestion(kind, list(ROW_FILES))}")
        if not isinstance(row, ROW_FILES[kind]):
            raise ConfigError(f"{path.name} takes {ROW_FILES[kind].__name__}, not {type(row).__name__}.")
        text = _json_text(row, path)
        with durable.disk_errors(f"Writing {path}", self._then):
            self._open(kind).append((text + "\n").encode("utf-8"))

    def _open(self, kind: str) -> RowFile:
        if kind not in self._files:
            self._files[kind] = RowFile.opened(self.folder / f"{kind}.jsonl")
        return self._files[kind]

    def status(
        self,
        state: Literal["running", "finished", "interrupted", "failed"],
        step: int,
        message: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Replace status.json in one piece, so that a reader sees the old one or the new one, never half of one.

        Args:
            state: where the run stands.
            step: rollout steps completed.
            message: why it stands there, for a person.
            seconds: wall time of the whole run so far.
        """
        status = Status(state=state, step=step, num_steps=self.num_steps, message=message, seconds=seconds)
        path = self.folder / "status.json"
        with durable.disk_errors(f"Writing {path}", self._then):
            durable.replace(path, _json_text(status, path), synced=state != "running")

    def close(self) -> None:
        """Close all files and let go of the lock. Closing twice is allowed. The status stays as it is."""
        if not self._closed:
            self._closed = True
            for file in self._files.values():
                os.close(file.descriptor)
            self._files.clear()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _json_text(row: Row, path: Path) -> str:
    """The row as one line of JSON; pydantic would turn NaN into null without a word, so it is looked for first."""
    found = first_non_finite(row.model_dump())
    if found is not None:
        field, value = found
        raise NonFiniteError(
            f"The field '{field}' of a row for {path} is {value}. Only finite numbers are stored; where a quantity is"
            f" not defined, store None."
        )
    return row.model_dump_json()


def _must_be_free(folder: Path) -> None:
    """Raises: RunExistsError when the folder holds more than what a process leaves that was killed at its start."""
    if not {path.name for path in folder.iterdir()} <= _DEBRIS:
        go_on = f", go on with this one by `covent resume {folder}`" if (folder / "run.json").is_file() else ""
        raise RunExistsError(
            f"The run folder {folder} is not empty, and a run never writes over another. Choose another folder{go_on},"
            f" or remove this one."
        )
