"""A disk that is full, at each place where a run writes: what was saved is valid, and with room it goes on the same."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from covent.errors import DiskError
from covent.store import checkpoint, durable, rows
from covent.store.reader import read_run
from covent.train.config_file import parse_config
from covent.train.resume import resume
from covent.train.run import train
from covent.train.setup import Setup
from covent.train.space import checkpoint_bytes, space_warning
from tests.contract.source import ROOT
from tests.support.figures import figure
from tests.support.full_disk import no_file_above
from tests.support.interrupted import call, differences, exit_code, settings, started, written


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_at_save(patch: pytest.MonkeyPatch, run: Path) -> None:
    """Half of the third checkpoint's first file fits."""
    write = durable.write

    def limited(path: Path, data: bytes) -> None:
        if path.suffix == ".safetensors" and path.parent.name.startswith("00003"):
            path.write_bytes(data[: len(data) // 2])
            raise full()
        write(path, data)

    patch.setattr(durable, "write", limited)


def full_at_row(kind: str, num_rows: int) -> Callable[[pytest.MonkeyPatch, Path], None]:
    def prepare(patch: pytest.MonkeyPatch, run: Path) -> None:
        """Half of a row fits."""
        append, write_all = rows.RowFile.append, durable.write_all

        def limited(self: rows.RowFile, line: bytes) -> None:
            path = run / f"{kind}.jsonl"
            is_it = path.exists() and os.fstat(self.descriptor).st_ino == path.stat().st_ino
            if is_it and path.read_bytes().count(b"\n") == num_rows:
                with patch.context() as context:
                    context.setattr(durable, "write_all", half_of_it)
                    append(self, line)
            append(self, line)

        def half_of_it(descriptor: int, data: bytes) -> None:
            write_all(descriptor, data[: len(data) // 2])
            raise full()

        patch.setattr(rows.RowFile, "append", limited)

    return prepare


PLACES = {
    "checkpoint": full_at_save,
    "metrics": full_at_row("updates", 3),
    "trace": full_at_row("samples", 9),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(settings("mini-batches"), source="test"), folder)
    return folder


@pytest.mark.parametrize("place", PLACES)
def test_a_full_disk_stops_the_run_and_loses_nothing(
    place: str, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        PLACES[place](patch, run)
        with pytest.raises(DiskError, match=rf"(?s)disk is full: make room.*covent resume {run}") as stopped:
            train(parse_config(settings("mini-batches"), source="test"), run)
    assert stopped.value.exit_code == 4
    found = read_run(run)
    assert found.status.state == "failed" and "disk is full" in found.status.message
    assert not any("cut off" in note for note in found.notes)
    checkpoint.opened(checkpoint.numbered(run / checkpoint.FOLDER)[0])
    resume(run)
    assert differences(whole, run) == []
    figure(11, "{count} of 3 places in a run (save, metrics, trace): clear stop, resumed identically")


def limited_by_the_system(tmp_path: Path, num_bytes: int, whole: Path) -> bool:
    """Whether a limit on the size of files stops a run; it must then go on without it as if nothing had been."""
    run = tmp_path / f"run {num_bytes}"
    words = ["train", str(tmp_path / "config.yaml"), "--out", str(run)]
    # What it prints goes nowhere: a file of it would meet the limit too.
    code = exit_code(started(call, words, Path(os.devnull), partial(no_file_above, num_bytes)))
    assert code in (0, 4), num_bytes
    if code == 4:
        again = ["resume", str(run)] if (run / "run.json").exists() else words
        assert exit_code(started(call, again, tmp_path / "log")) == 0
    assert differences(whole, run) == []
    return code == 4


@pytest.mark.slow
def test_a_limit_of_the_operating_system_anywhere(whole: Path, tmp_path: Path) -> None:
    """Each limit meets another file first: config, rows of each kind, weights, the final model."""
    written(tmp_path, **settings("mini-batches"))
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    limits = [largest * i // 20 for i in range(1, 21)]
    stopped = [limit for limit in limits if limited_by_the_system(tmp_path, limit, whole)]
    assert 10 < len(stopped) < 20
    figure(11, f"{len(stopped)} limits on file size, each met at another place: all resumed identically")


TINY_DISK = """
set -e
mount -t tmpfs -o size={kib}k tmpfs {folder}
{python} -m tests.support.on_a_tiny_disk {folder} {whole}
"""


@pytest.mark.slow
@pytest.mark.parametrize("kib", [96, 160, 224, 288])
def test_a_disk_that_is_really_full(kib: int, whole: Path, tmp_path: Path) -> None:
    """A file system in memory of a few hundred kilobytes, filled up; then something on it is deleted."""
    if sys.platform != "linux" or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs Linux and unprivileged namespaces for a file system of its own")
    script = TINY_DISK.format(kib=kib, folder=tmp_path, whole=whole, python=sys.executable)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figure(11, f"file system of {kib} KiB: {done.stdout.strip()}")


def test_a_report_that_does_not_fit_leaves_the_old_one(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from covent.report.page import write_report

    path = write_report([read_run(whole)], tmp_path / "report.html")
    before = path.read_bytes()

    def limited(self: Path, data: bytes) -> int:
        raise full()

    with monkeypatch.context() as patch, pytest.raises(DiskError, match=r"disk is full: make room.*call again"):
        patch.setattr(Path, "write_bytes", limited)
        write_report([read_run(whole)], path)
    assert path.read_bytes() == before
    figure(11, "report: clear stop, the old one is as it was")


def test_a_run_that_will_not_fit_says_so_before_its_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config(settings(steps=1), source="test")
    _, state = Setup.of(config)
    usage = shutil.disk_usage(tmp_path)
    said: list[str] = []
    free = checkpoint_bytes(state.model) * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=free))
    train(config, tmp_path / "run", warn=said.append)
    assert len(said) == 1 and "GB free" in said[0] and "checkpoint.keep" in said[0]
    # The control: with room for all, nothing is said.
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=2 * free))
    assert space_warning(config, state.model, tmp_path) == ""


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_a_clear_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any, **kwargs: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(DiskError, match=r"Making the run folder .*choose another folder"):
        train(parse_config(settings(), source="test"), tmp_path / "run")
    figure(12, "{count} of 2, read-only and forbidden: a clear error before the first step")
