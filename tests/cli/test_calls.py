"""What a call of covent prints and how it ends, for right and wrong calls."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import get_args

import hypothesis
import pytest
from hypothesis import strategies as st

import covent
from covent.cli.main import Command, main, parse, positionals_first
from covent.cli.measure import Measure
from covent.cli.options import _options, unknown_word
from covent.cli.output import Outcome, Output
from covent.cli.report import Report
from covent.cli.train import Train
from covent.errors import ConfigError, NonFiniteError


def _ends_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(self: Report, output: Output) -> Outcome:
        raise error

    monkeypatch.setattr(Report, "run", run)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"covent {covent.__version__}\n"


def test_without_words_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert [name for name in ("demo", "train", "report", "doctor") if f"• {name} " not in printed] == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["demo", "--stpes", "3"], "no option --stpes. Did you mean '--steps'?"),
        (["trian", "clock.yaml"], "no command 'trian'. Did you mean 'train'?"),
        (["fit", "--rum=x", "log.csv"], "no option --rum. Did you mean '--run'?"),
        (["frobnicate"], "Known: bench, compare, demo, doctor"),
        (["train"], "CONFIG"),
        (["demo", "--seed", "one"], "one"),
    ],
)
def test_a_wrong_word_ends_with_2_and_a_hint(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    printed = capsys.readouterr()
    assert hint in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert "│" not in printed.err and "╭" not in printed.err
    assert printed.out == ""


def test_options_are_known_as_tyro_knows_them() -> None:
    """The names that a typing mistake is held against are those that parse."""
    for name, command in {each.__name__.lower(): each for each in get_args(Command)}.items():
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
            parse([name, "--help"])
        told = set(re.findall(r"--[a-z][a-z-]*", printed.getvalue()))
        assert set(_options(command)) <= told | {"--help"}, name
        assert unknown_word([name, *sorted(told & set(_options(command)))], {name: command}) is None


def test_an_option_is_given_once_unless_it_collects(capsys: pytest.CaptureFixture[str]) -> None:
    allowed = parse(["resume", "runs/a", "--allow", "seed", "--allow", "threads"])
    assert allowed.allow == ("seed", "threads")
    with pytest.raises(SystemExit):
        parse(["report", "runs/a", "--out", "a.html", "--out=b.html"])
    assert "--out is there twice" in capsys.readouterr().err


@pytest.mark.parametrize("name", [each.__name__.lower() for each in get_args(Command)])
def test_help_shows_no_machinery(name: str) -> None:
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as printed:
        parse([name, "--help"])
    assert "{None}" not in printed.getvalue() and "(default: )" not in printed.getvalue()


def test_an_error_is_one_message_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _ends_with(monkeypatch, ConfigError("'clip_cov_ratio' = 20: must be at most 1."))
    assert main(["report", "runs/a"]) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: 'clip_cov_ratio' = 20: must be at most 1.\n"
    assert printed.out == ""


def test_a_message_is_never_read_as_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    message = "no run in 'runs/[bold]a[/red]' :smile: " + "x" * 300
    _ends_with(monkeypatch, ConfigError(message))
    main(["report", "runs/a"])
    assert capsys.readouterr().err == f"error: {message}\n"


def test_an_error_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _ends_with(monkeypatch, NonFiniteError("the loss of update 3 is NaN"))
    assert main(["report", "runs/a"]) == 1


def test_a_fault_of_covent_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    _ends_with(monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        main(["report", "runs/a"])


def test_interrupted_before_anything_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(self: Train, output: Output) -> Outcome:
        raise KeyboardInterrupt

    monkeypatch.setattr(Train, "run", run)
    assert main(["train", "clock.yaml", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().out == "interrupted; no run had begun\n"


def test_a_command_that_trains_nothing_does_not_speak_of_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _ends_with(monkeypatch, KeyboardInterrupt())
    assert main(["report", "runs/a"]) == 130
    assert capsys.readouterr().out == "interrupted\n"


def test_a_demo_in_a_taken_folder_says_so_before_it_shows_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "kept").write_text("")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and "is taken" in printed.err
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_interrupted_with_a_run_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(self: Train, output: Output) -> Outcome:
        self.folder.mkdir()
        (self.folder / "run.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(Train, "run", run)
    assert main(["train", "clock.yaml", "--out", str(tmp_path / "run")]) == 130
    printed = capsys.readouterr().out
    assert f"can be read: covent report {tmp_path / 'run'}\n" in printed
    assert printed.endswith(f"go on: covent resume {tmp_path / 'run'}\n")


def test_json_is_one_line_alone_on_stdout(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(self: Report, output: Output) -> Outcome:
        output.say("for people")
        print("from a library")
        return Outcome({"report": "a.html"})

    monkeypatch.setattr(Report, "run", run)
    assert main(["report", "runs/a", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert json.loads(printed.out) == {"command": "report", "exit_code": 0, "report": "a.html"}
    assert printed.err == "for people\nfrom a library\n"

    assert main(["report", "runs/a"]) == 0
    assert capsys.readouterr().out == "for people\nfrom a library\n"


def test_json_tells_of_an_error_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _ends_with(monkeypatch, ConfigError("no such setting"))
    assert main(["report", "--json"]) == 2
    line = json.loads(capsys.readouterr().out)
    assert line == {"command": "report", "exit_code": 2, "error": "ConfigError", "message": "no such setting"}


@pytest.mark.parametrize(
    "words",
    [
        ["train", "clock.yaml", "steps=3", "control.type=kl_cov", "--out", "runs/x", "--json"],
        ["train", "--json", "clock.yaml", "--out", "runs/x", "steps=3", "control.type=kl_cov"],
        ["train", "--out=runs/x", "clock.yaml", "steps=3", "--json", "control.type=kl_cov"],
    ],
)
def test_settings_may_stand_anywhere(words: list[str]) -> None:
    command = parse(words)
    assert isinstance(command, Train)
    assert command.settings == ("steps=3", "control.type=kl_cov")
    assert (command.config, command.folder, command.json) == (Path("clock.yaml"), Path("runs/x"), True)


@pytest.mark.parametrize("flag", ["--json", "--group-advantages", "--group_advantages"])
def test_a_flag_takes_no_word_with_it(flag: str) -> None:
    command = parse(["measure", flag, "dump.jsonl"])
    assert isinstance(command, Measure)
    assert command.dump == Path("dump.jsonl")
    assert command.json is (flag == "--json")
    assert command.group_advantages is (flag != "--json")


@hypothesis.given(
    st.lists(
        st.sampled_from([["a=1"], ["b.c=-2"], ["--json"], ["--out", "d"], ["--out=d"]]), max_size=6, unique_by=tuple
    )
)
def test_reordering_keeps_words_and_their_order(groups: list[list[str]]) -> None:
    words = [word for group in groups for word in group]
    ordered = positionals_first(words)
    assert sorted(ordered) == sorted(words)
    assert [word for word in ordered if word in ("a=1", "b.c=-2")] == [
        word for word in words if word in ("a=1", "b.c=-2")
    ]
    assert positionals_first(ordered) == ordered
    if "--out" in words:
        assert ordered[ordered.index("--out") + 1] == "d"
