"""The packed rollouts, taken apart here by another route than the page's, against the rows of the run."""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
import pytest

from covent.report.tokens import NUMBERS, disagreement, four_digits, packed_rollouts
from covent.store.reader import Run

FOUR_DIGITS = 2.0**-14 * (1 + 2.0**-9)
"""Relative: 13 stored bits of mantissa, rounded; and the rounding to float32 before that."""


class Unpacked(NamedTuple):
    header: dict[str, Any]
    columns: dict[str, list[float]]


def unpacked(data: str) -> Unpacked:
    """Byte by byte, with `struct`."""
    whole = zlib.decompress(base64.b64decode(data))
    (length,) = struct.unpack("<I", whole[:4])
    header, at = json.loads(whole[4 : 4 + length]), 4 + length
    columns = {}
    for column in header["columns"]:
        form = {"uint8": "B", "uint16": "H", "uint32": "I", "float32": "f"}[column["kind"]]
        width, size = struct.calcsize(f"<{form}"), column["size"]
        planes = [whole[at + plane * size : at + (plane + 1) * size] for plane in range(width)]
        values = [struct.unpack(f"<{form}", bytes(part))[0] for part in zip(*planes, strict=True)]
        columns[column["name"]], at = values, at + width * size
    assert at == len(whole)
    return Unpacked(header, columns)


def test_every_number_and_token_of_every_rollout_comes_back(runs: dict[str, Run]) -> None:
    shown = list(runs.values())
    header, columns = unpacked(packed_rollouts(shown).data)
    rows = [(place, row) for place, run in enumerate(shown) for row in run.samples]
    strings, rollouts, at, num = header["strings"], header["rollouts"], 0, header["num_alternatives"]
    assert len(rollouts["run"]) == len(rows) and num == 2
    for place, (run, row) in enumerate(rows):
        assert (rollouts["run"][place], rollouts["step"][place], rollouts["reward"][place]) == (
            run,
            row.step,
            row.reward,
        )
        assert strings[rollouts["prompt"][place]] == row.prompt and strings[rollouts["verdict"][place]] == row.verdict
        here = slice(at, at + len(row.tokens))
        assert [strings[int(token)] for token in columns["token"][here]] == row.tokens
        for name in NUMBERS:
            truth, found = getattr(row, name), columns[name][here]
            if truth is None:
                assert all(math.isnan(value) for value in found)
            else:
                assert found == pytest.approx(truth, rel=FOUR_DIGITS)
                assert len(row.tokens) < 5 or found[::-1] != pytest.approx(truth, rel=FOUR_DIGITS)
        flags = [2 * cut + chosen for cut, chosen in zip(row.cut or [0] * 18, row.selected or [0] * 18, strict=True)]
        assert columns["flags"][here] == flags
        if row.alternatives is not None:
            told = [text for each in row.alternatives for text, _ in each]
            assert [strings[int(i)] for i in columns["alternative"][num * at : num * here.stop]] == told
            shares = [value / 65535 for value in columns["share"][num * at : num * here.stop]]
            assert shares == pytest.approx([math.exp(v) for each in row.alternatives for _, v in each], abs=1 / 65535)
        at = here.stop


def test_too_many_tokens_leave_whole_rollouts_out_and_are_counted(runs: dict[str, Run]) -> None:
    shown = list(runs.values())
    whole = packed_rollouts(shown)
    half = packed_rollouts(shown, most_tokens=whole.num_tokens // 2)
    assert half.num_tokens <= whole.num_tokens // 2 and half.num_rollouts + half.num_left_out == whole.num_rollouts
    assert {row for row in unpacked(half.data).header["rollouts"]["run"]} == {0, 1, 2}
    assert packed_rollouts([]).data == "" and packed_rollouts(shown, most_tokens=1).num_rollouts == 0


def test_disagreement_is_highest_for_the_only_right_answer(runs: dict[str, Run]) -> None:
    row = next(row for row in runs["grpo"].samples if row.group_rewards)
    alone = row.model_copy(update={"reward": 1.0, "group_rewards": [0.0, 1.0, 0.0, 0.0]})
    assert disagreement(alone) == 1.0
    assert disagreement(alone.model_copy(update={"reward": 0.0})) == pytest.approx(1 / 3)
    assert disagreement(alone.model_copy(update={"group_rewards": None})) is None


def test_four_digits_round_and_keep_what_is_no_number() -> None:
    values = np.random.default_rng(0).normal(0, 3, 1000) ** 5
    found = four_digits([*values, 0.0, float("nan"), -1e-30])
    assert found[:1000].tolist() == pytest.approx(values.tolist(), rel=FOUR_DIGITS)
    assert found[1000] == 0 and math.isnan(found[1001]) and found[1002] < 0
    cut = (values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFFC00)).view(np.float32)
    assert cut.tolist() != pytest.approx(values.tolist(), rel=FOUR_DIGITS), "cutting instead of rounding loses a bit"
