"""Finding the first number that is NaN or infinite in nested data. A run folder holds finite numbers and null only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def first_non_finite(data: object, path: str = "") -> tuple[str, float] | None:
    """The path and value of the first NaN or infinite number in nested dicts and lists; None if all are finite.

    Args:
        data: what `model_dump()` of a row returns.
        path: where `data` sits, as it should read in a message, for example `entropy` or `logprobs[3]`.

    Returns:
        `("covariance.quantiles.max", inf)`, or None.
    """
    if isinstance(data, float):
        return None if math.isfinite(data) else (path, data)
    if isinstance(data, str):
        return None
    children: list[tuple[str, object]] = []
    if isinstance(data, Mapping):
        children = [(f"{path}.{key}" if path else str(key), value) for key, value in data.items()]
    elif isinstance(data, Sequence):
        children = [(f"{path}[{i}]", value) for i, value in enumerate(data)]
    for child_path, value in children:
        found = first_non_finite(value, child_path)
        if found is not None:
            return found
    return None
