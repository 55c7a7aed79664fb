"""Whether a table that was read as one run may hold several: a hint, since only the user knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence

from covent.logs.rows import as_number

MOST_RUNS = 50
FEWEST_ROWS = 3
"""A column with 2 to 50 different entries, each in at least 3 rows, may tell runs apart."""

_LISTED = 5
_NO_NAMES = {"", "none", "null", "n/a", "na", "-", "true", "false"}


def several_runs(columns: Mapping[str, Sequence[object]], places: Sequence[Hashable] | None) -> list[str]:
    """The sentence that names the column, or none.

    A column of words that repeat is one; so is a column of numbers, such as seeds, if rows share their step although
    none of them does with the same entry there.

    Args:
        columns: name → the entry of each row, as logged.
        places: the step of each row, with the metric where a row holds one; None where there are no steps.
    """
    repeats = places is not None and len(set(places)) < len(places)
    for name, entries in columns.items():
        counts = _few(entries)
        if counts is None:
            continue
        words = not any(as_number(entry) is not None or entry.lower() in _NO_NAMES for entry in counts)
        tells = places is not None and repeats and len(set(zip(map(str, entries), places, strict=True))) == len(places)
        if words or tells:
            kind = "words" if words else "numbers"
            shown = ", ".join(list(counts)[:_LISTED]) + (", …" if len(counts) > _LISTED else "")
            return [
                f"All rows were taken as one run, but column '{name}' holds {len(counts)} {kind} ({shown}):"
                f" if they are several runs, tell them apart with --by {name}."
            ]
    return []


def _few(entries: Sequence[object]) -> Counter[str] | None:
    """How often each entry stands there; None where it is no column that could name runs."""
    counts: Counter[str] = Counter()
    for entry in entries:
        if isinstance(entry, Mapping | list):
            return None
        counts[str(entry)] += 1
        if len(counts) > MOST_RUNS:
            return None
    return counts if len(counts) > 1 and min(counts.values()) >= FEWEST_ROWS else None
