"""Token dumps of three engines are the same tokens; broken ones are refused with file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covent.errors import MissingPathError
from covent.logs import LogError, TokenBatch, read_dump
from tests.logs.logfiles import GOLDEN, json_lines
from tests.support.tolerances import TIGHT

Row = dict[str, Any]


def one(path: Path, **options: bool) -> TokenBatch:
    """The only step of a dump."""
    (batch,) = read_dump(path, **options)
    return batch


def slime_rows() -> list[Row]:
    """The slime dump, read by nothing but json."""
    return [json.loads(line) for line in (GOLDEN / "dump_slime.jsonl").read_text().splitlines()]


def same(first: TokenBatch, second: TokenBatch, tolerance: float = TIGHT) -> bool:
    """Whether two batches hold the same tokens."""
    return (
        first.logprob.tolist() == second.logprob.tolist()
        and first.advantage.tolist() == pytest.approx(second.advantage.tolist(), abs=tolerance)
        and first.sequence.tolist() == second.sequence.tolist()
    )


def test_prime_rl_without_its_prompts_is_slime() -> None:
    prime, slime = one(GOLDEN / "dump_prime_rl.jsonl"), one(GOLDEN / "dump_slime.jsonl")
    assert same(prime, slime)
    assert prime.step == 7
    assert prime.entropy is not None and slime.entropy is not None
    assert prime.entropy.tolist() == slime.entropy.tolist()
    assert prime.old_logprob is not None and slime.old_logprob is not None
    assert prime.old_logprob.tolist() == slime.old_logprob.tolist()
    assert prime.tokens == slime.tokens, "slime's tokens begin with the prompt"


def test_the_columns_are_those_of_the_lines() -> None:
    batch, rows = one(GOLDEN / "dump_slime.jsonl"), slime_rows()
    assert batch.logprob.tolist() == [value for row in rows for value in row["log_probs"]]
    assert batch.sequence.tolist() == [n for n, row in enumerate(rows) for _ in row["log_probs"]]
    assert batch.position.tolist() == [index for row in rows for index in range(len(row["log_probs"]))]
    assert batch.num_sequences == len(rows)


def test_roll_has_no_advantages_and_they_are_taken_from_rewards_only_when_asked() -> None:
    with pytest.raises(LogError, match=r"dump_roll.jsonl:1 has no advantages.*--group-advantages"):
        read_dump(GOLDEN / "dump_roll.jsonl")
    batch = one(GOLDEN / "dump_roll.jsonl", group_advantages=True)
    # The other dumps were written with six decimals.
    assert same(batch, one(GOLDEN / "dump_slime.jsonl"), tolerance=1e-6)
    assert batch.notes[0].startswith("Advantages were taken from rewards")
    assert np.unique(batch.group).size == 4


def test_an_advantage_that_is_there_is_never_replaced() -> None:
    assert same(one(GOLDEN / "dump_slime.jsonl", group_advantages=True), one(GOLDEN / "dump_slime.jsonl"))


def test_one_token_a_line_is_one_response_a_line(tmp_path: Path) -> None:
    rows = [
        {"sequence": n, "logprob": logprob, "advantage": row["advantages"][0], "entropy": entropy}
        for n, row in enumerate(slime_rows())
        for logprob, entropy in zip(row["log_probs"], row["entropy"], strict=True)
    ]
    batch = one(json_lines(tmp_path / "tokens.jsonl", rows))
    assert same(batch, one(GOLDEN / "dump_slime.jsonl"))
    assert batch.position.tolist() == one(GOLDEN / "dump_slime.jsonl").position.tolist()


def test_a_folder_of_ranks_and_steps(tmp_path: Path) -> None:
    lines = (GOLDEN / "dump_prime_rl.jsonl").read_text().splitlines()
    for step in (7, 8):
        folder = tmp_path / "token_exports" / f"step_{step}"
        folder.mkdir(parents=True)
        for rank in (0, 1):
            part = [
                line.replace('"export_step": 7', f'"export_step": {step}') for line in lines[8 * rank : 8 * rank + 8]
            ]
            (folder / f"rank_{rank}.jsonl").write_text("\n".join(part))
    batches = read_dump(tmp_path / "token_exports")
    assert [batch.step for batch in batches] == [7, 8]
    assert all(same(batch, one(GOLDEN / "dump_prime_rl.jsonl")) for batch in batches)


def test_nan_behind_the_mask_is_inert(tmp_path: Path) -> None:
    rows = slime_rows()
    rows[0]["loss_masks"][0] = 0
    masked = one(json_lines(tmp_path / "a.jsonl", rows))
    rows[0]["log_probs"][0] = None
    assert same(one(json_lines(tmp_path / "b.jsonl", rows)), masked)
    assert len(masked) == len(one(GOLDEN / "dump_slime.jsonl")) - 1


def changed(**columns: Any) -> Callable[[Row], Row]:
    return lambda row: {**row, **columns}


def without(*columns: str) -> Callable[[Row], Row]:
    return lambda row: {key: value for key, value in row.items() if key not in columns}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("log_probs", "rollout_log_probs"), r"dump.jsonl:2 has no log-probabilities"),
        (changed(advantages=[1.0]), r"dump.jsonl:2: advantage has 1 entries and the log-probabilities \d+"),
        (changed(loss_masks=[1, 1]), r"dump.jsonl:2: mask has 2 entries"),
        (changed(log_probs="[-0.1]"), r"dump.jsonl:2: logprob is str"),
        (changed(log_probs=["x", -0.1]), r"dump.jsonl:2: logprob holds 'x'"),
        (lambda row: {**row, "log_probs": [None, *row["log_probs"][1:]]}, r"dump.jsonl:2: logprob\[0\] is None.*mask"),
        (lambda row: {**row, "advantages": [None] * len(row["log_probs"])}, r"dump.jsonl:2: advantage\[0\] is None"),
        (without("advantages"), r"dump.jsonl:2 has no advantages"),
    ],
)
def test_a_broken_line_is_named(change: Callable[[Row], Row], message: str, tmp_path: Path) -> None:
    rows = slime_rows()
    rows[1] = change(rows[1])
    with pytest.raises(LogError, match=message):
        read_dump(json_lines(tmp_path / "dump.jsonl", rows))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no response"),
        ('{"logprobs": [-0.1], "advantages": [1]', r"dump.jsonl:1 is not JSON"),
        ("[1]", r"dump.jsonl:1 is a JSON list"),
        ('{"logprobs": [-0.1], "advantages": [1], "mask": [0]}', "the mask is empty everywhere"),
    ],
)
def test_a_broken_dump_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dump.jsonl").write_text(content)
    with pytest.raises(LogError, match=message):
        read_dump(tmp_path / "dump.jsonl")


def test_rewards_without_a_group_give_no_advantage(tmp_path: Path) -> None:
    alone = [{"logprobs": [-0.1], "reward": 1.0, "prompt": str(n)} for n in range(2)]
    with pytest.raises(LogError, match="only response to its prompt"):
        read_dump(json_lines(tmp_path / "dump.jsonl", alone), group_advantages=True)
    with pytest.raises(LogError, match="neither advantages nor a reward"):
        read_dump(json_lines(tmp_path / "dump.jsonl", [{"logprobs": [-0.1]}]), group_advantages=True)


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    (tmp_path / "train_0.pt").write_bytes(b"anything")
    with pytest.raises(LogError, match=r"pickle, which covent never opens.*json.dumps"):
        read_dump(tmp_path / "train_0.pt")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="does not exist"):
        read_dump(tmp_path / "no.jsonl")
    with pytest.raises(MissingPathError, match=r"no .jsonl file"):
        read_dump(tmp_path)
