"""What the law accepts: series of equal length, finite, entropy in nats, accuracy in a declared unit.

A bad value is an error that names the series and the index; nothing is dropped or repaired.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from covent.errors import FitError, ShapeError

FloatArray = NDArray[np.float64]

Unit = Literal["fraction", "percent"]

FULL_MARKS: dict[Unit, float] = {"fraction": 1.0, "percent": 100.0}
"""The accuracy of a model that gets everything right."""

EVEN = 1e-9
"""Relative difference of distances between steps that is rounding."""

LARGEST_ENTROPY_NATS = 30.0
"""ln of 10^13 tokens: no vocabulary reaches it, so a larger value is a perplexity or a sum, not a mean entropy."""


def in_percent(value: float, unit: Unit) -> str:
    """An accuracy as every sentence writes it, whatever its unit.

    Example:
        >>> in_percent(0.9405, "fraction")
        '94.0 %'
    """
    return f"{100 * value / FULL_MARKS[unit]:.1f} %"


def in_points(value: float, unit: Unit) -> str:
    """A difference of accuracies as every sentence writes it, whatever its unit.

    Example:
        >>> in_points(0.296, "fraction")
        '29.6 points'
    """
    return f"{100 * value / FULL_MARKS[unit]:.1f} points"


def counted(number: int, thing: str) -> str:
    """A number of things as every sentence writes it.

    Example:
        >>> counted(1, "point"), counted(2, "point")
        ('1 point', '2 points')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def aligned(**series: ArrayLike) -> tuple[FloatArray, ...]:
    """The series as one-dimensional float64 arrays of one length, all values finite.

    Args:
      series: name → values; the names are used in the messages.

    Returns:
      The arrays, in the order in which they were given.

    Raises:
      ShapeError: a series is not one-dimensional, or its length differs from the first one's.
      FitError: a value is not a finite number.
    """
    arrays = {name: _one_dimensional(name, values) for name, values in series.items()}
    first, length = next((name, array.size) for name, array in arrays.items())
    for name, array in arrays.items():
        if array.size != length:
            longer, shorter = (name, first) if array.size > length else (first, name)
            raise ShapeError(
                f"{first} has {length} values and {name} has {array.size}: {longer}[{min(array.size, length)}] has no"
                f" partner in {shorter}. Give one value of each per point."
            )
        _refuse(name, array, ~np.isfinite(array), "is not a finite number. Remove the point or repair its source")
    return tuple(arrays.values())


def _one_dimensional(name: str, values: ArrayLike) -> FloatArray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise FitError(f"{name} holds something that is not a number ({error}). Give plain numbers.") from error
    if array.ndim != 1:
        raise ShapeError(f"{name} has shape {array.shape}; a one-dimensional series is needed.")
    return array


def check_entropy(name: str, entropy: FloatArray) -> None:
    """Raise FitError unless every value can be the mean entropy of a policy in nats: 0 <= H <= 30."""
    _refuse(name, entropy, entropy < 0, "is negative; an entropy is at least 0. Check the estimator or the sign")
    _refuse(
        name,
        entropy,
        entropy > LARGEST_ENTROPY_NATS,
        f"is above {LARGEST_ENTROPY_NATS:g} nats. Give the mean entropy of a token in nats, not a perplexity or a sum",
    )


def check_accuracy(name: str, accuracy: FloatArray, unit: Unit) -> None:
    """Raise FitError unless every value lies between 0 and full marks in the declared unit."""
    if unit not in FULL_MARKS:
        raise FitError(f"unit is {unit!r}; allowed are 'fraction' (0 to 1) and 'percent' (0 to 100).")
    full = FULL_MARKS[unit]
    hint = "If these are percent, say unit='percent'" if unit == "fraction" else "Percentages end at 100"
    _refuse(name, accuracy, (accuracy < 0) | (accuracy > full), f"lies outside [0, {full:g}] for unit='{unit}'. {hint}")


def check_weights(name: str, weights: FloatArray) -> None:
    """Raise FitError unless every weight is positive."""
    _refuse(name, weights, weights <= 0, "is not positive. Leave out points without weight")


def check_increasing(name: str, step: FloatArray) -> None:
    """Raise FitError unless each step is larger than the one before it."""
    not_after = np.zeros(step.size, dtype=bool)
    not_after[1:] = np.diff(step) <= 0
    _refuse(name, step, not_after, "is not after the step before it. Sort by step and keep one row a step")


@dataclass(frozen=True, slots=True)
class Points:
    """Checked points of one run, in the order of time."""

    entropy: FloatArray
    accuracy: FloatArray
    step: FloatArray
    """As given, or 0, 1, 2, …"""
    gaps: FloatArray | None
    """Distance of each point from the one before, in units of the median distance; None when evenly spaced."""
    weights: FloatArray | None

    def part(self, kept: NDArray[np.bool_]) -> Points:
        """The points where `kept` (n,) is true."""
        step, weights = self.step[kept], self.weights
        kept_weights = None if weights is None else weights[kept]
        return Points(self.entropy[kept], self.accuracy[kept], step, gaps_of(step), kept_weights)


def checked_points(
    entropy: ArrayLike, accuracy: ArrayLike, unit: Unit, step: ArrayLike | None = None, weights: ArrayLike | None = None
) -> Points:
    """The points as arrays, after every check of this module.

    Raises:
      ShapeError, FitError: as the single checks.
    """
    given = {"entropy": entropy, "accuracy": accuracy}
    given |= {name: values for name, values in (("step", step), ("weights", weights)) if values is not None}
    arrays = dict(zip(given, aligned(**given), strict=True))
    check_entropy("entropy", arrays["entropy"])
    check_accuracy("accuracy", arrays["accuracy"], unit)
    if "step" in arrays:
        check_increasing("step", arrays["step"])
    if "weights" in arrays:
        check_weights("weights", arrays["weights"])
    steps = arrays.get("step", np.arange(arrays["entropy"].size, dtype=np.float64))
    return Points(arrays["entropy"], arrays["accuracy"], steps, gaps_of(steps), arrays.get("weights"))


def gaps_of(step: FloatArray) -> FloatArray | None:
    """(n,) distance of each point from the one before in units of the median; None when all are equal."""
    distances = np.diff(step)
    if distances.size == 0 or np.ptp(distances) <= EVEN * np.max(distances):
        return None
    return np.concatenate([[np.inf], distances / np.median(distances)])


def _refuse(name: str, values: FloatArray, bad: NDArray[np.bool_], complaint: str) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        count = int(bad.sum())
        more = f" ({count} such values in all)" if count > 1 else ""
        raise FitError(f"{name}[{index}] = {values[index]:g} {complaint}{more}.")
