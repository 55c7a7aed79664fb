"""`covent lint` as a user meets it: exit codes, the JSON line, and what the terminal shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from covent.cli.main import main

DATA = Path(__file__).parents[1] / "lint" / "data"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([str(DATA / "paper_7b_kl_cov.yaml")], 0),
        ([str(DATA / "paper_7b_kl_cov.yaml"), "actor_rollout_ref.actor.entropy_coeff=0.05"], 3),
        ([str(DATA / "dapo_7b_kl_cov_may_2025.sh")], 4),
        (["trainer.algorithm.policy_loss_type=kl_cov", "trainer.algorithm.kl_cov.ppo_kl_coef=1"], 4),
        (["nowhere.yaml"], 2),
        ([], 2),
        ([str(DATA / "paper_7b_kl_cov.yaml"), "--ranks", "0"], 2),
        ([str(DATA / "paper_7b_kl_cov.yaml"), "--engine", "trl"], 2),
    ],
)
def test_the_exit_code_says_how_bad_it_is(words: list[str], code: int) -> None:
    assert main(["lint", *words]) == code


def test_json_has_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(DATA / "skyrl_run_kl_cov.sh"), "--json"]) == 4
    printed = capsys.readouterr()
    facts = json.loads(printed.out)
    assert (facts["command"], facts["exit_code"], facts["engine"], facts["share_frac"]) == ("lint", 4, "skyrl", 0.2)
    assert facts["counts"]["taken"] == 1638
    errors = {each["rule"] for each in facts["findings"] if each["level"] == "error"}
    assert errors == {"share", "kl-coefficient"}
    assert all(each["reason"] and each["source"] and each["setting"] for each in facts["findings"])
    assert "20 % of the tokens" in printed.err


@pytest.mark.parametrize("share", ["0", "-0.1", "1e308"])
def test_json_of_a_share_that_no_share_is(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    loss = "actor_rollout_ref.actor.policy_loss"
    words = [f"{loss}.loss_mode=kl_cov", f"{loss}.kl_cov_ratio={share}"]
    assert main(["lint", str(DATA / "paper_7b_kl_cov.yaml"), *words, "--json"]) == 4
    facts = json.loads(capsys.readouterr().out)
    assert (facts["exit_code"], facts["counts"]["realised"]) == (4, 0.0 if share == "1e308" else None)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_line_is_wider_than_the_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    main(["lint", str(DATA / "recipe_32b_clip_cov.sh")])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    assert "\x1b" not in printed
    assert re.search(r"^3 errors, 1 warning, \d notes\.$", printed, flags=re.MULTILINE)
    words = " ".join(printed.split())
    assert "set actor_rollout_ref.actor.policy_loss.clip_cov_ratio, if that was meant" in words or columns == 60


def test_the_gravest_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    main(["lint", str(DATA / "skyrl_clip_cov_defaults.yaml")])
    levels = re.findall(r"^(error|warning|info) ", capsys.readouterr().out, flags=re.MULTILINE)
    assert levels == sorted(levels, key=["error", "warning", "info"].index) and len(set(levels)) == 3


def test_a_config_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.yaml"
    path.write_text('actor_rollout_ref: {actor: {policy_loss: {loss_mode: "\\e[31mkl[bold]_cov"}}}\n', encoding="utf-8")
    main(["lint", str(path)])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and r"\x1b[31mkl[bold]_cov" in printed
