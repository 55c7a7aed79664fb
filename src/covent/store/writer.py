"""Writing a run folder: append-only JSON Lines, and a status that is replaced in one piece."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TextIO

from covent.errors import ConfigError, NonFiniteError, RunExistsError, StoreError, suggestion
from covent.store.finite import first_non_finite
from covent.store.schema import ROW_FILES, SCHEMA_VERSION, Row, RunHeader, Status


class RunWriter:
    """The one writer of one run folder.

    Each row reaches the operating system before `append` returns, so a killed process loses at most the line it was
    writing; rows are not synced to the disk one by one, so a power cut may lose more.

        with RunWriter.create(folder, header, config_yaml, num_steps=160) as writer:
            writer.append("steps", row)
            writer.status("finished", step=160, message="", seconds=31.5)
    """

    def __init__(self, folder: Path, num_steps: int) -> None:
        """For `create`, which also lays the folder out; `folder` must hold run.json already."""
        self.folder = folder
        self.num_steps = num_steps
        self._files: dict[str, TextIO] = {}
        self._closed = False

    @classmethod
    def create(cls, folder: Path | str, header: RunHeader, config_yaml: str, num_steps: int) -> Self:
        """Make a run folder with run.json, config.yaml and a status `running`, and open it for rows.

        Args:
            folder: a folder that does not exist yet, or is empty.
            header: what the run is.
            config_yaml: the settings, as `covent train` reads them.
            num_steps: rollout steps asked for; repeated in every status.

        Raises:
            RunExistsError: the folder holds something, or the path is a file.
            StoreError: the header carries another schema version than this covent writes.
            NonFiniteError: a setting in the header is NaN or infinite.
        """
        folder = Path(folder)
        if header.schema_version != SCHEMA_VERSION:
            raise StoreError(
                f"The header of {folder} carries schema version {header.schema_version}; this covent writes version"
                f" {SCHEMA_VERSION}. Set schema_version={SCHEMA_VERSION}."
            )
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise RunExistsError(
                f"The run folder {folder} {what}, and a run never writes over another. Choose another folder, or"
                f" remove this one."
            )
        text = _json_text(header, folder / "run.json")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "run.json", text)
        _replace(folder / "config.yaml", config_yaml)
        writer = cls(folder, num_steps)
        writer.status("running", step=0)
        return writer

    def header(self, header: RunHeader) -> None:
        """Replace run.json in one piece, for what is known only after the folder was made."""
        path = self.folder / "run.json"
        _replace(path, _json_text(header, path))

    def append(self, kind: str, row: Row) -> None:
        """Add one row to `kind`.jsonl.

        Args:
            kind: a key of `covent.store.schema.ROW_FILES`: steps, updates, evaluations, verdicts, samples or
                attributions.
            row: a row of that kind.

        Raises:
            ConfigError: no such kind, or a row of another kind.
            NonFiniteError: a number of the row is NaN or infinite; the message names the field. Nothing is written.
            StoreError: the writer is closed.
        """
        path = self.folder / f"{kind}.jsonl"
        if self._closed:
            raise StoreError(f"The run folder {self.folder} is closed; no row can be added to {path.name}.")
        if kind not in ROW_FILES:
            raise ConfigError(f"There is no kind of row '{kind}'. {suggestion(kind, list(ROW_FILES))}")
        if not isinstance(row, ROW_FILES[kind]):
            raise ConfigError(f"{path.name} takes {ROW_FILES[kind].__name__}, not {type(row).__name__}.")
        text = _json_text(row, path)
        if kind not in self._files:
            self._files[kind] = path.open("a", encoding="utf-8", newline="\n")
        self._files[kind].write(text + "\n")
        self._files[kind].flush()

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
        _replace(path, _json_text(status, path))

    def close(self) -> None:
        """Close all files. Closing twice is allowed. The status stays as it is."""
        self._closed = True
        for file in self._files.values():
            file.close()
        self._files.clear()

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


def _replace(path: Path, text: str) -> None:
    """Write a file beside `path` and move it there: readers never see half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text + ("" if text.endswith("\n") else "\n"), encoding="utf-8", newline="\n")
    os.replace(temporary, path)
