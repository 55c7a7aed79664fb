"""How well one series of numbers agrees with another, raw and with the trend that both share removed."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]

Quantity = Literal["accounted", "theorem 1", "theorem 2"]

TREND_WINDOW = 15
"""Rollout steps of the centred moving mean that stands for the common trend."""


class Agreement(BaseModel):
    """Correlation and slope of `observed` on one quantity that should explain it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quantity: Quantity
    per: Literal["optimizer step", "rollout step"]
    trend: Literal["kept", "removed"]
    num_points: int
    correlation: float | None
    """Pearson's; None with fewer than 3 points or without spread."""
    slope: float | None
    """Least squares slope of observed on the quantity: 1 means that one unit of it is one unit observed."""


def correlation(x: Floats, y: Floats) -> float | None:
    """Pearson's correlation.

        r = Σ (x − x̄)(y − ȳ) / √(Σ (x − x̄)² · Σ (y − ȳ)²)

    Returns:
        r in [−1, 1]; None with fewer than 3 points, or when one of the series does not vary.
    """
    if len(x) < 3 or not (_varies(x) and _varies(y)):
        return None
    # Scaled to unit length first: the squares of tiny changes would underflow.
    dx, dy = _direction(x), _direction(y)
    return float(np.clip(dx @ dy, -1.0, 1.0))


def slope(x: Floats, y: Floats) -> float | None:
    """Least squares slope of y on x, with an intercept.

        Σ (x − x̄)(y − ȳ) / Σ (x − x̄)²

    Returns:
        The slope; None with fewer than 3 points, or when x does not vary.
    """
    if len(x) < 3 or not _varies(x):
        return None
    dx = x - x.mean()
    scale = float(np.abs(dx).max())
    return float((dx / scale) @ (y - y.mean()) / ((dx / scale) @ (dx / scale)) / scale)


def trend_removed(
    step: NDArray[np.int64], values: Floats, window: int = TREND_WINDOW
) -> tuple[Floats, NDArray[np.bool_]]:
    """Each value minus the mean of all values whose step lies in a centred window of `window` steps.

    Several values may share a step (optimizer steps of one rollout). Values nearer to an end of the series than half a
    window are marked as unusable: a one-sided mean would leave a part of the trend in.

    Args:
        step: the step of each value, ascending.
        values: the series.
        window: an odd number of steps.

    Returns:
        The residuals, and True where the window was complete.
    """
    half = window // 2
    first = np.searchsorted(step, step - half, side="left")
    last = np.searchsorted(step, step + half, side="right")
    # Running sums of the deviations, not of the values, so that a large level costs no precision.
    centre = values.mean() if len(values) else 0.0
    sums = np.concatenate([[0.0], np.cumsum(values - centre)])
    means = (sums[last] - sums[first]) / np.maximum(last - first, 1)
    complete = np.zeros(len(step), dtype=np.bool_)
    if len(step):
        complete = (step - half >= step[0]) & (step + half <= step[-1])
    return (values - centre) - means, complete


def sum_by_step(step: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The steps that occur, and the sum of the values of each: the change over a whole rollout step."""
    steps, where = np.unique(step, return_inverse=True)
    return steps.astype(np.int64), np.bincount(where, weights=values, minlength=len(steps)).astype(np.float64)


def agreements(
    quantity: Quantity,
    step: NDArray[np.int64],
    explained: Floats,
    observed: Floats,
) -> list[Agreement]:
    """The four agreements of one quantity with what was observed: per optimizer and per rollout step, trend kept and
    removed.

    Args:
        quantity: what `explained` is.
        step: rollout step of each optimizer step, ascending.
        explained: entropy change that the quantity gives, one number an optimizer step, nats.
        observed: entropy change that happened, one number an optimizer step, nats.
    """
    steps, explained_sums = sum_by_step(step, explained)
    _, observed_sums = sum_by_step(step, observed)
    rows: list[Agreement] = []
    per: Literal["optimizer step", "rollout step"]
    for per, at, x, y in (
        ("optimizer step", step, explained, observed),
        ("rollout step", steps, explained_sums, observed_sums),
    ):
        rows.append(_agreement(quantity, per, "kept", x, y))
        (dx, inside), (dy, _) = trend_removed(at, x), trend_removed(at, y)
        rows.append(_agreement(quantity, per, "removed", dx[inside], dy[inside]))
    return rows


def _agreement(
    quantity: Quantity,
    per: Literal["optimizer step", "rollout step"],
    trend: Literal["kept", "removed"],
    x: Floats,
    y: Floats,
) -> Agreement:
    return Agreement(
        quantity=quantity, per=per, trend=trend, num_points=len(x), correlation=correlation(x, y), slope=slope(x, y)
    )


def _direction(values: Floats) -> Floats:
    centred = values - values.mean()
    scaled = centred / np.abs(centred).max()
    return np.asarray(scaled / np.sqrt(scaled @ scaled), dtype=np.float64)


def _varies(values: Floats) -> bool:
    """Whether a series varies by more than the rounding of its own mean."""
    spread = float(np.abs(values - values.mean()).max())
    return spread > 4 * float(np.finfo(np.float64).eps) * float(np.abs(values).max())
