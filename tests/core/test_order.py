"""The first k of a lexicographic order against sorted Python tuples, with huge, negative and equal values."""

from __future__ import annotations

import pytest
import torch

from covent.core import order
from covent.core.order import cut, first, first_by_gathering, first_by_histograms
from covent.errors import ShapeError

LOW, HIGH = -(2**63), 2**63 - 1


def columns_of(seed: int, n: int, *, ties: bool) -> list[torch.Tensor]:
    """A key with heavy ties or over the whole range of int64, and a position that tells elements apart."""
    generator = torch.Generator().manual_seed(seed)
    if ties:
        keys = torch.randint(-2, 2, (n,), generator=generator)
    else:
        keys = torch.randint(LOW, HIGH, (n,), generator=generator)
        keys[:2] = torch.tensor([LOW, HIGH])
    return [keys, torch.randperm(n, generator=generator) * 10**12]


def by_sorting(columns: list[torch.Tensor], count: int) -> set[int]:
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    return set(sorted(range(len(rows)), key=rows.__getitem__)[:count])


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 100, 499, 500, 900])
def test_first_by_sorting(ties: bool, count: int) -> None:
    for seed in range(5):
        columns = columns_of(seed, 500, ties=ties)
        found = {int(index) for index in first(columns, count).nonzero()}
        assert found == by_sorting(columns, count)
        backwards = {int(index) for index in first([-1 - column for column in columns], count).nonzero()}
        assert count in (0, 500, 900) or backwards != found


@pytest.mark.parametrize("count", range(1, 6))
def test_negative_numbers_come_before_0(count: int) -> None:
    """The second column runs the other way, so elements whose first columns are confused change places."""
    numbers = torch.arange(3, -4, -1)
    for columns in ([numbers], [numbers, -numbers]):
        assert {int(index) for index in first(columns, count).nonzero()} == by_sorting(columns, count)
    assert by_sorting([numbers], count) != by_sorting([numbers.abs(), numbers], count)


def test_a_tie_that_does_not_fit_is_said_with_its_room() -> None:
    keys = torch.tensor([3, 1, 1, 1, 2])
    found = cut([keys], 2)
    assert (found.before.tolist(), found.room) == ([False] * 5, 2)
    assert found.tied.tolist() == [False, True, True, True, False]
    fits = cut([keys], 3)
    assert (fits.before.tolist(), fits.room) == ([False, True, True, True, False], 0)
    assert not bool(fits.tied.any())


def test_elements_that_cannot_be_told_apart_are_refused_where_it_matters() -> None:
    columns = [torch.tensor([3, 1, 1, 2]), torch.tensor([0, 5, 5, 1])]
    assert first_by_histograms(columns, 2).tolist() == [False, True, True, False]
    with pytest.raises(ShapeError, match="same"):
        first_by_histograms(columns, 1)


def test_nothing_to_choose_from() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert first([nothing], 3).numel() == 0


def gathered_by_hand(parts: list[list[torch.Tensor]], count: int, patch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """What each rank takes, where the exchange is the concatenation of each rank's own first `count`."""
    own = [first_by_histograms(part, count) for part in parts]
    sent = [torch.stack([column[mine] for column in part], dim=1) for part, mine in zip(parts, own, strict=True)]
    patch.setattr(order.ranks, "gathered", lambda rows, limit, group: torch.cat(sent))
    nobody = torch.distributed.ProcessGroup(0, 1)  # the exchange above does not ask it
    return [first_by_gathering(part, count, group=nobody) for part in parts]


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 100, 299, 300, 900])
def test_gathering_is_the_same_as_sorting(ties: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ranks, one of them without an element; `tests/controls/test_splits.py` has real ones."""
    columns = columns_of(3, 300, ties=ties)
    parts = [[column[cut] for column in columns] for cut in (slice(0, 210), slice(210, 210), slice(210, 300))]
    taken = torch.cat(gathered_by_hand(parts, count, monkeypatch))
    assert {int(index) for index in taken.nonzero()} == by_sorting(columns, count)
    each_its_own = torch.cat([first_by_histograms(part, count) for part in parts])
    assert count in (0, 300, 900) or not torch.equal(each_its_own, taken)


def test_gathering_refuses_what_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [[torch.tensor([3, 1]), torch.tensor([0, 5])], [torch.tensor([1, 2]), torch.tensor([5, 1])]]
    assert [taken.tolist() for taken in gathered_by_hand(parts, 2, monkeypatch)] == [[False, True], [True, False]]
    with pytest.raises(ShapeError, match="same"):
        gathered_by_hand(parts, 1, monkeypatch)
