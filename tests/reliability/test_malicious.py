"""Checkpoints and model folders made to do harm: nothing in them runs, and each is refused with an error of covent's.

A checkpoint's manifest fits its own hash here: whoever makes the files can make that too.
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
import torch

from covent.cli.main import main
from covent.errors import CoventError
from covent.store import checkpoint
from covent.tasks import ClockSettings, make_task
from covent.train.config import ModelSettings
from covent.train.config_file import parse_config
from covent.train.model import LanguageModel, load_model
from covent.train.resume import resume
from covent.train.run import train
from tests.support.figures import figure
from tests.support.interrupted import settings
from tests.support.local_model import model_folder

PROGRAM = "import pathlib\npathlib.Path({marker!r}).touch()\n"


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


def loaded(folder: Path) -> LanguageModel:
    task = make_task(ClockSettings(), 0)
    return load_model(ModelSettings(path=str(folder)), task, seed=0, dtype=torch.float32, device="cpu")


def only_pickled(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    pickled(folder / "pytorch_model.bin", marker)


def changed_config(folder: Path, marker: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for name in ("modeling_own", "configuration_own", "tokenization_own", "own_attention"):
        (folder / f"{name}.py").write_text(PROGRAM.format(marker=str(marker)))


def own_code(folder: Path, marker: Path) -> None:
    own = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    changed_config(folder, marker, model_type="own", auto_map=own)


def own_code_of_a_known_type(folder: Path, marker: Path) -> None:
    changed_config(folder, marker, auto_map={"AutoModelForCausalLM": "modeling_own.Own"})


def own_tokenizer(folder: Path, marker: Path) -> None:
    changed_config(folder, marker)
    path = folder / "tokenizer_config.json"
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **own}))


def internal_attention(folder: Path, marker: Path) -> None:
    changed_config(folder, marker, _attn_implementation_internal="someone/own_attention")


def attention_from_a_hub(folder: Path, marker: Path) -> None:
    changed_config(folder, marker, attn_implementation="someone/own_attention:Own")


def bad_weights(change: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    return lambda folder, marker: change(folder / "model.safetensors", marker)


def index_out(folder: Path, marker: Path) -> None:
    """A list of shards that names a file elsewhere."""
    shutil.move(folder / "model.safetensors", folder.parent / "outside.safetensors")
    giant_header(folder / "unused.safetensors", marker)
    weights = {"model.norm.weight": "../outside.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


IN_MODEL: dict[str, Callable[[Path, Path], None]] = {
    "pickled weights only": only_pickled,
    "pickle under the name of safetensors": bad_weights(pickled),
    "a giant header": bad_weights(giant_header),
    "code of its own": own_code,
    "an internal attention field": internal_attention,
    "attention from a hub": attention_from_a_hub,
    "shards elsewhere": index_out,
}


HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    "code of its own for a known type": own_code_of_a_known_type,
    "a tokenizer of its own": own_tokenizer,
}
"""Folders that are common and lawful: covent uses the class of transformers, and tokenizer.json."""


@pytest.mark.parametrize("kind", HARMLESS)
def test_code_that_is_not_needed_is_not_run(kind: str, tmp_path: Path) -> None:
    folder, marker = model_folder(tmp_path / "model"), tmp_path / "marker"
    HARMLESS[kind](folder, marker)
    loaded(folder)
    assert not marker.exists()
    figure(32, f"{{count}} of {len(HARMLESS)} model folders with code that is not needed: loaded, it does not run")


@pytest.mark.parametrize("kind", IN_MODEL)
def test_a_malicious_model_folder_runs_nothing_and_is_refused(kind: str, tmp_path: Path) -> None:
    folder, marker = model_folder(tmp_path / "model"), tmp_path / "marker"
    IN_MODEL[kind](folder, marker)
    with pytest.raises(CoventError):
        loaded(folder)
    assert not marker.exists()
    figure(32, f"{{count}} of {len(IN_MODEL)} malicious model folders: nothing runs, refused")


def test_the_commands_exit_code_is_that_of_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model_folder(tmp_path / "model")
    only_pickled(folder, tmp_path / "marker")
    (tmp_path / "config.yaml").write_text(f"model:\n  path: {folder}\n")
    assert main(["train", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")]) == 2
    assert "pickled ones are refused" in capsys.readouterr().err


def test_the_traps_are_real(tmp_path: Path) -> None:
    """The negative control: what covent does not call would run them; and the folder without a trap is loaded."""
    marker = tmp_path / "marker"
    pickled(tmp_path / "bomb", marker)
    pickle.loads((tmp_path / "bomb").read_bytes())  # noqa: S301 - the trap itself
    assert marker.exists()
    marker.unlink()
    exec(PROGRAM.format(marker=str(marker)))  # noqa: S102 - the trap itself
    assert marker.exists()
    folder = model_folder(tmp_path / "model")
    loaded(folder)
