"""Rollouts with their tokens, packed for the page: columns of numbers as bytes, compressed, drawn only when looked at.

Numbers are float32 with 13 bits of mantissa, four digits, and stored byte plane by byte plane, which compresses far
better than digits do. What is missing is NaN.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covent.store.reader import Run
from covent.store.schema import SampleRow
from covent.visible import visible

MOST_TOKENS = 100_000
"""Tokens that a page holds at most; with more, whole rollouts are left out, evenly, and the page says so."""

NUMBERS = ("logprobs", "entropies", "covariances", "old_logprobs", "after_logprobs", "after_entropies")
"""Columns of numbers, as samples name them."""

_KEPT_BITS = np.uint32(0xFFFFFC00)
_HALF = np.uint32(0x200)
_SELECTED, _CUT = 1, 2


@dataclass(frozen=True)
class Packed:
    """All rollouts of a page."""

    data: str
    """Base64 of the compressed columns; empty without rollouts."""
    num_rollouts: int
    num_left_out: int
    num_tokens: int


def packed_rollouts(runs: Sequence[Run], most_tokens: int = MOST_TOKENS) -> Packed:
    """The rollouts of all runs in one piece.

    Args:
        runs: in the order of the page.
        most_tokens: rollouts are left out, evenly over the steps, until no more tokens are left than that.
    """
    rows = [(place, row) for place, run in enumerate(runs) for row in run.samples if row.tokens]
    kept = _thinned(rows, most_tokens)
    if not kept:
        return Packed("", 0, len(rows), 0)
    strings: dict[str, int] = {}

    def known(text: str) -> int:
        return strings.setdefault(visible(text), len(strings))

    columns = _columns([row for _, row in kept], known)
    lengths = [len(row.tokens) for _, row in kept]
    rollouts = {
        "run": [place for place, _ in kept],
        "step": [row.step for _, row in kept],
        "update": [row.update for _, row in kept],
        "group": [row.group for _, row in kept],
        "sample": [row.sample for _, row in kept],
        "reward": [row.reward for _, row in kept],
        "advantage": [row.advantage for _, row in kept],
        "verdict": [known(row.verdict) for _, row in kept],
        "prompt": [known(row.prompt) for _, row in kept],
        "answer": [known(row.answer) for _, row in kept],
        "disagreement": [disagreement(row) for _, row in kept],
        "filtered": [int(row.covariances is None) for _, row in kept],
        "length": lengths,
    }
    header = {
        "rollouts": rollouts,
        "strings": list(strings),
        "columns": [{"name": name, "kind": array.dtype.name, "size": array.size} for name, array in columns.items()],
        "num_alternatives": _num_alternatives([row for _, row in kept]),
    }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":"), allow_nan=False).encode()
    body = b"".join(_planes(array) for array in columns.values())
    whole = len(text).to_bytes(4, "little") + text + body
    return Packed(
        compressed(whole),
        len(kept),
        len(rows) - len(kept),
        sum(lengths),
    )


def compressed(data: bytes) -> str:
    """Bytes as text of the page, which its script inflates."""
    return base64.b64encode(zlib.compress(data, 9)).decode()


def disagreement(row: SampleRow) -> float | None:
    """Share of the other judged responses of its group with another reward: 1 for the only right or only wrong one."""
    if row.group_rewards is None or len(row.group_rewards) < 2:
        return None
    return sum(reward != row.reward for reward in row.group_rewards) / (len(row.group_rewards) - 1)


def four_digits(values: Iterable[float]) -> NDArray[np.float32]:
    """The values as the page holds them: float32, rounded to 13 bits of mantissa.

    Example:
        >>> four_digits([0.1]).tolist()
        [0.09999847412109375]
    """
    bits = np.array(list(values), dtype=np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        rounded = np.where(np.isnan(bits.view(np.float32)), bits, (bits + _HALF) & _KEPT_BITS)
    return rounded.astype(np.uint32).view(np.float32)


def _thinned(rows: list[tuple[int, SampleRow]], most_tokens: int) -> list[tuple[int, SampleRow]]:
    """Every n-th rollout, with the smallest n that leaves few enough tokens."""
    for every in range(1, len(rows) + 1):
        kept = rows[::every]
        if sum(len(row.tokens) for _, row in kept) <= most_tokens:
            return kept
    return []


def _columns(rows: Sequence[SampleRow], known: Callable[[str], int]) -> dict[str, NDArray[np.generic]]:
    num = _num_alternatives(rows)
    found: dict[str, NDArray[np.generic]] = {
        "token": np.array([known(token) for row in rows for token in row.tokens], dtype=np.uint32),
        "flags": np.array([flag for row in rows for flag in _flags(row)], dtype=np.uint8),
    }
    for name in NUMBERS:
        if any(getattr(row, name) is not None for row in rows):
            found[name] = four_digits(value for row in rows for value in _or_missing(row, getattr(row, name)))
    if num:
        ids, shares = [], []
        for row in rows:
            for place in range(len(row.tokens)):
                each = [] if row.alternatives is None else row.alternatives[place][:num]
                ids += [known(token) for token, _ in each] + [known("")] * (num - len(each))
                shares += [_share(logprob) for _, logprob in each] + [0] * (num - len(each))
        found["alternative"] = np.array(ids, dtype=np.uint32)
        found["share"] = np.array(shares, dtype=np.uint16)
    return found


def _flags(row: SampleRow) -> list[int]:
    nothing = [False] * len(row.tokens)
    columns = zip(row.selected or nothing, row.cut or nothing, strict=True)
    return [_SELECTED * selected + _CUT * cut for selected, cut in columns]


def _or_missing(row: SampleRow, values: list[float] | None) -> list[float]:
    return [float("nan")] * len(row.tokens) if values is None else values


def _share(logprob: float) -> int:
    """A probability in 65535ths."""
    return round(65535 * float(np.exp(min(logprob, 0.0))))


def _num_alternatives(rows: Sequence[SampleRow]) -> int:
    return max((len(each) for row in rows for each in row.alternatives or []), default=0)


def _planes(array: NDArray[np.generic]) -> bytes:
    """The bytes of little-endian values, all first bytes before all second ones."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return little.view(np.uint8).reshape(array.size, array.dtype.itemsize).T.tobytes()
