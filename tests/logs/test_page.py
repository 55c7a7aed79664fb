"""docs/logs.md says of metric names and token dumps what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from covent.logs.definitions import ENTROPY_METRICS
from covent.logs.dump import NAMES
from covent.logs.metrics import ACCURACY_PATTERNS
from covent.logs.rows import STEP_NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def table(name: str) -> list[list[str]]:
    return rows(PAGE.partition(f"<!-- table: {name} -->")[2].partition("<!-- /table -->")[0])


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_entropy_is_on_the_page_in_its_order_and_with_its_definition() -> None:
    told = table("entropies")
    assert len(told) == len(ENTROPY_METRICS)
    for (engine, cell, definition), metric in zip(told, ENTROPY_METRICS, strict=True):
        assert engine == (metric.engine or "not known")
        assert definition == metric.definition.text
        examples = [name for name in names(cell) if not name.startswith("_")]
        assert examples and all(metric.matches(name) for name in examples)


def test_every_accuracy_is_on_the_page_in_its_order() -> None:
    told = table("accuracies")
    assert len(told) == len(ACCURACY_PATTERNS)
    for (kind, cell, _), (wanted, pattern) in zip(told, ACCURACY_PATTERNS, strict=True):
        examples = [name for name in names(cell) if name not in ("reward", "score") or kind == "training"]
        assert kind == wanted
        assert examples and all(re.fullmatch(pattern, name) for name in examples)


@pytest.mark.parametrize("name", STEP_NAMES)
def test_every_column_of_steps_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE.partition("## Steps")[2].partition("##")[0]


@pytest.mark.parametrize("column", ["advantage", "mask", "entropy", "reward", "group", "sequence", "step"])
def test_every_name_of_a_dump_is_on_the_page(column: str) -> None:
    told = [names(row[1]) for row in rows(PAGE.partition("## Token dumps")[2])]
    assert list(NAMES[column]) in told


def test_the_names_of_log_probabilities_are_on_the_page() -> None:
    (told, *_) = (names(row[1]) for row in rows(PAGE.partition("## Token dumps")[2]))
    assert tuple(told) == NAMES["logprob"]
