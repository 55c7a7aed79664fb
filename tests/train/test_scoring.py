"""`covent train` and `covent eval` with a model folder: rows of verl and TRL, math-verify, scores by another route."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml

from covent import stopping
from covent.cli.main import main
from covent.store.estimates import pass_at_k
from covent.store.reader import read_run
from covent.tasks import Answer, DataTask, Verdict, make_task
from covent.train.config import ModelSettings
from covent.train.model import load_model
from tests.support.local_model import model_folder
from tests.support.small_model import TASK
from tests.support.tolerances import FLOAT32
from tests.tasks.test_data import json_lines, trl_row, verl_row

SEVEN = [f"{number} - {number} + 7" for number in range(60)]
SHORT = "max_response_tokens=4"


def verl_rows(prompts: list[str]) -> list[dict[str, Any]]:
    """Rows of two sources, with 7 as the answer to all of them."""
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    truth = {"reward_model": {"style": "rule", "ground_truth": "7"}}
    return [
        {**verl_row(number), **truth, "data_source": "odd" if number % 3 else "even", "prompt": chat}
        for number, chat in enumerate(chats)
    ]


def trl_rows(prompts: list[str]) -> list[dict[str, Any]]:
    return [{**trl_row(number), "prompt": prompt, "solution": "$7$"} for number, prompt in enumerate(prompts)]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the data extra")
    table = pytest.importorskip("pyarrow.parquet")
    table.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def answer_loss(folder: Path, task: DataTask) -> float:
    """Mean of -log P(right) over problems, nats: all responses of one token, judged one by one."""
    model = load_model(ModelSettings(path=str(folder)), TASK, seed=0, dtype=torch.float64, device="cpu")
    losses = []
    for problem in list(task.problems())[:4]:
        with torch.no_grad():
            logits = model.network(torch.tensor([model.encode_problem(problem)])).logits[0, -1]
        texts = [model.decode([token]) for token in range(len(logits))]
        verdicts = [judgement.verdict for judgement in task.judge([Answer(problem, text) for text in texts])]
        right = torch.tensor([verdict is Verdict.RIGHT for verdict in verdicts])
        losses.append(-float(logits.log_softmax(dim=0)[right].logsumexp(dim=0)))
    return fmean(losses)


@pytest.mark.parametrize("form", ["verl, Parquet", "TRL, JSON Lines"])
def test_a_model_folder_learns_its_rows_and_is_scored(
    form: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Overfitting: with math-verify as the judge, the loss of right answers falls, and avg@8 rises from 0 to 1."""
    pytest.importorskip("math_verify", reason="needs the math extra")
    if form.startswith("verl"):
        train, held_out = (
            parquet(tmp_path / f"{name}.parquet", verl_rows(rows))
            for name, rows in (("train", SEVEN[:40]), ("held-out", SEVEN[40:]))
        )
    else:
        train, held_out = (
            json_lines(tmp_path / f"{name}.jsonl", trl_rows(rows))
            for name, rows in (("train", SEVEN[:40]), ("held-out", SEVEN[40:]))
        )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(overfitting(train, held_out, model)))
    run, data = tmp_path / "run", ["task.verifier=math", "task.marked=false", "max_response_tokens=1"]
    assert main(["eval", str(model), str(held_out), *data, "--json"]) == 0
    before = facts(capsys)["scores"]
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert main(["eval", str(run), str(held_out), *data, "--json"]) == 0
    after = facts(capsys)["scores"]
    pools = [found["sample_weighted"]["avg"]["value"] for found in (before, after)]
    assert pools[0] < 0.1 and pools[1] > 0.9
    assert after["sources"][0]["maj"] is None, "an answer that is not marked has no vote"
    assert [each["source"] for each in after["sources"]] == (["even", "odd"] if form.startswith("verl") else [""])
    task = make_task(read_settings(run), 0, for_training=False)
    assert isinstance(task, DataTask)
    assert answer_loss(run / "model", task) < 0.1 < 4 < answer_loss(model, task)
    task.close()
    steps = read_run(run).steps
    assert all((step.sampler_gap is None) == (step.num_kept_groups == 0) for step in steps)
    gaps = [step.sampler_gap for step in steps if step.sampler_gap is not None]
    assert gaps and max(gaps) < FLOAT32


