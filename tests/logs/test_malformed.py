"""Broken and doubtful logs: each ends with a message that says what, where, what is allowed and what to do."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from covent.errors import CoventError, MissingPathError
from covent.logs import Choice, LogError, log_series, read_logs
from covent.logs.wandb_file import records
from tests.logs.logfiles import GOLDEN, Row, json_lines, law_rows

Made = Callable[[Path], Path]
AS_FOUND = Choice()


@dataclass(frozen=True)
class Broken:
    """A log that must be refused."""

    name: str
    make: Made
    says: tuple[str, ...]
    """Parts of the message."""
    choice: Choice = AS_FOUND
    error: type[CoventError] = LogError


def text(file: str, content: str | bytes) -> Made:
    """A file with this content."""

    def make(folder: Path) -> Path:
        data = content.encode() if isinstance(content, str) else content
        (folder / file).write_bytes(data)
        return folder / file

    return make


def rows(change: Callable[[list[dict[str, float]]], list[Row]]) -> Made:
    """The run of `law_rows`, changed, as JSON Lines."""
    return lambda folder: json_lines(folder / "log.jsonl", change(law_rows()))


def with_value(index: int, name: str, value: object) -> Made:
    """The same run with one value replaced."""
    return rows(lambda found: [{**row, name: value} if i == index else row for i, row in enumerate(found)])


def renamed(old: str, *new: str) -> Made:
    """The same run with a metric under other names; several names differ in the last digits."""
    return rows(
        lambda found: [
            {key: value for key, value in row.items() if key != old}
            | {name: row[old] * (1 - 0.01 * i) for i, name in enumerate(new) if old in row}
            for row in found
        ]
    )


def lines_with(number: int, line: str) -> Made:
    """The same run with one line replaced."""

    def make(folder: Path) -> Path:
        path = json_lines(folder / "log.jsonl", law_rows())
        lines = path.read_text().splitlines()
        lines[number - 1] = line
        path.write_text("\n".join(lines) + "\n")
        return path

    return make


def empty_database(folder: Path) -> Path:
    """A sqlite file of another program."""
    database = sqlite3.connect(folder / "log.db")
    database.execute("CREATE TABLE notes (text TEXT)")
    database.commit()
    database.close()
    return folder / "log.db"


def two_runs(folder: Path) -> Path:
    """Two runs in one table."""
    lines = ["model,step,entropy,accuracy", *(f"{m},{s},0.{s},0.{10 - s}" for m in "ab" for s in range(1, 6))]
    return text("log.csv", "\n".join(lines))(folder)


CSV_HEAD = "step,entropy,accuracy\n1,0.5,0.2\n2,0.4,0.3\n"

BROKEN = [
    Broken("missing", lambda folder: folder / "no.jsonl", ("no.jsonl does not exist", "Give"), error=MissingPathError),
    Broken("empty", text("log.jsonl", ""), ("log.jsonl is empty", "Give")),
    Broken("only spaces", text("log.csv", " \n\n"), ("log.csv is empty",)),
    Broken("empty folder", lambda folder: folder, ("folder without a log", "nothing"), error=MissingPathError),
    Broken("pickle", text("log.pt", b"PK\x03\x04\x00\x00data.pkl\x00"), ("binary", "never opened")),
    Broken("other sqlite", empty_database, ("sqlite", "trackio or MLflow", "Export")),
    Broken("torn sqlite", text("log.db", b"SQLite format 3\x00" + b"\x01" * 200), ("cannot be read as a sqlite file",)),
    Broken("prose", text("log.txt", "Hello.\nThe run went well.\n"), ("without any line of metrics", "step:3")),
    Broken("bad JSON line", lines_with(7, '{"step": 7, "entropy": 0.3'), ("log.jsonl:7 is not JSON", "repair")),
    Broken("JSON line is a list", lines_with(3, "[1, 2]"), ("log.jsonl:3 is a JSON list", "object")),
    Broken(
        "JSON document torn", text("s.json", '{\n "log_history": [\n  {"step": 1},'), ("s.json is not JSON", "Restore")
    ),
    Broken("a config", text("c.json", '{\n "learning_rate": 1,\n "seed": 0\n}'), ("holds no log", "learning_rate")),
    Broken("no rows", text("s.json", '{"log_history": []}'), ("holds no row", "logged anything")),
    Broken("record is a number", text("s.json", '{"log_history": [1]}'), ("record 1 is a JSON int",)),
    Broken("header only", text("log.csv", "step,entropy,accuracy\n"), ("no row below its header",)),
    Broken("no header", text("log.csv", "1,0.5,0.2\n2,0.4,0.3\n"), ("log.csv:1 holds numbers where names",)),
    Broken("short row", text("log.csv", CSV_HEAD + "3,0.3\n"), ("log.csv:4 has 2 cells", "3 columns")),
    Broken("decimal comma", text("log.csv", CSV_HEAD + "3,0,3,0,4\n"), ("log.csv:4 has 5 cells", "decimal comma")),
    Broken("repeated name", text("log.csv", "step,H,H\n1,2,3\n"), ("names column 'H' twice",)),
    Broken("text in a column", text("log.csv", CSV_HEAD + "3,high,0.4\n"), ("log.csv:4", "'high'", "'entropy'")),
    Broken("percent sign", text("log.csv", "step,entropy,accuracy\n1,0.5,20%\n"), ("log.csv:2", "'20%'", "--unit")),
    Broken("not UTF-8", text("log.csv", CSV_HEAD.encode() + b"3,0.3,\xff\n"), ("no UTF-8", "Save")),
    Broken("TensorBoard CSV", text("log.csv", "Wall time,Step,Value\n1,1,0.5\n"), ("not even its name", "event file")),
    Broken("half a step", with_value(4, "step", 5.5), ("log.jsonl:5", "step is 5.5", "whole number")),
    Broken("negative entropy", with_value(2, "entropy", -0.1), ("log.jsonl:3", "-0.1", "--entropy")),
    Broken("entropy all zero", rows(lambda found: [{**row, "entropy": 0.0} for row in found]), ("exactly 0", "fused")),
    Broken("no entropy", renamed("entropy", "loss"), ("holds no entropy", "--entropy", "loss")),
    Broken("no accuracy", renamed("accuracy", "loss"), ("no metric that covent knows", "--metric", "loss")),
    Broken(
        "two accuracies",
        renamed("accuracy", "val-core/a/acc/mean@1", "val-core/b/acc/mean@1"),
        ("2 metrics that could be an accuracy", "--metric 'val-core/b/acc/mean@1'"),
    ),
    Broken(
        "two entropies",
        renamed("entropy", "entropy/math/mean", "entropy/code/mean"),
        ("2 metrics that could be an entropy", "--entropy 'entropy/code/mean'"),
    ),
    Broken("unknown metric", rows(list), ("no metric 'acuracy'", "'accuracy'"), Choice(metric="acuracy")),
    Broken("unknown step", rows(list), ("no column 'epoch'", "--step"), Choice(step="epoch")),
    Broken("mixed units", with_value(23, "accuracy", 71.0), ("mixes units", "step 24", "--unit percent")),
    Broken("a reward", with_value(23, "accuracy", -1.0), ("log.jsonl:24", "-1", "--metric")),
    Broken("percent called fraction", with_value(23, "accuracy", 71.0), ("71", "0 and 1"), Choice(unit="fraction")),
    Broken("unknown run", two_runs, ("no run 'c'", "It has a, b"), Choice(by="model", run="c")),
    Broken("unknown column", two_runs, ("no column 'size'", "model"), Choice(by="size")),
    Broken("UTF-16", text("log.csv", CSV_HEAD.encode("utf-16")), ("UTF-16", "UTF-8")),
    Broken("gzip", text("log.csv.gz", gzip.compress(CSV_HEAD.encode())), ("gzip", "Unpack")),
    Broken("vast cell", text("log.csv", CSV_HEAD + f'3,"{"9" * 200_000}",0.4\n'), ("log.csv:4", "field limit")),
    Broken(
        "decimal commas",
        text("log.csv", "step;entropy;accuracy\n1;0,5;0,2\n2;0,4;0,3\n"),
        ("log.csv:2", "'0,5'", "point"),
    ),
    Broken("perplexity", with_value(2, "entropy", 42.5), ("log.jsonl:3", "42.5", "30 nats", "perplexity")),
    Broken(
        "key twice",
        lines_with(3, '{"step": 3, "entropy": 1, "entropy": 2}'),
        ("log.jsonl:3", "'entropy' is there twice"),
    ),
    Broken("entropy as R", rows(list), ("--metric 'entropy'", "--entropy"), Choice(metric="entropy")),
    *(
        Broken(f"temperature {value:g}", rows(list), ("--temperature", f"{value:g}"), Choice(temperature=value))
        for value in (0.0, -1.0, math.nan, math.inf)
    ),
    Broken("window 0", rows(list), ("--window is 0", "at least 1"), Choice(window=0)),
]


def read(path: Path, choice: Choice) -> None:
    """Everything that a command does before it fits."""
    for run in read_logs(path, step=choice.step, by=choice.by, run=choice.run):
        log_series(run, choice)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_log_is_refused_with_a_clear_message(case: Broken, tmp_path: Path) -> None:
    with pytest.raises(case.error) as refusal:
        read(case.make(tmp_path), case.choice)
    assert [part for part in case.says if part not in str(refusal.value)] == [], str(refusal.value)


def test_counters_that_never_meet(tmp_path: Path) -> None:
    found: list[Row] = [{"step": 100 + step, "entropy": 0.5} for step in range(5)]
    found += [{"step": step, "accuracy": 0.5} for step in range(5)]
    with pytest.raises(LogError, match=r"accuracies are at steps 0, 1.*entropies at 100, 101.*--step"):
        read(json_lines(tmp_path / "log.jsonl", found), Choice())


def test_there_are_enough_of_them() -> None:
    assert len({case.name for case in BROKEN}) == len(BROKEN) >= 25


def test_the_log_they_are_made_from_is_sound(tmp_path: Path) -> None:
    read(json_lines(tmp_path / "log.jsonl", law_rows()), Choice())


@pytest.mark.parametrize("end", ['{"step": 25, "entr', '{"step": 25, "entropy": 0.02'])
def test_a_torn_last_line_is_dropped_and_said(end: str, tmp_path: Path) -> None:
    path = json_lines(tmp_path / "log.jsonl", law_rows())
    whole = read_logs(path)[0]
    path.write_text(path.read_text() + end)
    torn = read_logs(path)[0]
    assert torn.rows == whole.rows
    assert any("log.jsonl:25 was cut off" in note for note in torn.notes)


def test_a_torn_console_line_is_dropped_and_said(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("step:1 - actor/entropy:0.51 - a:1\nstep:2 - actor/entropy:0.4")
    (run,) = read_logs(path)
    assert [row.step for row in run.rows] == [1], "0.4 may have been 0.49"
    assert any("cut off" in note for note in run.notes)


def test_text_of_a_log_is_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / "console.log"
    attack = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    path.write_text(f"{{'loss': {attack}, 'entropy': 0.5}}\n{{'loss': '0.1', 'entropy': '0.5'}}\n")
    (run,) = read_logs(path)
    assert len(run.rows) == 1
    assert not marker.exists()


def test_nan_in_every_spelling_is_none(tmp_path: Path) -> None:
    spelled = ['{"step": 1, "entropy": NaN}', '{"step": 2, "entropy": null}', '{"step": 3, "entropy": "NaN"}']
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*spelled, json.dumps({"step": 4, "entropy": 0.5}), '{"step": 5, "entropy": 1e999}\n']))
    assert [row.values["entropy"] for row in read_logs(path)[0].rows] == [None, None, None, 0.5, None]


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    start=st.sampled_from(
        [b"", b"{", b"[", b"{'", b"step:1 - ", b"SQLite format 3\x00", b"step,entropy,accuracy\n", b'{"log_history": [']
    ),
    middle=st.one_of(st.binary(max_size=80), st.text(alphabet='{}[]",:0123456789.eE-+aNnulstp\n', max_size=80)),
    suffix=st.sampled_from([".csv", ".json", ".jsonl", ".log", ".db"]),
)
def test_any_bytes_are_a_log_or_a_clear_error(
    start: bytes, middle: bytes | str, suffix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"log{suffix}"
    path.write_bytes(start + (middle.encode() if isinstance(middle, str) else middle))
    with contextlib.suppress(CoventError):
        read(path, AS_FOUND)


@pytest.mark.parametrize("value", ["1" + "0" * 400, "[" * 100_000, "1e400"])
def test_monstrous_numbers_and_nesting_are_no_crash(value: str, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(f'{{"step": 1, "entropy": {value}}}\n')
    with pytest.raises(LogError):
        read(tmp_path / "log.jsonl", AS_FOUND)


def test_a_pipe_is_refused_since_it_can_be_read_only_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.csv")
    with pytest.raises(LogError, match=r"log.csv is a pipe.*save it to a file"):
        read_logs(tmp_path / "log.csv")


def test_lines_may_end_with_a_carriage_return_alone(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(CSV_HEAD.replace("\n", "\r").encode())
    assert [row.step for row in read_logs(tmp_path / "log.csv")[0].rows] == [1, 2]


VERL = "step:{0} - actor/entropy:0.{0} - val-core/a/acc/mean@1:0.5 - training/global_step:{0}"


@pytest.mark.parametrize(
    "before",
    [
        "2026-01-01 12:00:00,123\tINFO worker.py:1 -- Started.\n2026-01-01 12:00:01,456\tINFO worker.py:2 -- Up.\n",
        "WARNING 01-01, see docs\nWARNING 01-02, see docs\n",
        "",
    ],
)
@pytest.mark.parametrize(
    "prefix", ["", "(TaskRunner pid=1) ", "2026-01-01 12:00:00,123 INFO ", "\r 5%|#| 1/9 [00:01, 2s/it]"]
)
def test_a_console_is_no_table_whatever_is_printed_around_it(before: str, prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text(before + "".join(f"{prefix}{VERL.format(step)}\n" for step in (1, 2, 3)))
    (run,) = read_logs(path)
    assert [(row.step, row.values["actor/entropy"]) for row in run.rows] == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_two_steps_on_one_line_are_two_rows(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text(f"{VERL.format(1)}{VERL.format(2)}\n{VERL.format(3)}   step:99999 - other:1\n")
    (run,) = read_logs(path)
    assert [row.step for row in run.rows] == [1, 2, 3, 99999]
    assert run.rows[0].values["training/global_step"] == 1.0


def test_a_step_of_thousands_of_digits_is_no_step(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text(f"{VERL.format(1)}\n{VERL.format('9' * 5000)}\n")
    (run,) = read_logs(path)
    assert [row.step for row in run.rows] == [1]
    assert any("without 'step'" in note for note in run.notes)


def test_numpy_numbers_in_a_printed_dictionary_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_text("{'loss': 0.1, 'entropy': np.float64(0.5)}\n")
    assert read_logs(path)[0].rows[0].values["entropy"] == 0.5


def test_a_wandb_file_that_is_cut_off_or_damaged_says_so(tmp_path: Path) -> None:
    data = (GOLDEN / "trl_offline.wandb").read_bytes()
    path, notes = tmp_path / "run.wandb", list[str]()
    path.write_bytes(data)
    whole = list(records(path, notes))
    assert notes == []
    path.write_bytes(data[:-5])
    assert list(records(path, notes)) == whole[:-1]
    assert "ends in the middle of a record" in notes[0]
    path.write_bytes(data[:20_000] + bytes([data[20_000] ^ 1]) + data[20_001:])
    with pytest.raises(LogError, match=r"damaged after it was written"):
        list(records(path))


def test_tensorboard_events_that_are_cut_off_or_damaged_say_so(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    data = (GOLDEN / "events.out.tfevents.1.host.1.0").read_bytes()
    path = tmp_path / "events.out.tfevents.1.host.1.0"
    path.write_bytes(data)
    assert not any("cut off" in note for note in read_logs(path)[0].notes)
    for broken in (data[:-5], data[: len(data) // 2], data[:20_000] + bytes([data[20_000] ^ 1]) + data[20_001:]):
        path.write_bytes(broken)
        assert any("cut off or damaged after event" in note for note in read_logs(path)[0].notes)
