"""Dumps with one token a line: the lines of a response put together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from covent.logs.dump_columns import NAMES, column, column_name
from covent.logs.rows import LogError

Token = tuple[str, Mapping[str, object]]
"""One line: its place, and what it holds."""


def responses_of(tokens: Sequence[Token], notes: list[str]) -> Iterator[list[Token]]:
    """Lines of one token each, by response: those of one step, prompt and sequence.

    Raises:
        LogError: the lines do not say which response a token belongs to.
    """
    found: dict[str, list[Token]] = {}
    last = None
    scattered = None
    for where, row in tokens:
        sequence = column(row, "sequence")
        if sequence is None and len(tokens) > 1:
            raise LogError(
                f"{where} is one token and does not say of which response. Name it on each line, in one of:"
                f" {', '.join(NAMES['sequence'])}."
            )
        key = json.dumps([column(row, "step"), column(row, "group"), sequence], sort_keys=True)
        if key in found and key != last:
            scattered = scattered or (where, row)
        found.setdefault(key, []).append((where, row))
        last = key
    if scattered is not None and any(column(row, "group") is None for _, row in tokens):
        where, row = scattered
        raise LogError(
            f"{where}: sequence {column(row, 'sequence')} goes on after another one. Either the lines are shuffled, or"
            " sequences are numbered anew for each prompt; nothing tells which. Name the prompt on each line"
            f" ({', '.join(NAMES['group'])}), or number the sequences through."
        )
    is_placed = all(isinstance(column(row, "position"), int | float) for _, row in tokens)
    if scattered is not None and not is_placed:
        notes.append(
            "Tokens of one response do not stand together and have no position: they are numbered in the order of the"
            " file."
        )
    for members in found.values():
        yield sorted(members, key=_position) if is_placed else members


def _position(token: Token) -> float:
    place = column(token[1], "position")
    assert isinstance(place, int | float)
    return float(place)


def gathered(rows: Sequence[Token]) -> dict[str, object]:
    """Lines of one token each as one line of one response.

    Raises:
        LogError: their log-probabilities are in different columns.
    """
    names = [column_name(row, "logprob") for _, row in rows]
    odd = next((place for place, name in enumerate(names) if name != names[0]), None)
    if odd is not None:
        raise LogError(
            f"{rows[odd][0]} has its log-probability in '{names[odd]}', {rows[0][0]} in '{names[0]}': they are those of"
            " different policies. Give one column on every line."
        )
    first = rows[0][1]
    columns = ("logprob", "old_logprob", "advantage", "mask", "entropy", "token")
    whole: dict[str, object] = {
        name: first[name] for part in ("step", "group", "reward") for name in NAMES[part] if name in first
    }
    for part in columns:
        used = next((name for _, row in rows if (name := column_name(row, part)) is not None), None)
        if used is not None and not (part == "old_logprob" and used == names[0]):
            whole[used] = [column(row, part) for _, row in rows]
    return whole
