"""Checkpoints made to do harm: nothing in them runs, and each is refused with an error of covent's.

A manifest fits its own hash here: whoever makes the files can make that too.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covent.errors import CoventError
from covent.store import checkpoint
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from tests.support.figures import figure
from tests.support.interrupted import settings


class Bomb:
    """A pickle of it touches the marker when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def with_header(header: bytes, claimed: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if claimed is None else claimed) + header


def pickled(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(marker)))


def giant_header(path: Path, marker: Path) -> None:
    path.write_bytes(with_header(b"{", 1 << 62))


def tensors_beyond_the_file(path: Path, marker: Path) -> None:
    huge = {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}
    path.write_bytes(with_header(json.dumps({"model.embed_tokens.weight": huge}).encode()))


def deep_nesting(path: Path, marker: Path) -> None:
    path.write_text("[" * 200_000)


def no_object(path: Path, marker: Path) -> None:
    path.write_text("[]")


def link_out(path: Path, marker: Path) -> None:
    outside = path.parents[2] / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


IN_CHECKPOINT: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "pickled weights": ("model-1.safetensors", pickled),
    "weights with a giant header": ("model-1.safetensors", giant_header),
    "weights beyond the end of the file": ("optimizer-1.safetensors", tensors_beyond_the_file),
    "state nested 200,000 deep": ("state.json", deep_nesting),
    "state that is no object": ("state.json", no_object),
    "a link out of the folder": ("model-1.safetensors", link_out),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(settings("mini-batches", steps=1, checkpoint={"keep": 1}), source="test"), folder)
    return folder


def with_manifest(folder: Path) -> None:
    """Make the manifest fit the files."""
    listed = json.loads((folder / "manifest.json").read_text())["files"]
    for name in listed:
        data = (folder / name).read_bytes()
        listed[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_bytes(checkpoint.manifest_text("step-1", listed))


@pytest.mark.parametrize("kind", [*IN_CHECKPOINT, "path out of the folder"])
def test_a_malicious_checkpoint_runs_nothing_and_is_refused(kind: str, whole: Path, tmp_path: Path) -> None:
    run, marker = shutil.copytree(whole, tmp_path / "run"), tmp_path / "marker"
    shutil.rmtree(run / "model")
    (run / "status.json").unlink()
    (folder,) = checkpoint.numbered(run / checkpoint.FOLDER)
    if kind in IN_CHECKPOINT:
        name, change = IN_CHECKPOINT[kind]
        change(folder / name, marker)
        with_manifest(folder)
    else:
        secret = (run / "config.yaml").read_bytes()
        listed = {"../../config.yaml": {"bytes": len(secret), "sha256": "0" * 64}}
        (folder / "manifest.json").write_bytes(checkpoint.manifest_text("step-1", listed))
    rows = (run / "steps.jsonl").read_bytes()
    with pytest.raises(CoventError):
        resume(run)
    assert not marker.exists()
    assert (run / "steps.jsonl").read_bytes() == rows
    figure(32, f"{{count}} of {len(IN_CHECKPOINT) + 1} malicious checkpoints: nothing runs, refused, no row is lost")


def test_the_trap_is_real(tmp_path: Path) -> None:
    """The negative control: what covent does not call would run it."""
    marker = tmp_path / "marker"
    pickled(tmp_path / "bomb", marker)
    pickle.loads((tmp_path / "bomb").read_bytes())  # noqa: S301 - the trap itself
    assert marker.exists()
