"""The scale benchmark counts what it says, and its batch does not depend on the number of ranks."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import scale
from covent.core.keys import token_hash


def test_the_parts_of_any_number_of_ranks_are_one_batch() -> None:
    def tokens(world: int) -> set[tuple[int, float, float]]:
        found = set()
        for rank in range(world):
            part = scale.part_of_batch(rank, world, 16 * scale.LENGTH)
            columns = (token_hash(9, part.identity), part.logprobs, part.advantages)
            found |= set(zip(*(column.flatten().tolist() for column in columns), strict=True))
        return found

    assert len(tokens(1)) == 16 * scale.LENGTH
    assert tokens(1) == tokens(2) == tokens(4)


@pytest.mark.slow
def test_two_processes_choose_what_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "ROUNDS", 1)
    one, two = (scale.measured(world, 400_000) for world in (1, 2))
    for alone, shared in zip(one, two, strict=True):
        assert alone["num_selected"] == shared["num_selected"] > 0
        assert alone["checksum"] == shared["checksum"]
        assert alone["calls"] == alone["bytes_sent"] == 0
        assert shared["calls"] > 0


def test_the_page_shows_the_committed_numbers() -> None:
    found = json.loads(scale.RESULT.read_text(encoding="utf-8"))
    page = scale.PAGE.read_text(encoding="utf-8")
    assert scale.measured_table(found) in page
    assert scale.projected_table(found) in page
    for control in scale.CONTROLS:
        for tokens in scale.TOKENS:
            rows = [row for row in found["rows"] if (row["control"], row["tokens"]) == (control, tokens)]
            assert [row["ranks"] for row in rows] == list(scale.WORLDS)
            assert len({(row["num_selected"], row["checksum"]) for row in rows}) == 1
    # "some tens of kilobytes whatever the number of tokens".
    assert max(row["bytes_sent"] for row in found["rows"]) < 50 * 1024
    assert torch.tensor([row["checksum"] for row in found["rows"]]).unique().numel() == 6
