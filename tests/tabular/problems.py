"""Random small problems, and expectations by brute force: what the oracles of the tabular tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from covent.tabular import Tree, full_tree, log_policy, trajectories
from covent.tabular.softmax import FloatArray
from covent.tabular.tree import END

STEP = 1e-5
"""Of central differences."""


def lopsided_tree(rng: np.random.Generator) -> Tree:
    """Two prompts, paths of one to three actions, rewards on the way: nothing that a full tree would hide."""
    child = np.array([[2, END], [END, 3], [END, END], [4, END], [END, END]])
    return Tree(child, rng.standard_normal(child.shape), np.array([0.3, 0.7, 0.0, 0.0, 0.0]))


def random_full_tree(rng: np.random.Generator) -> Tree:
    return full_tree(rng.standard_normal((3, 3, 3)))


def random_logits(rng: np.random.Generator, tree: Tree) -> FloatArray:
    return 1.5 * rng.standard_normal(tree.child.shape)


def path_probabilities(tree: Tree, logits: FloatArray) -> FloatArray:
    """Of every trajectory, in the order of `trajectories`, one factor at a time."""
    logp = log_policy(logits)
    chances = []
    for states, actions, _ in trajectories(tree):
        chance = float(tree.start[states[0]])
        for state, action in zip(states, actions, strict=True):
            chance *= float(np.exp(logp[state, action]))
        chances.append(chance)
    return np.array(chances)


def enumerated_return(tree: Tree, logits: FloatArray) -> float:
    rewards = np.array([path.total_reward for path in trajectories(tree)])
    return float(path_probabilities(tree, logits) @ rewards)


def finite_differences(value: Callable[[FloatArray], float], at: FloatArray) -> FloatArray:
    """Gradient of `value` by central differences, one entry at a time."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        nudge = np.zeros_like(at)
        nudge[index] = STEP
        gradient[index] = (value(at + nudge) - value(at - nudge)) / (2 * STEP)
    return gradient
