"""Climbing the expected return by exact steps, from a policy to the known optimum; and Adam's first steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from covent.tabular.softmax import FloatArray
from covent.tabular.tree import Tree, expected_return, visited_entropy


class Ascent(NamedTuple):
    """A policy before and after each of its steps."""

    logits: FloatArray
    """[steps + 1, S, K]."""
    returns: FloatArray
    """[steps + 1]: expected return, reward units."""
    entropies: FloatArray
    """[steps + 1]: Σ_s d(s) H(s), nats."""


def ascent(
    tree: Tree,
    logits: FloatArray,
    direction: Callable[[Tree, FloatArray], FloatArray],
    *,
    step_size: float,
    num_steps: int,
) -> Ascent:
    """Plain steps z ← z + η·direction(z).

    Args:
      tree: the problem.
      logits: [S, K], where to begin.
      direction: `policy_gradient` or `natural_gradient`, for example.
      step_size: η.
      num_steps: how many.

    Example:
      >>> from covent.tabular.gradient import natural_gradient
      >>> from covent.tabular.tree import bandit
      >>> path = ascent(bandit(np.array([0.0, 1.0])), np.zeros((1, 2)), natural_gradient, step_size=1.0, num_steps=9)
      >>> path.returns[[0, -1]].round(3).tolist()
      [0.5, 1.0]
    """
    path = [logits]
    for _ in range(num_steps):
        path.append(path[-1] + step_size * direction(tree, path[-1]))
    returns = [expected_return(tree, z) for z in path]
    entropies = [visited_entropy(tree, z) for z in path]
    return Ascent(np.stack(path), np.array(returns), np.array(entropies))


def adam_direction(
    gradients: Sequence[FloatArray], *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
) -> FloatArray:
    """Direction of Adam's step after the gradients so far, the newest last.

        m = Σ_i (1 − β1) β1^(t−i) g_i / (1 − β1^t),   v = the same of g² with β2,   direction = m / (√v + eps)

    The first step is the gradient's sign, so the size of the gradient, and with it that of the advantage, is lost.

    Args:
      gradients: at least one, of one shape; of the quantity to be raised.
      beta1, beta2, eps: Adam's settings; the defaults are PyTorch's.
    Returns: Δz / η, the shape of a gradient.
    Source: Kingma and Ba, arXiv 1412.6980, Algorithm 1.
    """
    newest_last = np.stack(list(gradients))
    age = np.arange(len(gradients))[::-1].reshape(-1, *[1] * (newest_last.ndim - 1))
    mean = (beta1**age * newest_last).sum(axis=0) / (beta1**age).sum()
    square = (beta2**age * newest_last**2).sum(axis=0) / (beta2**age).sum()
    return np.asarray(mean / (np.sqrt(square) + eps), dtype=np.float64)
