"""Akaike's criterion: how much better one form must fit than another before the data can be said to prefer it."""

from __future__ import annotations

import numpy as np

from covent.law.series import FloatArray

DECISIVE_AICC = 4.0
"""Difference from which the worse form has "considerably less" support (Burnham and Anderson 2002, section 2.6)."""

NOISE_PARAMETERS = 2
"""Scale and correlation of AR(1) noise, which every form has besides its own coefficients."""


def aicc(log_likelihood: float, num_coefficients: int, n: int) -> float | None:
    """Akaike's criterion with the correction for few points, under AR(1) noise; lower is better.

        AICc = 2k - 2·ln L + 2k(k + 1)/(n - k - 1),    k = num_coefficients + 2

    Returns:
      None where the correction has no meaning (n <= k + 1).

    Source:
      Hurvich and Tsai (1989).

    Example:
      >>> aicc(10.0, num_coefficients=2, n=9)
      -2.0
    """
    k = num_coefficients + NOISE_PARAMETERS
    return 2 * k - 2 * log_likelihood + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else None


def bic(log_likelihood: float, num_coefficients: int, n: int) -> float:
    """Schwarz's criterion, k·ln n - 2·ln L; harder on additional coefficients than AICc once n is above about 8.

    Example:
      >>> bic(0.0, num_coefficients=0, n=1)
      0.0
    """
    return (num_coefficients + NOISE_PARAMETERS) * float(np.log(n)) - 2 * log_likelihood


def akaike_weights(criteria: list[float]) -> FloatArray:
    """Share of the support of each form: w ∝ exp(-½·(AICc - best)).

    Example:
      >>> akaike_weights([3.0, 3.0]).tolist()
      [0.5, 0.5]
    """
    relative = np.exp(-0.5 * (np.asarray(criteria) - min(criteria)))
    return np.asarray(relative / np.sum(relative), dtype=np.float64)
