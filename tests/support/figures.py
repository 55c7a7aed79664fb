"""Figures that tests of reliability find, for the table in docs/reliability.md."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from covent.provenance import commit

VARIABLE = "COVENT_RELIABILITY_FIGURES"
"""Names a file to which each figure is appended as one JSON line; `benchmarks/reliability.py` sets it."""

SHORT = "short"
"""How the id of a test's case begins that is its short form: what it sees is no figure for the table."""

_commit = cache(commit)


def figure(row: int, text: str) -> None:
    """Record what was seen for a row of the table, beside the name of the test that saw it and the tree's commit."""
    where = os.environ.get(VARIABLE)
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if where and f"[{SHORT}" not in test:
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, "figure": text, "test": test, "commit": _commit()}) + "\n")
