"""Trackers in trouble: the run does not notice, its rows are whole, and what a tracker lacks is sent afterwards."""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from covent.cli.main import main
from covent.errors import ConfigError, MissingExtraError
from covent.store.lock import locked
from covent.store.reader import read_run
from covent.trackers import unsent, watch
from covent.trackers.kinds import require, run_name
from covent.trackers.metrics import point
from covent.train.config_file import parse_config
from covent.train.run import train
from tests.support.figures import figure
from tests.support.interrupted import differences, settings

FAKES = Path(__file__).parents[1] / "support" / "fake_trackers"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a tracker."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(parse_config(settings("mini-batches"), source="test"), folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the tracker in place of trackio keeps what it gets."""
    folder = tmp_path / "tracker"
    folder.mkdir()
    monkeypatch.setenv("FAKE_TRACKER", str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{FAKES}:{Path(watch.__file__).parents[2]}")
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setattr(watch, "CLOSE_S", 8.0)
    monkeypatch.setattr(watch, "FIRST_WAIT_S", 0.0)
    sys.modules.pop("trackio", None)
    return folder


def run(folder: Path, warnings: list[str], **changes: Any) -> Path:
    config = parse_config(settings("mini-batches", report_to=["trackio"], **changes), source="test")
    train(config, folder, warn=warnings.append)
    return folder


def got(place: Path) -> list[dict[str, Any]]:
    """What the tracker was given."""
    path = place / "got.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def points(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows if "step" in row)


def expected(folder: Path) -> list[str]:
    """By another route: every number of the rows, as the run's own reader reads them."""
    found = read_run(folder)
    rows = [*found.steps, *found.updates, *found.evaluations, *found.forecasts]
    every = [point(row) for row in rows]
    return sorted(json.dumps({"step": each.step, **each.values}, sort_keys=True) for each in every)


@contextlib.contextmanager
def server(answers: bool) -> Iterator[int]:
    """A server that says 500, or takes connections and never says anything."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            pass

    if not answers:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield listening.getsockname()[1]
        return
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving.server_port
        serving.shutdown()
        thread.join()


@contextlib.contextmanager
def fault(kind: str, place: Path) -> Iterator[str]:
    """The words that bring the fault about, while it lasts."""
    with contextlib.ExitStack() as stack:
        words = kind
        if kind == "refused":
            with socket.create_server(("127.0.0.1", 0)) as closed:
                port = closed.getsockname()[1]
            words = f"refused {port}"
        elif kind in ("500", "silent"):
            words = f"{kind} {stack.enter_context(server(answers=kind == '500'))}"
        elif kind == "locked":
            database = stack.enter_context(contextlib.closing(sqlite3.connect(place / "points.sqlite")))
            database.execute("create table points (x)")
            database.commit()
            database.execute("begin exclusive")
            words = f"locked {place / 'points.sqlite'}"
        (place / "fault").write_text(words)
        yield words
    (place / "fault").unlink()


FAULTS = {
    "refused": "ConnectionRefusedError",
    "500": "HTTP Error 500",
    "silent": "took longer than 1.5 s",
    "locked": "database is locked",
    "crash": "ended with -6",
    "slow": "did not end",
    "noise": "",
}


def test_a_tracker_gets_every_row_once(whole: Path, place: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    folder = run(tmp_path / "run", warnings)
    assert differences(whole, folder) == []
    assert points(got(place)) == expected(folder)
    assert len(expected(folder)) == len(set(expected(folder))) > 30
    assert got(place)[0] == {"init": run_name(folder), "project": "covent", "resume": "allow"}
    assert got(place)[-1] == {"finish": True}
    assert warnings == []
    assert "trackio" not in sys.modules, "the trainer imports no tracker"
    assert main(["track", str(folder), "trackio"]) == 0
    assert points(got(place)) == expected(folder), "nothing is sent twice"


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind in ("crash", "noise", "500") else ()) for kind in FAULTS]
)
def test_a_tracker_in_trouble_costs_the_run_nothing(
    kind: str, whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(watch, "CALL_S", 60.0 if kind in ("slow", "noise") else 1.5)
    monkeypatch.setattr(watch, "CLOSE_S", 30.0 if kind == "noise" else 3.0)
    with fault(kind, place):
        folder = run(tmp_path / "run", warnings)
        assert differences(whole, folder) == []
        if kind == "noise":
            assert points(got(place)) == expected(folder)
        else:
            assert points(got(place)) == []
            assert any(FAULTS[kind] in warning for warning in warnings), warnings
            assert f"covent track {folder} trackio" in warnings[-1]
    # Once the trouble is over.
    assert main(["track", str(folder), "trackio"]) == 0
    assert points(got(place)) == expected(folder)
    figure(34, f"{{count}} of {len(FAULTS)} troubles of a tracker: the run is bit for bit that without; all rows sent")


def test_the_same_trouble_inside_the_trainer_would_end_the_run(place: Path, tmp_path: Path) -> None:
    """The negative control: the tracker called from the training loop, as trackers usually are."""
    import trackio

    assert Path(trackio.__file__).is_relative_to(FAKES)
    with fault("locked", place), pytest.raises(sqlite3.OperationalError, match="locked"):
        train(
            parse_config(settings("mini-batches"), source="test"),
            tmp_path / "run",
            progress=lambda phase, done, total: trackio.log({"done": done}, step=done),
        )


def test_trouble_that_passes_is_made_up_for_while_the_run_goes_on(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backfill: two processes fail, the third one sends every row, and none twice."""
    folder, warnings, attempts = shutil.copytree(whole, tmp_path / "run"), [], []
    ended = (folder / "status.json").read_text()
    (folder / "status.json").write_text(ended.replace("finished", "running"))
    start = watch._Watched._start

    def counted(self: Any) -> None:
        attempts.append(1)
        (place / "fault").write_text("locked /no/such/place" if len(attempts) < 3 else "")
        start(self)

    monkeypatch.setattr(watch._Watched, "_start", counted)
    # The lock says that the run goes on.
    with locked(folder), watch.watched(folder, ["trackio"], "covent", warnings.append) as look:
        while len(points(got(place))) < len(expected(folder)):
            look()
            time.sleep(0.05)
        (folder / "status.json").write_text(ended)
    assert points(got(place)) == expected(folder)
    assert len(attempts) == 3
    assert len(warnings) == 1 and "unable to open database" in warnings[0]


def test_after_a_failure_within_a_batch_its_first_rows_come_twice(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Delivery is at least once: nobody knows what a tracker that failed has kept. Whole batches are not sent again."""
    monkeypatch.setattr(unsent, "AT_ONCE", 4)
    folder = shutil.copytree(whole, tmp_path / "run")
    with fault("after 7", place):
        assert main(["track", str(folder), "trackio"]) == 1
    assert "a batch of rows that failed is sent again" in capsys.readouterr().err
    begun = points(got(place)[5:])
    assert len(begun) == 3
    assert main(["track", str(folder), "trackio"]) == 0
    assert points(got(place)) == sorted(expected(folder) + begun)


def test_a_full_queue_is_bounded_and_nothing_is_lost(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows wait in their files: however many there are, only so many are in memory."""
    monkeypatch.setattr(unsent, "AT_ONCE", 4)
    folder = shutil.copytree(whole, tmp_path / "run")
    sizes: list[int] = []
    next_rows = unsent.Sent.next_rows

    def counted(self: unsent.Sent, where: Path) -> Any:
        found = next_rows(self, where)
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(unsent.Sent, "next_rows", counted)
    assert main(["track", str(folder), "trackio"]) == 0
    assert max(sizes) == 4 and len(sizes) > 5
    assert points(got(place)) == expected(folder)


def test_a_run_that_is_resumed_sends_no_row_twice(
    whole: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are cut back and written again, the same; the tracker has some of them already."""
    folder = shutil.copytree(whole, tmp_path / "run")
    assert main(["track", str(folder), "trackio"]) == 0
    for kind in unsent.SENT:
        path = folder / f"{kind}.jsonl"
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            path.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[-1][:10])
    assert main(["track", str(folder), "trackio"]) == 0
    for kind in unsent.SENT:
        if (whole / f"{kind}.jsonl").exists():
            shutil.copy(whole / f"{kind}.jsonl", folder / f"{kind}.jsonl")
    assert main(["track", str(folder), "trackio"]) == 0
    assert points(got(place)) == expected(folder)


def test_looking_after_a_tracker_does_not_wait_for_it(
    place: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process, a full disk for its log, no process at all: each call comes back."""
    folder = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(folder / "trackers", ignore_errors=True)
    (folder / "trackers").write_text("in the way")
    warnings: list[str] = []
    with watch.watched(folder, ["trackio"], "covent", warnings.append) as look:
        for _ in range(1000):
            look()
    assert "could not be started" in warnings[0] and len(warnings) == 2


@pytest.mark.parametrize(("name", "error"), [("trackoi", ConfigError), ("tensorboard", MissingExtraError)])
def test_what_cannot_be_used_is_said_before_the_run(
    name: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covent.trackers.kinds.find_spec", lambda name: None)
    with pytest.raises(error, match=name):
        require(name)


def test_a_tracker_that_fails_ends_the_command_with_1(
    whole: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    with fault("locked", place):
        assert main(["track", str(folder), "trackio"]) == 1
    printed = capsys.readouterr().err
    assert "database is locked" in printed and printed.count("\n") == 1
    assert main(["track", str(tmp_path / "no"), "trackio"]) == 2
    assert main(["track", str(folder), "trackoi"]) == 2


def test_tensorboard_reads_the_numbers_back(whole: Path, tmp_path: Path) -> None:
    """Truth by another route: TensorBoard's own reader, as `covent fit` uses it too."""
    pytest.importorskip("tensorboard", reason="needs the tensorboard extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = shutil.copytree(whole, tmp_path / "run")
    assert main(["track", str(folder), "tensorboard"]) == 0
    accumulator = EventAccumulator(str(folder / "trackers" / "tensorboard"))
    accumulator.Reload()
    seen = [(event.step, event.value) for event in accumulator.Scalars("rollout/entropy")]
    steps = read_run(folder).steps
    assert [step for step, _ in seen] == [row.step for row in steps]
    assert [value for _, value in seen] == pytest.approx([row.entropy.value for row in steps])
    assert len(accumulator.Scalars("update/covariance/mean")) == len(read_run(folder).updates)
    # What is sent twice is there twice: a step is not written over.
    (folder / "trackers" / "tensorboard.json").unlink()
    assert main(["track", str(folder), "tensorboard"]) == 0
    again = EventAccumulator(str(folder / "trackers" / "tensorboard"))
    again.Reload()
    assert sorted(event.step for event in again.Scalars("rollout/entropy")) == sorted(2 * [step for step, _ in seen])
