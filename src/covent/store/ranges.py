"""What the numbers of a row may be.

A row that breaks these was damaged or made up: even a run whose weights explode measures nothing outside.

NaN passes: the writer looks for it in the whole row and names where it is.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from covent.readings import ControlReading, EntropyReading, Mean, ProbeReading

LARGEST_COUNT = 10**15
"""JSON's numbers count exactly up to 9e15."""

LARGEST_ENTROPY = 100.0
"""Nats; a vocabulary of 1e43 tokens could have it."""

LARGEST_CHANGE = 1e40
"""Nats. A first-order change is not bounded by the entropy: while a run explodes it is as large as float32 holds. Sums
of squares of numbers in this range are finite."""

_ROUNDING = 1e-6
"""How far below 0 or above 1 rounding may carry what cannot lie there."""

Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
"""How many, or a number in the order of time from 0."""

Positive = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
"""How many, at least one."""


def _between(name: str, value: float, low: float, high: float) -> None:
    if value < low or value > high:
        raise ValueError(f"{name} is {value:g}, outside [{low:g}, {high:g}]")


def _proportion(value: float) -> float:
    _between("the proportion", value, -_ROUNDING, 1 + _ROUNDING)
    return value


def _share(mean: Mean) -> Mean:
    _between("sum", mean.sum, 0, mean.count * (1 + _ROUNDING))
    return mean


def _not_negative(mean: Mean) -> Mean:
    if mean.sum < 0:
        raise ValueError(f"sum is {mean.sum:g}, below 0")
    return mean


def _entropy(reading: EntropyReading) -> EntropyReading:
    _between("sum / count", reading.value or 0.0, -_ROUNDING, LARGEST_ENTROPY)
    return reading


def _control(reading: ControlReading) -> ControlReading:
    _between("asked_frac", reading.asked_frac or 0.0, 0, 1)
    _between("num_tokens", reading.num_tokens, 0, LARGEST_COUNT)
    _between("num_candidates", reading.num_candidates or 0, 0, reading.num_tokens)
    _between("num_selected", reading.num_selected, 0, reading.num_tokens)
    return reading


def _probe(reading: ProbeReading) -> ProbeReading:
    _between("num_states", reading.num_states, 0, LARGEST_COUNT)
    _between("entropy_before", reading.entropy_before, -_ROUNDING, LARGEST_ENTROPY)
    for name in ("predicted_theorem1", "predicted_theorem2", "accounted", "observed"):
        _between(name, getattr(reading, name), -LARGEST_CHANGE, LARGEST_CHANGE)
    return reading


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    control = config.get("control")
    if isinstance(control, list) and not (control and all(isinstance(each, dict) for each in control)):
        raise ValueError(f"control is {control!r}; a list of controls holds one section of settings for each")
    return config


Proportion = Annotated[float, AfterValidator(_proportion)]
"""A float in [0, 1]."""

Share = Annotated[Mean, AfterValidator(_share)]
"""A mean of zeros and ones."""

NotNegative = Annotated[Mean, AfterValidator(_not_negative)]
"""A mean of values of at least 0."""

Entropy = Annotated[EntropyReading, AfterValidator(_entropy)]
"""A mean policy entropy."""

Control = Annotated[ControlReading, AfterValidator(_control)]
"""Counts of a selection: no more than there were tokens."""

Probe = Annotated[ProbeReading, AfterValidator(_probe)]
"""The entropy change of one optimizer step."""

Settings = Annotated[dict[str, Any], AfterValidator(_settings)]
"""The settings of a run, of whatever engine."""
