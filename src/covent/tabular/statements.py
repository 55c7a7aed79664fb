"""Lemma 1, Proposition 1, Theorems 1 and 2: each as its two sides, for one problem and one step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covent.errors import ConfigError, ShapeError
from covent.tabular.gradient import enumerated_gradient, natural_gradient, policy_gradient
from covent.tabular.softmax import FloatArray, covariance, entropy_change, log_policy, policy
from covent.tabular.tree import Tree, advantages, visitation


@dataclass(frozen=True)
class Sides:
    """What a statement says, and what happens."""

    predicted: FloatArray
    """The formula: per state, or per state and action."""
    observed: FloatArray
    """The same quantity without the formula."""

    def __post_init__(self) -> None:
        if self.predicted.shape != self.observed.shape:
            raise ShapeError(f"predicted has shape {self.predicted.shape}, observed {self.observed.shape}.")

    @property
    def relative_errors(self) -> FloatArray:
        """|predicted − observed| / |observed|, without the entries where nothing was observed to happen."""
        moved = self.observed != 0
        return np.asarray(
            np.abs(self.predicted - self.observed)[moved] / np.abs(self.observed[moved]), dtype=np.float64
        )


def lemma_1(logits: FloatArray, change: FloatArray) -> Sides:
    """Entropy change from the change of the logits, whatever caused it.

        predicted  −Cov_{a~π}( log π(a|s), Δz_sa )
        observed   H(z + Δz) − H(z)

    Args:
      logits: z, [S, K].
      change: Δz, [S, K].
    Returns: nats, per state; they differ by O(Δz²).
    Source: arXiv 2505.22617, Lemma 1.
    """
    return Sides(-covariance(policy(logits), log_policy(logits), change), entropy_change(logits, change))


def proposition_1(tree: Tree, logits: FloatArray, step_size: float) -> Sides:
    """Logit change of one exact policy gradient step, as the paper has it.

        predicted  η π(a|s) A(s, a)
        observed   η ∇J, by enumeration of all trajectories

    Returns: nats, per state and action. Equal, without any error of first order, in states that every episode visits;
      elsewhere the observed side is smaller by d(s). See `proposition_1_visited`.
    Source: arXiv 2505.22617, Proposition 1.
    """
    _must_be_positive(step_size)
    return Sides(step_size * policy(logits) * advantages(tree, logits), step_size * enumerated_gradient(tree, logits))


def proposition_1_visited(tree: Tree, logits: FloatArray, step_size: float) -> Sides:
    """Proposition 1 with the weight that the paper drops: Δz_sa = η d(s) π(a|s) A(s, a). Exact in every state."""
    printed = proposition_1(tree, logits, step_size)
    return Sides(visitation(tree, logits)[:, None] * printed.predicted, printed.observed)


def theorem_1(tree: Tree, logits: FloatArray, step_size: float) -> Sides:
    """Entropy change of one exact policy gradient step, as the paper has it.

        predicted  −η Cov_{a~π}( log π(a|s), π(a|s) A(s, a) )
        observed   H after z ← z + η ∇J, minus H before

    Returns: nats, per state; they differ by O(η²) in states that every episode visits.
    Source: arXiv 2505.22617, Theorem 1.

    Example:
      >>> from covent.tabular.tree import bandit
      >>> problem, logits = bandit(np.array([1.0, 0.0, 0.0])), np.array([[1.0, 0.0, -1.0]])
      >>> sides = theorem_1(problem, logits, step_size=1e-4)
      >>> bool(sides.observed[0] < 0), bool(sides.relative_errors[0] < 1e-3)
      (True, True)
    """
    _must_be_positive(step_size)
    slope = vanilla_entropy_slope(logits, advantages(tree, logits))
    return Sides(step_size * slope, entropy_change(logits, step_size * policy_gradient(tree, logits)))


def theorem_1_visited(tree: Tree, logits: FloatArray, step_size: float) -> Sides:
    """Theorem 1 with the weight d(s) of the state, which the paper drops. First order in every state."""
    printed = theorem_1(tree, logits, step_size)
    return Sides(visitation(tree, logits) * printed.predicted, printed.observed)


def theorem_2(tree: Tree, logits: FloatArray, step_size: float) -> Sides:
    """Entropy change of one exact natural policy gradient step.

        predicted  −η Cov_{a~π}( log π(a|s), A(s, a) )
        observed   H after z ← z + η F⁺ ∇J, minus H before

    Returns: nats, per state; they differ by O(η²) in every state, since d(s) cancels in F⁺ ∇J.
    Source: arXiv 2505.22617, Theorem 2.
    """
    _must_be_positive(step_size)
    slope = natural_entropy_slope(logits, advantages(tree, logits))
    return Sides(step_size * slope, entropy_change(logits, step_size * natural_gradient(tree, logits)))


def vanilla_entropy_slope(logits: FloatArray, state_advantages: FloatArray) -> FloatArray:
    """Theorem 1 for a step of size 1: −Cov(log π, π A), nats per unit of step size, one for each state."""
    probs = policy(logits)
    return np.asarray(-covariance(probs, log_policy(logits), probs * state_advantages), dtype=np.float64)


def natural_entropy_slope(logits: FloatArray, state_advantages: FloatArray) -> FloatArray:
    """Theorem 2 for a step of size 1: −Cov(log π, A), nats per unit of step size, one for each state."""
    return np.asarray(-covariance(policy(logits), log_policy(logits), state_advantages), dtype=np.float64)


def _must_be_positive(step_size: float) -> None:
    if not (step_size > 0 and np.isfinite(step_size)):
        raise ConfigError(f"step_size = {step_size:g}; it must be positive and finite.")
