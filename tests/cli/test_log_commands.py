"""The commands on logs: what they print, and the JSON they end with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covent.cli.main import main
from covent.cli.measure import LEGEND
from covent.logs import Choice, all_series, fit_result
from tests.logs.logfiles import json_lines, law_rows
from tests.support.synthetic import write_run
from tests.support.tolerances import TIGHT

GOLDEN = Path(__file__).parents[1] / "logs" / "data"
VERL = str(GOLDEN / "verl_console.log")
TRL = str(GOLDEN / "trl_trainer_state.json")

PROMISED = {
    "a",
    "b",
    "ceiling",
    "ceiling_interval",
    "r2",
    "rmse",
    "n",
    "identified",
    "unit",
    "entropy_definition",
    "warnings",
}
"""What every result has at least."""


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    """The JSON of a call that succeeds, and what it said to people."""
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    return json.loads(printed.out), printed.err


@pytest.mark.parametrize("command", ["fit", "forecast", "explain"])
def test_one_log_gives_the_result_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result, said = call(capsys, command, VERL)
    assert set(result) >= PROMISED
    assert (result["command"], result["n"], result["unit"]) == (command, 6, "fraction")
    (series,) = all_series([Path(VERL)], Choice())
    assert result["a"] == pytest.approx(fit_result(series).a, rel=TIGHT)
    assert "verl_console" in said
    assert "sampling temperature" in said, "warnings are printed too"


@pytest.mark.parametrize("command", ["fit", "forecast", "explain", "compare"])
def test_several_logs_give_runs_and_pooled(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    result, _ = call(capsys, command, VERL, str(GOLDEN / "verl_file_logger.jsonl"))
    assert [set(run) >= PROMISED for run in result["runs"]] == [True, True]
    assert set(result["pooled"]) >= PROMISED
    assert result["pooled"]["n"] == 12
    assert result["pooled"]["a"] == pytest.approx(result["runs"][0]["a"], rel=TIGHT)


def test_logs_of_other_definitions_are_not_pooled(capsys: pytest.CaptureFixture[str]) -> None:
    result, said = call(capsys, "fit", VERL, TRL)
    assert result["pooled"]["a"] is None
    assert "Not pooled" in said


def test_a_table_with_several_runs_is_several_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        f"{m},{h},{100 * (a - 0.3 * np.exp(h))}" for m, a in (("x", 0.9), ("y", 1.1)) for h in np.linspace(0.9, 0.1, 9)
    ]
    (tmp_path / "log.csv").write_text("\n".join(["model,entropy,accuracy", *rows]))
    result, _ = call(capsys, "fit", str(tmp_path / "log.csv"), "--by", "model")
    assert [run["name"] for run in result["runs"]] == ["x", "y"]
    one, _ = call(capsys, "fit", str(tmp_path / "log.csv"), "--by", "model", "--run", "y")
    assert one["ceiling"] == pytest.approx(80.0)
    assert one["unit"] == "percent"


def test_a_forecast_of_the_rest_says_which_prediction_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    result, said = call(capsys, "forecast", VERL, "--until", "0.6")
    assert (result["until"], result["n"]) == (0.6, 3)
    assert set(result["backtest"]) >= {"conditional", "unconditional", "unchanged"}
    assert "Only “forecast” is one" in said
    whole, _ = call(capsys, "forecast", VERL, "--to", "100")
    assert whole["outlook"]["step"] == 100
    assert whole["backtest"] is None


def test_explain_ends_with_advice_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    result, said = call(capsys, "explain", VERL)
    assert f"Advice: {result['advice']} Reason: {result['reason']}" in said
    assert [finding["topic"] for finding in result["findings"]][:3] == ["Entropy", "Accuracy", "The law"]


def test_run_folders_of_covent_are_logs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", "clip_cov", num_steps=60)
    result, said = call(capsys, "explain", str(folder))
    assert result["format"] == "covent run folder"
    assert "under control" in said
    assert "Control:" in said, "only covent's own folders record it"


def test_compare_needs_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", VERL]) == 2
    assert "at least two runs" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "forecast", "explain", "compare"])
def test_without_a_log_the_call_is_wrong(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert f"covent {command} needs at least one log" in capsys.readouterr().err


def test_a_broken_log_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text("step,entropy,accuracy\n1,0.5,0.2\n2,high,0.3\n3,0.4,0.4\n")
    assert main(["fit", str(tmp_path / "log.csv"), "--json"]) == 2
    printed = capsys.readouterr()
    assert "log.csv:3: 'high' in column 'entropy'" in printed.err
    assert json.loads(printed.out)["error"] == "LogError"


def test_a_plot_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covent.logs.figure.find_spec", lambda name: None)
    for target, words in (("law.svg", ".html or .png"), ("law.png", "covent[plots]")):
        assert main(["fit", VERL, "--plot", str(tmp_path / target)]) == 2
        printed = capsys.readouterr()
        assert words in printed.err and printed.out == ""


def test_a_percentage_where_a_share_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", VERL, "--until", "30"]) == 2
    assert "--until is 30" in (said := capsys.readouterr().err) and "Did you mean 0.3?" in said


def test_a_folder_of_runs_names_them_to_paste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write_run(tmp_path / name, name, num_steps=5)) for name in ("clip_cov", "grpo")]
    for command in ("explain", "fit", "report"):
        assert main([command, str(tmp_path)]) == 2
        assert " ".join(paths) in capsys.readouterr().err


def test_measure_takes_the_samples_of_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", "clip_cov", num_steps=5)
    result, said = call(capsys, "measure", str(folder), "--step", "0")
    assert result["num_sequences"] == 3
    assert "samples.jsonl was read" in said
    (folder / "samples.jsonl").unlink()
    assert main(["measure", str(folder)]) == 2
    assert "samples_kept=0" in capsys.readouterr().err


def test_what_is_said_of_the_law_is_not_repeated_as_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_run(tmp_path / "run", "clip_cov"))
    for command in ("fit", "explain"):
        assert main([command, folder]) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count("Entropy was under control") == 1


def test_a_plot_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(capsys, "fit", VERL, "--plot", str(tmp_path / "law.html"))
    assert (tmp_path / "law.html").stat().st_size > 1_000_000, (
        "the script lies inside, so that it opens with no network"
    )


def test_measure(capsys: pytest.CaptureFixture[str]) -> None:
    result, said = call(
        capsys, "measure", str(GOLDEN / "dump_prime_rl.jsonl"), "--micro", "1,4", "--kl-cov-ratio", "0.1"
    )
    assert (result["step"], result["num_sequences"]) == (7, 16)
    assert [choice["control"] for choice in result["controls"]] == ["kl_cov", "clip_cov", "clip_cov", "clip_cov"]
    assert "micro 16" in said, "the whole step is always tried"


def test_measure_of_several_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (GOLDEN / "dump_prime_rl.jsonl").read_text()
    (tmp_path / "dump.jsonl").write_text(text + text.replace('"export_step": 7', '"export_step": 8'))
    result, _ = call(capsys, "measure", str(tmp_path / "dump.jsonl"))
    assert [step["step"] for step in result["steps"]] == [7, 8]
    one, _ = call(capsys, "measure", str(tmp_path / "dump.jsonl"), "--step", "8")
    assert one["covariance"] == result["steps"][1]["covariance"]
    assert main(["measure", str(tmp_path / "dump.jsonl"), "--step", "9"]) == 2
    assert "has no step 9" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--micro", "1;4"), ("--kl-cov-ratio", "0.2%")])
def test_measure_refuses_what_is_no_list_of_numbers(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["measure", str(GOLDEN / "dump_slime.jsonl"), option, value]) == 2
    assert "separated by commas" in capsys.readouterr().err


def test_advantages_from_rewards_must_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    dump = str(GOLDEN / "dump_roll.jsonl")
    assert main(["measure", dump]) == 2
    assert "--group-advantages" in capsys.readouterr().err
    result, _ = call(capsys, "measure", "--group-advantages", dump)
    assert result["num_groups"] == 4


_TORCHLESS = """
import sys
from covent.cli.main import main
from covent.cli.measure import LEGEND
code = main(sys.argv[1:])
heavy = {"torch", "transformers", "scipy", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else code)
"""


@pytest.mark.parametrize("words", [("explain", VERL), ("measure", str(GOLDEN / "dump_slime.jsonl"))])
def test_no_command_on_logs_imports_torch(words: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-c", _TORCHLESS, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_one_point_that_is_set_aside_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = law_rows(60, every=4)
    for steps, words in (((20,), "the point at step 20 aside"), ((20, 40), "the points at steps 20, 40 aside")):
        told = [{**row, "accuracy": 0.05} if row["step"] in steps else row for row in rows]
        assert main(["fit", str(json_lines(tmp_path / "log.jsonl", told))]) == 0
        assert words in capsys.readouterr().out


def test_measure_explains_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["measure", str(GOLDEN / "dump_prime_rl.jsonl"), "--micro", "1,4"]) == 0
    shown = capsys.readouterr().out
    head = next(line for line in shown.splitlines() if line.startswith("control "))
    table, legend = shown.split("\n\n")[0], "\n".join(LEGEND)
    assert legend in shown
    names = head.split()
    assert names[:7] == ["control", "ratio", "asked", "eligible", "selected", "micro", "1"]
    assert all(f"{name}:" in legend for name in ("ratio", "asked", "eligible", "selected", "micro n"))
    for row in ("entropy", "−mean log-prob", "Cov(log π, A)", "p50", "mean of top"):
        assert row in table and row in legend
