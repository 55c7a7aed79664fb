"""Folders of other people: damaged, or made to run something. Nothing runs, and each is refused with its reason."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from covent.cli.main import main
from covent.errors import MissingPathError
from covent.train.config import ModelSettings
from covent.train.model import load_model
from tests.support.figures import figure
from tests.support.local_model import model_folder
from tests.support.small_model import TASK

INDEX = "model.safetensors.index.json"


class Runs:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def program(marker: Path) -> str:
    return f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: ...\n"


def code(folder: Path, marker: Path) -> None:
    for name in ("modeling_own", "configuration_own", "tokenization_own", "custom_generate", "__init__"):
        (folder / f"{name}.py").write_text(program(marker))


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


def pickled(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs(marker)))


def disguised(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Runs(marker)))


def own_code(folder: Path, marker: Path) -> None:
    code(folder, marker)
    auto = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    edit(folder, "config.json", model_type="own", auto_map=auto)


def kernel(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, marker: edit(folder, "config.json", **{name: "someone/kernel"})


def giant_header(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def tensors_beyond_the_file(folder: Path, marker: Path) -> None:
    huge = {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}
    header = json.dumps({"model.embed_tokens.weight": huge}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)


def truncated(folder: Path, marker: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def index(*names: Any) -> Callable[[Path, Path], None]:
    def change(folder: Path, marker: Path) -> None:
        shutil.copy(folder / "model.safetensors", folder.parent / "outside.safetensors")
        edit(folder, INDEX, weight_map={f"w{number}": name for number, name in enumerate(names)}, metadata={})

    return change


def adapter(folder: Path, marker: Path) -> None:
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "someone/model", "auto_mapping": {"parent_library": "modeling_own"}})
    )


def quantised(folder: Path, marker: Path) -> None:
    edit(folder, "config.json", quantization_config={"quant_method": "someone"})


def not_an_object(folder: Path, marker: Path) -> None:
    (folder / "config.json").write_text("[]")


def deep(folder: Path, marker: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


def foreign_tokenizer(folder: Path, marker: Path) -> None:
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    found["added_tokens"] += [
        {**found["added_tokens"][0], "id": 1000 + number, "content": f"<{number}>"} for number in range(9)
    ]
    path.write_text(json.dumps(found))


def no_end(folder: Path, marker: Path) -> None:
    edit(folder, "tokenizer_config.json", eos_token=None)


HOSTILE: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "pickled weights": (pickled, "pickled ones are refused"),
    "a pickle named safetensors": (disguised, "cannot be loaded"),
    "code of its own": (own_code, "never run"),
    "attention from the network": (kernel("attn_implementation"), "attn_implementation"),
    "attention, by the internal name": (kernel("_attn_implementation_internal"), "_attn_implementation_internal"),
    "attention, by the old name": (kernel("_attn_implementation"), "_attn_implementation"),
    "a giant header": (giant_header, "cannot be loaded"),
    "weights beyond the end of the file": (tensors_beyond_the_file, "cannot be loaded"),
    "truncated weights": (truncated, "cannot be loaded"),
    "an index that leaves the folder": (index("../outside.safetensors"), "no safetensors file of this folder"),
    "an index of an absolute path": (index("/etc/passwd"), "no safetensors file of this folder"),
    "an index of a pickle": (index("pytorch_model.bin"), "no safetensors file of this folder"),
    "an index of numbers": (index(3), "no safetensors file of this folder"),
    "an adapter": (adapter, "Merge the two"),
    "quantised weights": (quantised, "quantised"),
    "a config that is no object": (not_an_object, "no JSON object"),
    "a config that is too deep": (deep, "cannot be read as JSON"),
    "a tokenizer of another model": (foreign_tokenizer, "do not belong together"),
    "no end token": (no_end, "no end token"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def load(folder: Path) -> None:
    load_model(ModelSettings(path=str(folder)), TASK, seed=0, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_runs_and_the_reason_is_said(kind: str, whole: Path, tmp_path: Path) -> None:
    folder, marker = shutil.copytree(whole, tmp_path / "model"), tmp_path / "marker"
    change, reason = HOSTILE[kind]
    change(folder, marker)
    with pytest.raises(MissingPathError, match=r"model\.path|config\.json") as error:
        load(folder)
    assert reason in str(error.value)
    assert not marker.exists()
    figure(32, f"{{count}} of {len(HOSTILE)} hostile or damaged model folders: nothing runs, refused with the reason")


def test_the_traps_are_real(tmp_path: Path) -> None:
    """The negative control: what covent does not call would run them."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps(Runs(marker)))  # noqa: S301 - the trap itself
    assert marker.exists()
    marker.unlink()
    exec(program(marker))  # noqa: S102 - the trap itself
    assert marker.exists()


def test_a_download_of_links_and_with_code_beside_it_is_loaded(whole: Path, tmp_path: Path) -> None:
    """A cache of downloads links to its files; many models of known types still carry the code they once needed."""
    folder, marker = tmp_path / "model", tmp_path / "marker"
    folder.mkdir()
    for path in whole.iterdir():
        (folder / path.name).symlink_to(path)
    code(folder, marker)
    (folder / "config.json").unlink()
    shutil.copy(whole / "config.json", folder / "config.json")
    edit(folder, "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    edit(folder, "generation_config.json", custom_generate="custom_generate")
    (folder / "tokenizer_config.json").unlink()
    shutil.copy(whole / "tokenizer_config.json", folder / "tokenizer_config.json")
    own = {"AutoTokenizer": ["tokenization_own.Own", None]}
    edit(folder, "tokenizer_config.json", tokenizer_class="Own", auto_map=own)
    load(folder)
    assert not marker.exists()
    figure(32, "a model folder of links, with code beside it that is not needed: loaded, the code does not run")


def test_weights_in_several_files_are_loaded(whole: Path, tmp_path: Path) -> None:
    from transformers import Qwen2ForCausalLM

    network = Qwen2ForCausalLM.from_pretrained(whole)
    folder = shutil.copytree(whole, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    assert (folder / INDEX).exists()
    load(folder)


def test_the_command_ends_with_2_and_one_line(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    quantised(folder, tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"model": {"path": str(folder)}}))
    assert main(["train", str(recipe), "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1
    assert not (tmp_path / "run").exists()
