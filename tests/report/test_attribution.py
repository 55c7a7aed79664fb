"""The entropy change by cause in the report and the terminal: sums over steps whose lines add up."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from covent.cli.summary import attribution_table
from covent.report.attribution import LEFT_OVER, attribution_summary
from covent.report.summary import summarise
from covent.report.tables import readings
from covent.store.reader import Run
from covent.store.schema import AttributionRow
from tests.support.tolerances import TIGHT

TITLE = "Entropy change by cause"


def row(update: int, parts: dict[str, float]) -> AttributionRow:
    return AttributionRow(
        update=update,
        step=update // 4,
        num_states=24,
        entropy_before=0.5,
        parts=parts,
        unattributed=1e-9,
        second_order_logits=2e-4,
        second_order_entropy=-3e-4,
        observed=sum(parts.values()) + 1e-9 + 2e-4 - 3e-4,
        grad_factor=1.0,
    )


@pytest.fixture
def attributed(runs: dict[str, Run]) -> Run:
    rows = [row(0, {"right answers": -0.02}), row(4, {"right answers": -0.01, "momentum": 0.004})]
    return replace(runs["grpo"], attributions=rows)


def test_the_steps_add_up(attributed: Run, runs: dict[str, Run]) -> None:
    found = attribution_summary(attributed)
    assert found is not None
    assert found.parts == pytest.approx({"right answers": -0.03, "momentum": 0.004}, abs=TIGHT)
    assert list(found.left_over) == list(LEFT_OVER)
    assert sum(found.parts.values()) + sum(found.left_over.values()) == pytest.approx(found.observed, abs=TIGHT)
    assert sum(found.parts.values()) != pytest.approx(found.observed, abs=TIGHT)
    assert (found.num_updates, found.num_states) == (2, 24)
    assert attribution_summary(runs["grpo"]) is None


def test_the_report_shows_every_line_and_nothing_without_rows(attributed: Run, runs: dict[str, Run]) -> None:
    (group,) = [group for group in readings(summarise(attributed)) if group.title == TITLE]
    values = {reading.name: reading.value for reading in group.readings}
    assert list(values) == ["right answers", "momentum", *LEFT_OVER, "observed"]
    assert values["right answers"] == "−0.0300 nats"
    assert TITLE not in [group.title for group in readings(summarise(runs["grpo"]))]


def test_the_terminal_prints_the_same_lines(attributed: Run) -> None:
    found = attribution_summary(attributed)
    assert found is not None
    console = Console(width=80, file=io.StringIO())
    with console.capture() as capture:
        console.print(attribution_table(found))
    text = capture.get()
    for name in [*found.parts, *found.left_over, "observed", "2 optimizer steps"]:
        assert name in text
    assert "−0.0300" in text
