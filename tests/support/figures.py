"""Figures that tests of reliability find, for the table in docs/reliability.md."""

from __future__ import annotations

import json
import os
from pathlib import Path

VARIABLE = "COVENT_RELIABILITY_FIGURES"
"""Names a file to which each figure is appended as one JSON line; `benchmarks/reliability.py` sets it."""


def figure(row: int, text: str) -> None:
    """Record what was seen for a row of the table, beside the name of the test that saw it."""
    where = os.environ.get(VARIABLE)
    if where:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
        with Path(where).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, "figure": text, "test": test}) + "\n")
