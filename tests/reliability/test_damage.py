"""Damaged checkpoints and odd folders: found before use, named, set aside, and the next older one goes on."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load

from covent.cli.main import main
from covent.errors import CheckpointError, CoventError
from covent.store import checkpoint
from covent.store.reader import read_resumes
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from tests.support.figures import figure
from tests.support.interrupted import differences, folder_bytes, settings

STEPS = 3
KEPT = ("00004-step-3", "00003-step-2", "00002-step-1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(settings(steps=STEPS, checkpoint={"keep": 3}), source="test"), folder)
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The run as it was killed after its last step, with three checkpoints."""
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(folder / "model")
    (folder / "status.json").unlink()
    return folder


def checkpoints(run: Path) -> Path:
    return run / checkpoint.FOLDER


def went_on_from(run: Path) -> tuple[str | None, str]:
    """The checkpoint that `covent resume` took, and what it said of others."""
    said: list[str] = []
    resume(run, warn=said.append)
    return read_resumes(run)[-1].checkpoint, "\n".join(said)


def truncations(path: Path) -> list[int]:
    size = path.stat().st_size
    return [0, 1, size // 2, size - 1]


@pytest.mark.parametrize("num", [pytest.param(2, id="short"), pytest.param(1000, marks=pytest.mark.slow)])
def test_a_truncated_file_is_found_named_and_set_aside(num: int, whole: Path, run: Path, tmp_path: Path) -> None:
    files = sorted(path.name for path in (checkpoints(run) / KEPT[0]).iterdir())
    cases = [(name, size) for name in files for size in truncations(checkpoints(run) / KEPT[0] / name)]
    # The short form still truncates every file; it lets only some runs go on to their end.
    for number, (name, size) in enumerate(cases):
        part = shutil.copytree(run, tmp_path / str(number))
        os.truncate(checkpoints(part) / KEPT[0] / name, size)
        with pytest.raises(CheckpointError, match=name):
            checkpoint.opened(checkpoints(part) / KEPT[0])
        if number % (len(cases) // min(num, len(cases))) == 0:
            before = folder_bytes(checkpoints(part) / KEPT[0])
            taken, said = went_on_from(part)
            assert taken == KEPT[1]
            assert KEPT[0] in said and name in said
            assert folder_bytes(checkpoints(part) / f"{KEPT[0]}.bad") == before
            assert differences(whole, part) == []
        shutil.rmtree(part)
    figure(
        7, f"{len(cases)} of {len(cases)} truncations found and named, the next older checkpoint goes on identically"
    )


@pytest.mark.parametrize("flips", [pytest.param(60, id="short"), pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_found_before_use(flips: int, run: Path) -> None:
    """Uniform over all bits of all files; the libraries that load them see next to none."""
    chance = random.Random(0)
    folder = checkpoints(run) / KEPT[0]
    files = sorted(folder.iterdir())
    sizes = [path.stat().st_size for path in files]
    found, loaded = 0, 0
    for _ in range(flips):
        (path,) = chance.choices(files, sizes)
        before = path.read_bytes()
        flipped = bytearray(before)
        flipped[chance.randrange(len(before))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=path.name):
            checkpoint.opened(folder)
        found += 1
        if path.suffix == ".safetensors":
            try:
                load(bytes(flipped))
                loaded += 1
            except Exception:  # noqa: S110 - whatever the library raises, it has noticed
                pass
        path.write_bytes(before)
    checkpoint.opened(folder)
    # The negative control: without our hashes most of these flips would have been trained on.
    assert loaded > flips / 2
    figure(8, f"{found} of {flips} bit flips found before use; safetensors alone would have loaded {loaded} of them")


def _damage(run: Path, *names: str) -> None:
    for name in names:
        (checkpoints(run) / name / "state.json").write_text("{}")


def _symlink(run: Path) -> None:
    path = checkpoints(run) / KEPT[0]
    path.rename(run / "elsewhere")
    path.symlink_to(run / "elsewhere")


def _file(run: Path) -> None:
    shutil.rmtree(checkpoints(run) / KEPT[0])
    (checkpoints(run) / KEPT[0]).write_text("")


def _file_symlink(run: Path) -> None:
    path = checkpoints(run) / KEPT[0] / "model-1.safetensors"
    path.rename(run / "weights")
    path.symlink_to(run / "weights")


def _rows_shortened(run: Path) -> None:
    lines = (run / "steps.jsonl").read_bytes().splitlines(keepends=True)
    (run / "steps.jsonl").write_bytes(b"".join(lines[:-1]))


def _rows_changed(run: Path) -> None:
    data = (run / "updates.jsonl").read_bytes()
    (run / "updates.jsonl").write_bytes(data[:-20] + b"9" + data[-19:])


def _torn_row(run: Path) -> None:
    with (run / "steps.jsonl").open("ab") as file:
        file.write(b'{"step": 3, "entr')


def _as(name: str) -> Callable[[Path], None]:
    def copy(run: Path) -> None:
        shutil.copytree(checkpoints(run) / KEPT[0], checkpoints(run) / name)

    return copy


def _manifest_of_another(run: Path) -> None:
    shutil.copy(checkpoints(run) / KEPT[1] / "manifest.json", checkpoints(run) / KEPT[0])


FOLDERS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "whole": (lambda run: None, KEPT[0]),
    "newest damaged": (lambda run: _damage(run, KEPT[0]), KEPT[1]),
    "two newest damaged": (lambda run: _damage(run, *KEPT[:2]), KEPT[2]),
    "middle damaged": (lambda run: _damage(run, KEPT[1]), KEPT[0]),
    "newest empty": (lambda run: [path.unlink() for path in (checkpoints(run) / KEPT[0]).iterdir()], KEPT[1]),
    "newest without manifest": (lambda run: (checkpoints(run) / KEPT[0] / "manifest.json").unlink(), KEPT[1]),
    "newest without weights": (lambda run: (checkpoints(run) / KEPT[0] / "model-1.safetensors").unlink(), KEPT[1]),
    "newest has another's manifest": (_manifest_of_another, KEPT[1]),
    "newest is missing": (lambda run: shutil.rmtree(checkpoints(run) / KEPT[0]), KEPT[1]),
    "newest is a file": (_file, KEPT[1]),
    "newest is a link": (_symlink, KEPT[1]),
    "a file of the newest is a link": (_file_symlink, KEPT[1]),
    "a stray temporary folder": (_as("00005-step-9.tmp-0badcafe"), KEPT[0]),
    "a bad one from before": (_as("00005-step-9.bad"), KEPT[0]),
    "a folder of somebody else": (lambda run: (checkpoints(run) / "notes").mkdir(), KEPT[0]),
    "a file more in the newest": (lambda run: (checkpoints(run) / KEPT[0] / ".DS_Store").write_text("x"), KEPT[0]),
    "rows shorter than the newest says": (_rows_shortened, KEPT[1]),
    "rows changed at the end": (_rows_changed, KEPT[1]),
    "a torn row": (_torn_row, KEPT[0]),
    "status missing its text": (lambda run: (run / "status.json").write_text(""), KEPT[0]),
    "no checkpoints at all": (lambda run: shutil.rmtree(checkpoints(run)), None),
    "all damaged": (lambda run: _damage(run, *KEPT), None),
}
SHORT = ("newest without manifest", "rows shorter than the newest says", "a stray temporary folder")


@pytest.mark.parametrize("state", [pytest.param(s, marks=[] if s in SHORT else pytest.mark.slow) for s in FOLDERS])
def test_whatever_the_folder_looks_like(state: str, whole: Path, run: Path) -> None:
    prepare, expected = FOLDERS[state]
    prepare(run)
    if expected is None:
        with pytest.raises(CheckpointError):
            resume(run)
    else:
        taken, _ = went_on_from(run)
        assert taken == expected
        assert differences(whole, run) == []
        assert not list(checkpoints(run).glob("*.tmp-*"))
    figure(9, f"{{count}} of {len(FOLDERS)} folder states: the right checkpoint, no crash")


def test_all_bad_is_an_error_of_its_own_and_no_new_start(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _damage(run, *KEPT)
    before = {name: data for name, data in folder_bytes(run).items() if not name.startswith(checkpoint.FOLDER)}
    for _ in range(2):
        assert main(["resume", str(run)]) == 3
        message = capsys.readouterr().err
        assert "cannot go on" in message and "covent train" in message
    after = {name: data for name, data in folder_bytes(run).items() if not name.startswith(checkpoint.FOLDER)}
    assert {name: data for name, data in after.items() if name != "run.lock"} == {
        name: data for name, data in before.items() if name != "run.lock"
    }
    assert sorted(path.name for path in checkpoints(run).iterdir()) == sorted(f"{name}.bad" for name in KEPT)
    figure(10, "exit code 3 with advice, twice; nothing deleted, no row added")


def test_a_manifest_cannot_name_files_elsewhere(run: Path) -> None:
    """Whoever can write a manifest that fits its own hash still cannot make it read another file."""
    folder = checkpoints(run) / KEPT[0]
    secret = run / "config.yaml"
    listed = {"../../config.yaml": {"bytes": secret.stat().st_size, "sha256": "0" * 64}}
    (folder / "manifest.json").write_bytes(checkpoint.manifest_text("step-3", listed))
    with pytest.raises(CoventError, match="not the name of a file"):
        checkpoint.opened(folder)