def read_settings(run: Path) -> Any:
    from covent.train.config_file import load_config

    return load_config(run / "config.yaml", []).task


def overfitting(train: Path, held_out: Path, model: Path) -> dict[str, Any]:
    return {
        "steps": 16,
        "task": {
            "name": "data",
            "path": str(train),
            "validation_path": str(held_out),
            "verifier": "math",
            "marked": False,
        },
        "model": {"path": str(model)},
        "warm_start": {"steps": 0},
        "rollout": {"prompts_per_step": 8, "samples_per_prompt": 32, "max_response_tokens": 1},
        "optimizer": {"lr": 0.03, "updates_per_rollout": 1, "tokens_per_micro_batch": 2000},
        "evaluation": {"every": 10, "validation_problems": 8, "validation_samples": 2, "test_problems": 0},
        "checkpoint": {"every": 0},
        "probe_prompts": 0,
    }


class Scripted:
    """In place of sampling: texts that are right in some samples, so that every score is between 0 and 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts = [r"\boxed{7}", r"\boxed{7.0}", r"\boxed{8}", "seven", r"\boxed{\frac{14}{2}}", r"\boxed{9}"]
        monkeypatch.setattr("covent.train.rollouts.LanguageModel.decode_all", self.decode_all)
        self._number = 0

    def decode_all(self, model: Any, responses: Any = None) -> list[str]:
        found = []
        for _ in range(len((responses if responses is not None else model).mask)):
            self._number += 1
            found.append(self.texts[(self._number**2 // 3) % len(self.texts)])
        return found


def test_scores_are_those_of_plain_loops_over_the_responses(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch)
    data = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN[:20]))
    out = tmp_path / "responses.jsonl"
    words = [str(model), str(data), SHORT, "samples_per_prompt=6", "responses_per_forward=13", "--out", str(out)]
    assert main(["eval", *words, "--json"]) == 0
    found = facts(capsys)["scores"]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 120 == found["num_responses"]
    by_problem: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        by_problem.setdefault((row["source"], row["place"]), []).append(row["response"])
    right = {r"\boxed{7}", r"\boxed{7.0}", r"\boxed{\frac{14}{2}}"}
    averages, majorities, passes = {}, {}, {}
    for name in ("even", "odd"):
        groups = [texts for (source, _), texts in by_problem.items() if source == name]
        counts = [sum(text in right for text in texts) for texts in groups]
        averages[name] = fmean(count / 6 for count in counts)
        passes[name] = fmean(pass_at_k(6, count, 4) for count in counts)
        majorities[name] = fmean(vote(texts, right) for texts in groups)
    for each in found["sources"]:
        assert each["avg"]["value"] == pytest.approx(averages[each["source"]])
        assert each["maj"]["value"] == pytest.approx(majorities[each["source"]])
        assert each["pass_at"]["4"]["value"] == pytest.approx(passes[each["source"]])
        assert 0 < each["avg"]["low"] < each["avg"]["value"] < each["avg"]["high"] < 1
        # The negative control: the scores are three different numbers.
        assert len({round(each[kind]["value"], 6) for kind in ("avg", "maj")}) == 2
    assert found["sample_weighted"]["avg"]["value"] == pytest.approx((7 * averages["even"] + 13 * averages["odd"]) / 20)
    assert found["plain_mean"]["avg"]["value"] == pytest.approx(fmean(averages.values()))


def vote(texts: list[str], right: set[str]) -> float:
    names = Counter("7" if text in right else text for text in texts if "boxed" in text)
    most = [name for name, count in names.items() if count == max(names.values())]
    return sum(name == "7" for name in most) / len(most) if most else 0.0


def test_the_table_is_for_people(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Scripted(monkeypatch)
    data = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN[:9]))
    own = ["by_source.even.samples_per_prompt=1", "by_source.even.temperature=0"]
    assert main(["eval", str(model), str(data), SHORT, "samples_per_prompt=4", *own]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if line[:4] in ("sour", "even", "odd ", "mean")]
    assert [row[:3] for row in table] == [
        ["source", "problems", "k"],
        ["even", "3", "greedy"],
        ["odd", "6", "4"],
        ["mean", "over", "samples"],
        ["mean", "over", "sources"],
    ]
    assert max(len(line) for line in lines if line[:4] in ("sour", "even", "odd ", "mean")) <= 80
    assert table[3][-1] == "–", "pass@1 of one source and pass@4 of another have no mean"
    assert any(line.startswith("27 responses: ") for line in lines)
    assert any(line.startswith("entropy ") and "exact" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["temperature=0"], "samples_per_prompt=1"),
        (["by_source.evn.samples_per_prompt=2"], "Did you mean 'even'?"),
        (["samples_per_promt=2"], "Did you mean 'samples_per_prompt'?"),
        (["max_response_tokens=1000"], "leave no room"),
        (["task.answer_key=nothing"], "rows cannot be used"),
        (["temperature=-1"], "temperature"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_ends_with_2(
    words: list[str], said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN[:9]))
    lengths = [] if any("max_response" in word for word in words) else [SHORT]
    assert main(["eval", str(model), str(data), *lengths, *words]) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1


def test_what_is_missing_is_said(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN[:3]))
    assert main(["eval", str(tmp_path / "no"), str(data), SHORT]) == 2
    assert main(["eval", str(model), str(tmp_path / "no.jsonl"), SHORT]) == 2
    out = tmp_path / "out.jsonl"
    out.write_text("mine\n")
    assert main(["eval", str(model), str(data), SHORT, "--out", str(out)]) == 2
    assert out.read_text() == "mine\n"
    assert capsys.readouterr().err.count("error: ") == 3


def test_ctrl_c_ends_it_and_keeps_what_was_judged(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out, seen = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN)), tmp_path / "out.jsonl", []
    poll = stopping.poll

    def counted() -> None:
        seen.append(1)
        if len(seen) == 30:
            stopping.ask(signal.SIGINT)
        poll()

    monkeypatch.setattr(stopping, "poll", counted)
    words = ["eval", str(model), str(data), SHORT, "responses_per_forward=16", "--out", str(out), "--json"]
    assert main(words) == 130
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["message"] == "interrupted"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert 0 < len(rows) < 480 and len(rows) % 16 == 0
    assert f"holds {len(rows)} responses; those of the batch that was at work are lost" in printed.err


@pytest.mark.parametrize(("allowed", "code"), [(0.01, 1), (0.02, 0)])
def test_what_a_failing_verifier_judged_is_kept(
    allowed: float, code: int, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 errors in 24 responses, which count as 100; the negative control allows them."""
    function, out = tmp_path / "rewards.py", tmp_path / "out.jsonl"
    function.write_text("def two(completions, **columns):\n    return ['text'] * 2 + [1.0] * (len(completions) - 2)\n")
    data = json_lines(tmp_path / "rows.jsonl", trl_rows(SEVEN[:24]))
    own = ["samples_per_prompt=1", f"reward.function={function}:two", f"verifier.max_error_frac={allowed}"]
    assert main(["eval", str(model), str(data), SHORT, *own, "--out", str(out)]) == code
    said = capsys.readouterr().err
    assert ("(2 of the newest 24; verifier.max_error_frac = 0.01 allows 1 of 100)" in said) == bool(code)
    assert "learnt" not in said
    verdicts = Counter(json.loads(line)["verdict"] for line in out.read_text().splitlines())
    assert verdicts == {"error": 2, "right": 22}


def test_the_same_seed_samples_the_same_and_company_does_not_matter(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json_lines(tmp_path / "rows.jsonl", verl_rows(SEVEN[:9]))
    written = []
    for number, words in enumerate(([], ["responses_per_forward=8"], ["max_problems=4"], ["seed=1"])):
        out = tmp_path / f"{number}.jsonl"
        assert main(["eval", str(model), str(data), SHORT, "dtype=float64", *words, "--out", str(out)]) == 0
        written.append(out.read_text().splitlines())
    whole, narrow, first, other = written
    assert sorted(narrow) == sorted(whole)
    assert first == [line for line in whole if int(json.loads(line)["place"].rpartition(":")[2]) <= 4]
    assert other != whole
