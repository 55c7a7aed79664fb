"""Student's t for whole degrees of freedom, quantiles of mixtures of it, and the tail of F. Exact, without scipy."""

from __future__ import annotations

import math

import numpy as np

from covent.law.series import FloatArray

MOST_STEPS = 200
"""Of the search for a quantile; it needs about six."""

CLOSE = 1e-13
"""Error in probability at which a quantile is found."""

SMALLEST = 1e-300
"""A component without spread is a step; this keeps its division finite."""

NEGLIGIBLE = 1e-12
"""Mixture components of a smaller weight are left out: they cannot move a 95 % quantile."""


def student_cdf(t: FloatArray, dof: int) -> FloatArray:
    """P(T <= t) for Student's t with `dof` degrees of freedom, by the finite series of its angle.

    With θ = arctan(t/√ν) and A = P(|T| <= |t|) with the sign of t:

        ν even:  A = sin θ · Σ_k c_k,  c_0 = 1,  c_k = c_{k-1} · cos²θ · (2k-1)/(2k),   k < ν/2
        ν odd:   A = (2/π) · (θ + sin θ cos θ · Σ_k c_k),  c_k = c_{k-1} · cos²θ · 2k/(2k+1),   k < (ν-1)/2

    Args:
      t: any shape.
      dof: ν, a whole number of at least 1.

    Source:
      Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.

    Example:
      >>> round(float(student_cdf(np.array(1.0), dof=1)), 12)
      0.75
    """
    assert dof >= 1
    angle = np.arctan(t / np.sqrt(dof))
    odd = dof % 2
    k = np.arange(1, (dof - odd) // 2, dtype=np.float64)
    factor = 2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k)
    terms = np.cumprod(np.square(np.cos(angle))[..., np.newaxis] * factor, axis=-1)
    series = 1.0 + np.sum(terms, axis=-1)
    if dof == 1:
        central = 2 / np.pi * angle
    elif odd:
        central = 2 / np.pi * (angle + np.sin(angle) * np.cos(angle) * series)
    else:
        central = np.sin(angle) * series
    return np.asarray(0.5 + 0.5 * central, dtype=np.float64)


def f_survival(f: FloatArray, num_contrasts: int, dof: int) -> FloatArray:
    """P(F > f) for Fisher's F with an even number of numerator degrees of freedom, by a finite sum.

        P = x^(ν/2) · Σ_j c_j,  c_0 = 1,  c_j = c_{j-1}·(1 - x)·(ν/2 + j - 1)/j,  j < q/2,   x = ν/(ν + q·f)

    Args:
      f: at least 0, any shape.
      num_contrasts: q, even.
      dof: ν >= 1.

    Source:
      Abramowitz and Stegun, Handbook of Mathematical Functions, 26.6.4.

    Example:
      >>> round(float(f_survival(np.array(1.0), num_contrasts=2, dof=2)), 12)
      0.5
    """
    assert num_contrasts >= 2 and num_contrasts % 2 == 0 and dof >= 1
    x = dof / (dof + num_contrasts * f)
    j = np.arange(1, num_contrasts // 2, dtype=np.float64)
    terms = np.cumprod((1 - x)[..., np.newaxis] * (dof / 2 + j - 1) / j, axis=-1)
    return np.asarray(x ** (dof / 2) * (1.0 + np.sum(terms, axis=-1)), dtype=np.float64)


def mixture_interval(
    centres: FloatArray, scales: FloatArray, weights: FloatArray, dof: int, level: float
) -> tuple[float, float]:
    """Central interval of a mixture of shifted and scaled t distributions.

        F(q) = Σ_g w_g · P(T_ν <= (q - m_g)/s_g);    F(low) = (1 - level)/2,  F(high) = (1 + level)/2

    Args:
      centres: m, shape (G,).
      scales: s > 0, shape (G,).
      weights: w >= 0 with sum 1, shape (G,).
      dof: ν of every component.
      level: probability inside, between 0 and 1.

    Returns:
      (low, high), by Newton's steps, kept within a bracket.
    """
    keep = weights > NEGLIGIBLE
    centres, scales, weights = centres[keep], scales[keep], weights[keep] / np.sum(weights[keep])
    low, high = (_quantile(share, centres, scales, weights, dof) for share in ((1 - level) / 2, (1 + level) / 2))
    return low, high


def _quantile(share: float, centres: FloatArray, scales: FloatArray, weights: FloatArray, dof: int) -> float:
    """q with F(q) = share."""
    log_peak = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    steepness = weights * math.exp(log_peak) / np.maximum(scales, SMALLEST)
    low, high = -math.inf, math.inf
    step = 4 * float(weights @ np.maximum(scales, SMALLEST))
    point = float(weights @ centres)
    for trial in range(MOST_STEPS):
        t = (point - centres) / np.maximum(scales, SMALLEST)
        excess = float(student_cdf(t, dof) @ weights) - share
        if abs(excess) <= CLOSE:
            break
        low, high = (point, high) if excess < 0 else (low, point)
        density = float(steepness @ (1 + t * t / dof) ** (-(dof + 1) / 2))
        newton = point - excess / density if density > 0 else math.inf
        if math.isfinite(high - low):
            # Every third step halves the bracket: in mixtures of very different scales Newton's steps alone may creep.
            following = newton if low < newton < high and trial % 3 < 2 else (low + high) / 2
        else:
            # Far out in a tail Newton's step overshoots without end; until both sides are known it may only double.
            following = point - math.copysign(min(abs(newton - point), step), excess)
            step *= 2
        if following == point:
            break
        point = following
    return point
