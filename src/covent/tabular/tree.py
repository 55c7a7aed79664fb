"""Small problems with a known optimum: decision trees, of which a bandit is the one with a single state.

Prompts are the states an episode can start from, tokens are actions, a response is a path to the end. What a response
earns is known, so that every expectation is a finite sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from covent.errors import ConfigError, ShapeError
from covent.tabular.softmax import FloatArray, entropy, policy

END = -1
"""In `Tree.child`: the episode is over."""


@dataclass(frozen=True)
class Tree:
    """A deterministic decision tree with S states and K actions in each. Every state has exactly one way in.

    Raises: ShapeError, ConfigError when the arrays do not describe such a tree.
    """

    child: NDArray[np.int64]
    """[S, K]: the state that follows, a larger index than the state itself, or `END`."""
    reward: FloatArray
    """[S, K]: what the action earns, reward units."""
    start: FloatArray
    """[S]: probability that an episode starts in the state."""

    def __post_init__(self) -> None:
        if self.child.ndim != 2 or self.reward.shape != self.child.shape or self.start.shape != self.child.shape[:1]:
            raise ShapeError(
                f"child {self.child.shape}, reward {self.reward.shape} and start {self.start.shape} must be [S, K],"
                " [S, K] and [S]."
            )
        if not np.isfinite(self.reward).all():
            raise ConfigError("A reward is not finite; every expectation would be lost.")
        if (self.start < 0).any() or not np.isclose(self.start.sum(), 1.0):
            raise ConfigError(f"start sums to {self.start.sum():g}; it must be probabilities that sum to 1.")
        inner = self.child != END
        later = self.child > np.arange(self.num_states)[:, None]
        if (inner & (~later | (self.child >= self.num_states))).any():
            raise ConfigError(f"A child must be a later state below {self.num_states}, or {END} for the end.")
        ways_in = np.bincount(self.child[inner], minlength=self.num_states) + (self.start > 0)
        if (ways_in != 1).any():
            state = int(np.flatnonzero(ways_in != 1)[0])
            raise ConfigError(f"State {state} has {ways_in[state]} ways in; a state of a tree has exactly one.")

    @property
    def num_states(self) -> int:
        """S."""
        return int(self.child.shape[0])

    @property
    def num_actions(self) -> int:
        """K."""
        return int(self.child.shape[1])


class Trajectory(NamedTuple):
    """One path from a start to the end."""

    states: tuple[int, ...]
    actions: tuple[int, ...]
    total_reward: float


def bandit(rewards: FloatArray) -> Tree:
    """One state whose actions end the episode: a prompt, and whole responses as actions.

    Args:
      rewards: [K].

    Example:
      >>> optimal_return(bandit(np.array([0.0, 1.0, 0.5])))
      1.0
    """
    rewards = np.asarray(rewards, dtype=np.float64)[None, :]
    return Tree(np.full(rewards.shape, END, dtype=np.int64), rewards, np.ones(1))


def full_tree(outcomes: FloatArray) -> Tree:
    """The tree in which every path has the same length and only its end is rewarded, as with verified answers.

    Args:
      outcomes: [K, K, …]: the reward of each path, one axis for each action of the path.
    """
    outcomes = np.asarray(outcomes, dtype=np.float64)
    num_actions, depth = outcomes.shape[0], outcomes.ndim
    if set(outcomes.shape) != {num_actions}:
        raise ShapeError(f"outcomes has shape {outcomes.shape}; all axes must have one length, the number of actions.")
    num_states = sum(num_actions**level for level in range(depth))
    child = np.arange(1, num_states * num_actions + 1, dtype=np.int64).reshape(num_states, num_actions)
    child[child >= num_states] = END
    reward = np.zeros(child.shape)
    reward[-(num_actions ** (depth - 1)) :] = outcomes.reshape(-1, num_actions)
    start = np.zeros(num_states)
    start[0] = 1.0
    return Tree(child, reward, start)


def visitation(tree: Tree, logits: FloatArray) -> FloatArray:
    """Probability that an episode passes through each state: d(s), [S]."""
    probs = policy(logits)
    reached = tree.start.copy()
    for state in range(tree.num_states):
        for action, child in enumerate(tree.child[state]):
            if child != END:
                reached[child] += reached[state] * probs[state, action]
    return reached


def action_values(tree: Tree, logits: FloatArray) -> FloatArray:
    """Expected reward from each action on: Q(s, a) = r(s, a) + V(child), [S, K]; V(s) = Σ_a π(a|s) Q(s, a)."""
    probs = policy(logits)
    values = np.zeros(tree.num_states)
    q = tree.reward.copy()
    for state in reversed(range(tree.num_states)):
        q[state] += np.where(tree.child[state] == END, 0.0, values[tree.child[state]])
        values[state] = probs[state] @ q[state]
    return q


def advantages(tree: Tree, logits: FloatArray) -> FloatArray:
    """How much better each action is than the policy: A(s, a) = Q(s, a) − V(s), [S, K].

    The mean over actions is 0 in every state: E_{a~π}[A(s, a)] = 0.

    Source: arXiv 2505.22617, Lemma 3 (appendix E).
    """
    q = action_values(tree, logits)
    return np.asarray(q - (policy(logits) * q).sum(axis=-1, keepdims=True), dtype=np.float64)


def expected_return(tree: Tree, logits: FloatArray) -> float:
    """The objective J = E_{τ~π}[reward of τ].

    Source: arXiv 2505.22617, Eq. 1.
    """
    return float(tree.start @ (policy(logits) * action_values(tree, logits)).sum(axis=-1))


def optimal_return(tree: Tree) -> float:
    """The largest expected return of any policy, by backward induction: V*(s) = max_a [r(s, a) + V*(child)]."""
    values = np.zeros(tree.num_states)
    for state in reversed(range(tree.num_states)):
        after = np.where(tree.child[state] == END, 0.0, values[tree.child[state]])
        values[state] = (tree.reward[state] + after).max()
    return float(tree.start @ values)


def visited_entropy(tree: Tree, logits: FloatArray) -> float:
    """Entropy that an episode meets on its way: Σ_s d(s) H(s), nats.

    Source: arXiv 2505.22617, Eq. 5. Differs: a sum over the response instead of its mean; in trees whose paths have
      one length T it is T times that.
    """
    return float(visitation(tree, logits) @ entropy(logits))


def trajectories(tree: Tree) -> Iterator[Trajectory]:
    """Every path of the tree, each once."""

    def paths(state: int) -> Iterator[Trajectory]:
        for action, child in enumerate(tree.child[state]):
            tails = iter([Trajectory((), (), 0.0)]) if child == END else paths(int(child))
            for tail in tails:
                total = float(tree.reward[state, action]) + tail.total_reward
                yield Trajectory((state, *tail.states), (action, *tail.actions), total)

    for state in np.flatnonzero(tree.start):
        yield from paths(int(state))
