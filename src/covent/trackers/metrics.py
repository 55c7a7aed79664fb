"""A row of a run folder as numbers with names, as trackers want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from covent.readings import Mean
from covent.store.schema import Estimate, EvaluationRow, ForecastRow, Row, StepRow, UpdateRow


class Point(NamedTuple):
    """The numbers of one row."""

    kind: str
    """First part of every name: rollout, update, validation, test or forecast."""
    step: int
    """Optimizer step of an update, rollout step of everything else."""
    values: dict[str, float]


def point(row: Row) -> Point:
    """Every number of a row: means and estimates as their value, the parts of a section by `section/part`.

    Example:
        >>> point(ForecastRow(step=8, num_points=3, ceiling=0.5, ceiling_low=None, ceiling_high=None, identified=True,
        ...     final=None, final_low=None, final_high=None)).values
        {'forecast/num_points': 3.0, 'forecast/ceiling': 0.5, 'forecast/identified': 1.0}
    """
    kind, axis = _KINDS[type(row)]
    if isinstance(row, EvaluationRow):
        kind = row.split
    step = int(getattr(row, axis))
    return Point(kind, step, {f"{kind}/{name}": value for name, value in _numbers(dict(row)) if name != axis})


_KINDS: dict[type[Row], tuple[str, str]] = {
    StepRow: ("rollout", "step"),
    UpdateRow: ("update", "update"),
    EvaluationRow: ("evaluation", "step"),
    ForecastRow: ("forecast", "step"),
}


def _numbers(fields: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in fields.items():
        if isinstance(value, Mean | Estimate):
            value = value.value
        if isinstance(value, bool | int | float):
            yield name, float(value)
        elif isinstance(value, Mapping):
            yield from ((f"{name}/{part}", number) for part, number in _numbers(value))
        elif hasattr(value, "model_fields_set"):
            yield from ((f"{name}/{part}", number) for part, number in _numbers(dict(value)))
