"""The tabular softmax policy: one free logit for each state and action, and what follows from the logits alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def log_policy(logits: FloatArray) -> FloatArray:
    """Log-probability of every action.

        log π(a|s) = z_sa − log Σ_b exp(z_sb)

    Args:
      logits: z, [..., K], finite.
    Returns: nats, the shape of `logits`.
    Source: arXiv 2505.22617, section 3.1.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), dtype=np.float64)


def policy(logits: FloatArray) -> FloatArray:
    """Probability of every action: π = softmax(z), the shape of `logits`.

    Example:
      >>> policy(np.array([0.0, np.log(3.0)])).round(2).tolist()
      [0.25, 0.75]
    """
    return np.asarray(np.exp(log_policy(logits)), dtype=np.float64)


def score(logits: FloatArray) -> FloatArray:
    """Derivative of every log-probability with respect to every logit of its state.

        ∂ log π(a|s) / ∂ z_sb = 1{a = b} − π(b|s)

    Args:
      logits: [..., K].
    Returns: [..., K, K], indexed [..., a, b].
    Source: arXiv 2505.22617, Lemma 2 (appendix E).
    """
    return np.asarray(np.eye(logits.shape[-1]) - policy(logits)[..., None, :], dtype=np.float64)


def entropy(logits: FloatArray) -> FloatArray:
    """Entropy of every state's policy.

        H(s) = −Σ_a π(a|s) log π(a|s)

    Args:
      logits: [..., K].
    Returns: nats, [...].

    Example:
      >>> float(entropy(np.zeros(4)).round(4))
      1.3863
    """
    logp = log_policy(logits)
    return np.asarray(-(np.exp(logp) * logp).sum(axis=-1), dtype=np.float64)


def entropy_change(logits: FloatArray, change: FloatArray) -> FloatArray:
    """Exact change of every state's entropy when its logits change by δ, with full relative precision.

        ΔH = c − Σ_a (π'(a) − π(a)) log π(a) − Σ_a π'(a) δ_a,   c = log Σ_a π(a) exp(δ_a),   π'/π = exp(δ − c)

    Subtracting two entropies would leave an error near 1e-16 however small ΔH is, which hides the error of a theorem
    at small step sizes. Here every term is as small as δ.

    Args:
      logits: z before, [..., K].
      change: δ, the shape of `logits`; differences within a state below 700 nats.
    Returns: H(z + δ) − H(z), nats, [...].

    Example:
      >>> z, step = np.array([1.0, 0.0]), np.array([1.0, -1.0])
      >>> bool(np.isclose(entropy_change(z, step), entropy(z + step) - entropy(z)))
      True
    """
    logp = log_policy(logits)
    probs = np.exp(logp)
    # A constant added to a state's logits changes no probability; taking out the mean keeps the exponents small.
    change = change - (probs * change).sum(axis=-1, keepdims=True)
    log_total = np.log1p((probs * np.expm1(change)).sum(axis=-1, keepdims=True))
    moved = probs * np.expm1(change - log_total)
    terms = -moved * logp - (probs + moved) * change
    return np.asarray(log_total[..., 0] + terms.sum(axis=-1), dtype=np.float64)


def covariance(probs: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    """Covariance of two functions of the action, when actions are drawn from `probs`.

        Cov_{a~π}(x, y) = Σ_a π(a) (x_a − E x)(y_a − E y)

    Args:
      probs: [..., K], sums to 1.
      x, y: of that shape.
    Returns: [...]; unchanged by constants added to x or y.
    """
    x = x - (probs * x).sum(axis=-1, keepdims=True)
    y = y - (probs * y).sum(axis=-1, keepdims=True)
    return np.asarray((probs * x * y).sum(axis=-1), dtype=np.float64)
