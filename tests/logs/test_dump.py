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


def tokens(**columns: Callable[[int, int], Any]) -> list[Row]:
    """Four responses of three tokens, one token a line, with these columns, each a function of (response, token)."""
    return [
        {"logprob": -0.1 * (n + 1) - t, "advantage": 1.0 - n, **{name: of(n, t) for name, of in columns.items()}}
        for n in range(4)
        for t in range(3)
    ]


@pytest.mark.parametrize(
    "columns",
    [
        {"sequence": lambda n, _: n},
        {"sequence": lambda n, _: n % 2, "group": lambda n, _: n // 2},
        {"sequence": lambda n, _: 0, "prompt": lambda n, _: f"problem {n}"},
    ],
    ids=["through", "anew for each prompt", "one a prompt"],
)
def test_a_response_is_its_step_its_prompt_and_its_sequence(
    columns: dict[str, Callable[[int, int], Any]], tmp_path: Path
) -> None:
    rows = tokens(**columns)
    batch = one(json_lines(tmp_path / "tokens.jsonl", rows))
    assert batch.sequence.tolist() == [n for n in range(4) for _ in range(3)]
    assert batch.notes == ["The dump has no entropy."]
    steps = read_dump(
        json_lines(tmp_path / "steps.jsonl", [{**row, "sequence": 0, "step": i // 3} for i, row in enumerate(rows)])
    )
    assert [(step.step, step.num_sequences, len(step)) for step in steps] == [(n, 1, 3) for n in range(4)]


def test_shuffled_tokens_come_together_where_their_prompt_is_named_and_are_refused_where_not(tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(12).tolist()
    named = tokens(sequence=lambda n, _: n % 2, group=lambda n, _: n // 2)
    batch = one(json_lines(tmp_path / "named.jsonl", [named[i] for i in order]))
    assert (batch.num_sequences, np.unique(batch.group).size) == (4, 2)
    assert any("order of the file" in note for note in batch.notes)
    placed = tokens(sequence=lambda n, _: n % 2, group=lambda n, _: n // 2, position=lambda _, t: t)
    sorted_again = one(json_lines(tmp_path / "placed.jsonl", [placed[i] for i in order]))
    assert not any("order of the file" in note for note in sorted_again.notes)
    first = sorted_again.logprob[sorted_again.sequence == 0]
    assert first.tolist() == sorted(first.tolist(), reverse=True)
    unnamed = tokens(sequence=lambda n, _: n)
    with pytest.raises(LogError, match="goes on after another one"):
        read_dump(json_lines(tmp_path / "unnamed.jsonl", [unnamed[i] for i in order]))


def test_tokens_without_a_response_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match=r"tokens.jsonl:1 is one token and does not say of which response"):
        read_dump(json_lines(tmp_path / "tokens.jsonl", tokens()))


ODD: list[tuple[Callable[[Row], Row], str]] = [
    (lambda row: {**row, "loss_masks": ["0"] * len(row["log_probs"])}, r"dump.jsonl:2: mask holds '0'"),
    (lambda row: {**row, "loss_masks": [0.5] * len(row["log_probs"])}, r"dump.jsonl:2: mask holds 0.5"),
    (lambda row: {**row, "loss_masks": [None] * len(row["log_probs"])}, r"dump.jsonl:2: mask holds None"),
    (changed(loss_masks=0), r"dump.jsonl:2: mask is 0"),
    (without("log_probs"), r"dump.jsonl:2 has its log-probabilities in 'rollout_log_probs'"),
    (changed(rollout_id=3.5), r"dump.jsonl:2: step is 3.5"),
    (changed(rollout_id="last"), r"dump.jsonl:2: step is 'last'"),
    (changed(rollout_id=float("nan")), r"dump.jsonl:2: step is nan"),
    (changed(rollout_id=float("inf")), r"dump.jsonl:2: step is inf"),
    (changed(advantages=10**400), r"dump.jsonl:2: advantage\[0\] is inf"),
    (changed(advantages=1e300), r"dump.jsonl:2: advantage\[0\] is 1e\+300"),
    (lambda row: {**row, "log_probs": [-(10**400), *row["log_probs"][1:]]}, r"dump.jsonl:2: logprob\[0\]"),
    (lambda row: {**row, "log_probs": [-1e300, *row["log_probs"][1:]]}, r"dump.jsonl:2: logprob\[0\] is -1e\+300"),
]


@pytest.mark.parametrize(("change", "message"), ODD)
def test_what_could_mean_two_things_is_refused(change: Callable[[Row], Row], message: str, tmp_path: Path) -> None:
    rows = slime_rows()
    assert len(one(json_lines(tmp_path / "right.jsonl", rows))) > 0
    rows[1] = change(rows[1])
    with pytest.raises(LogError, match=message):
        read_dump(json_lines(tmp_path / "dump.jsonl", rows))


def test_a_step_may_be_written_as_a_word(tmp_path: Path) -> None:
    rows = [{**row, "rollout_id": "7"} for row in slime_rows()]
    assert one(json_lines(tmp_path / "dump.jsonl", rows)).step == 7


def test_what_only_some_responses_have_is_not_used_and_said(tmp_path: Path) -> None:
    rows = slime_rows()
    assert one(json_lines(tmp_path / "all.jsonl", rows)).old_logprob is not None
    for column in ("entropy", "rollout_log_probs"):
        del rows[1][column]
    batch = one(json_lines(tmp_path / "some.jsonl", rows))
    assert (batch.entropy, batch.old_logprob) == (None, None)
    some = f"Only {len(rows) - 1} of {len(rows)} responses"
    assert [note.startswith(some) for note in batch.notes] == [True, True]


def test_advantages_of_groups_need_the_prompt(tmp_path: Path) -> None:
    rows = [{"logprobs": [-0.1], "reward": float(n)} for n in range(4)]
    with pytest.raises(LogError, match=r"dump.jsonl:1 names no prompt"):
        read_dump(json_lines(tmp_path / "dump.jsonl", rows), group_advantages=True)
