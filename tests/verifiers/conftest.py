"""Figures of the reliability table: a slow test that measures one hands it over, and it is kept where asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Keep = Callable[[int, str, str, str], None]


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Keep:
    """Keep (row, fault, what must hold, the figure) in the JSON file that COVENT_FIGURES names, if it names one."""

    def keep(row: int, fault: str, must_hold: str, value: str) -> None:
        if "COVENT_FIGURES" not in os.environ:
            return
        path = Path(os.environ["COVENT_FIGURES"])
        test = request.node.nodeid
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        rows = [old for old in rows if (old["row"], old["fault"], old["test"]) != (row, fault, test)]
        rows.append({"row": row, "fault": fault, "must_hold": must_hold, "figure": value, "test": test})
        rows.sort(key=lambda each: (each["row"], each["fault"]))
        path.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    return keep
