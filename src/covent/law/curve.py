"""The law itself: R = -a·exp(H) + b, its inverse, and its ceiling at zero entropy.

R is validation accuracy (a fraction or percent; a and b carry the same unit), H the policy entropy in nats.
Source: arXiv 2505.22617, Eq. 6.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from covent.errors import FitError
from covent.law.series import FloatArray

ROUNDING = 1e-12
"""Share of a by which an accuracy may exceed the ceiling and still count as equal to it."""


def accuracy(entropy: ArrayLike, a: float, b: float) -> FloatArray:
    """Accuracy that the law gives at an entropy.

        R = -a·exp(H) + b

    Args:
      entropy: H in nats, any shape.
      a: accuracy gained per unit of exp(H) spent, unit of R.
      b: offset, unit of R.

    Returns:
      R in the shape of `entropy`; not clipped to possible accuracies.

    Source:
      arXiv 2505.22617, Eq. 6.

    Example:
      >>> float(accuracy(0.0, a=2.0, b=3.0))
      1.0
    """
    return np.asarray(b - a * np.exp(np.asarray(entropy, dtype=np.float64)), dtype=np.float64)


def entropy_at(accuracy: ArrayLike, a: float, b: float) -> FloatArray:
    """Entropy at which the law gives an accuracy: the inverse of `accuracy`.

        H = ln((b - R) / a)

    Args:
      accuracy: R in the unit of a and b, any shape, at most the ceiling b - a.
      a: positive.
      b: offset.

    Returns:
      H >= 0 in nats, in the shape of `accuracy`.

    Raises:
      FitError: a is not positive, or an accuracy lies above the ceiling, which no entropy reaches.

    Example:
      >>> float(entropy_at(1.0, a=2.0, b=3.0))
      0.0
    """
    if not a > 0:
        raise FitError(f"a is {a:g}; the law can be inverted only for a > 0.")
    wanted = np.asarray(accuracy, dtype=np.float64)
    growth = (b - wanted) / a
    above = ~(growth >= 1.0 - ROUNDING)
    if above.any():
        index = tuple(int(i) for i in np.argwhere(above)[0])
        place = f"accuracy[{', '.join(map(str, index))}]" if index else "accuracy"
        raise FitError(
            f"{place} = {wanted[index]:g} is not at or below the ceiling {ceiling(a, b):g}: no entropy gives it. Ask"
            " for an accuracy up to the ceiling."
        )
    return np.asarray(np.log(np.maximum(growth, 1.0)), dtype=np.float64)


def ceiling(a: float, b: float) -> float:
    """Accuracy that the law gives when all entropy is spent.

        R_max = b - a        (H = 0)

    Source:
      arXiv 2505.22617, sections 1 and 2.4.

    Example:
      >>> ceiling(a=2.0, b=3.0)
      1.0
    """
    return b - a
