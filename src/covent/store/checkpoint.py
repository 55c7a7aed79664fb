"""Checkpoints: folders that are whole or do not exist. Nothing in them can run code; no torch needed to check them.

    RUN/checkpoints/00004-step-30/
      *.safetensors    tensors
      *.json           everything else
      manifest.json    size and SHA-256 of each file, and of its own text; written last

A checkpoint is written under a temporary name, brought to the disk, read back, and renamed; only then are older ones
deleted. A folder whose manifest is missing or does not fit is no checkpoint. Numbers rise over the whole life of a run,
so the newest checkpoint is the one that was written last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from covent.errors import CheckpointError
from covent.store import durable

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
_VERSION = 1
_NAME = re.compile(r"(\d{5,})-[a-z0-9-]+")
_TEMPORARY = re.compile(r"\d{5,}-[a-z0-9-]+\.tmp-[0-9a-f]+")
_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files fit its manifest."""

    path: Path
    files: Mapping[str, Mapping[str, Any]]
    """Size and SHA-256 of each file."""

    def read(self, name: str) -> bytes:
        """The content of a file, checked again as it is read. Raises: CheckpointError when it has changed."""
        data = (self.path / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != self.files[name]["sha256"]:
            raise CheckpointError(f"{self.path / name} has changed since it was checked. Resume again.")
        return data

    def json(self, name: str) -> Any:
        """The content of a JSON file."""
        return json.loads(self.read(name))


def save(parent: Path, label: str, files: Iterable[tuple[str, bytes]], *, keep: int) -> Path:
    """Write a checkpoint, read it back, give it its name, and delete all but the newest `keep`.

    Args:
        parent: the folder of checkpoints; made if it is missing.
        label: lower-case words for people, for example `step-30`.
        files: names and contents; a generator need hold only one content at a time.
        keep: at least 1.

    Returns:
        The folder of the new checkpoint.

    Raises:
        OSError: at any time; the older checkpoints are as they were.
        CheckpointError: what was read back differs from what was written; the disk is broken.
    """
    if not parent.is_dir():
        os.mkdir(parent)
        durable.sync_folder(parent.parent)
    final = parent / f"{_next_number(parent):05d}-{label}"
    temporary = final.with_name(f"{final.name}.tmp-{secrets.token_hex(4)}")
    os.mkdir(temporary)
    listed: dict[str, dict[str, Any]] = {}
    for name, data in files:
        durable.write(temporary / name, data)
        listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    durable.write(temporary / MANIFEST, manifest_text(label, listed))
    durable.sync_folder(temporary)
    opened(temporary)
    os.rename(temporary, final)
    durable.sync_folder(parent)
    for old in numbered(parent)[keep:]:
        _delete(old)
    return final


def numbered(parent: Path) -> list[Path]:
    """Folders with the name of a checkpoint, newest first, whole or not."""
    if not parent.is_dir():
        return []
    found = [path for path in parent.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_number(path), path.name), reverse=True)


def opened(path: Path) -> Checkpoint:
    """A checkpoint after all its files were compared with its manifest.

    Raises: CheckpointError naming the first file that does not fit, and how.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            raise CheckpointError(f"{path.name} is not a folder")
        files = _listed_files(path)
        for name, listed in files.items():
            _compare(path, name, listed)
    except OSError as error:
        raise CheckpointError(f"{Path(error.filename or path).name} cannot be read: {error.strerror}") from error
    return Checkpoint(path, files)


def set_aside(path: Path) -> Path:
    """Rename what looks like a checkpoint so that it is none; nothing is deleted. Returns: its new path."""
    bad = path.with_name(f"{path.name}.bad")
    while bad.exists():
        bad = bad.with_name(f"{path.name}-{secrets.token_hex(2)}.bad")
    os.rename(path, bad)
    durable.sync_folder(path.parent)
    return bad


def clean(parent: Path) -> None:
    """Remove what killed processes left half written or half deleted. Only for the one who holds the run's lock."""
    if parent.is_dir():
        for path in sorted(parent.iterdir()):
            if _TEMPORARY.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                _remove(path)


def _listed_files(path: Path) -> dict[str, dict[str, Any]]:
    manifest = path / MANIFEST
    if not manifest.is_file() or manifest.is_symlink():
        raise CheckpointError(f"{MANIFEST} is missing: it was not written to its end")
    data = manifest.read_bytes()
    try:
        found = json.loads(data)
        label, files = found["label"], found["files"]
        as_written = data == manifest_text(label, files) and found["version"] == _VERSION
    except (ValueError, TypeError, KeyError, RecursionError):
        as_written = False
    if not as_written:
        raise CheckpointError(f"{MANIFEST} is damaged: its text does not fit its own SHA-256")
    return dict(files)


def _compare(folder: Path, name: str, listed: Mapping[str, Any]) -> None:
    """Raises: CheckpointError when a file is not what the manifest says."""
    path = folder / name
    if Path(name).name != name:
        raise CheckpointError(f"{MANIFEST} lists '{name}', which is not the name of a file")
    try:
        found = path.lstat()
    except FileNotFoundError:
        raise CheckpointError(f"{path.name} is missing") from None
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{path.name} is not a plain file")
    if found.st_size != listed["bytes"]:
        raise CheckpointError(f"{path.name} has {found.st_size} bytes instead of {listed['bytes']}")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != listed["sha256"]:
        raise CheckpointError(f"{path.name} has another SHA-256 than the manifest says")


def manifest_text(label: str, files: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The one text that a manifest of these files can have."""
    body = {"version": _VERSION, "label": label, "files": files}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**body, "sha256": digest}, sort_keys=True, indent=1) + "\n").encode()


def _next_number(parent: Path) -> int:
    """One more than any folder has had, the bad and the half-written ones included."""
    numbers = [int(found[0]) for path in parent.iterdir() if (found := re.match(r"\d{5,}(?=-)", path.name))]
    return max(numbers, default=0) + 1


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _delete(path: Path) -> None:
    """Under a temporary name first: a checkpoint that is deleted halfway is no checkpoint."""
    temporary = path.with_name(f"{path.name}.tmp-{secrets.token_hex(4)}")
    os.rename(path, temporary)
    durable.sync_folder(path.parent)
    _remove(temporary)


def _remove(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        else:
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(folder)
