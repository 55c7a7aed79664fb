"""Trees against a sum over every trajectory and over every deterministic policy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from covent.errors import ConfigError, ShapeError
from covent.tabular import (
    Tree,
    action_values,
    advantages,
    bandit,
    entropy,
    expected_return,
    full_tree,
    optimal_return,
    policy,
    trajectories,
    visitation,
    visited_entropy,
)
from covent.tabular.tree import END
from tests.support.tolerances import TIGHT
from tests.tabular.problems import (
    enumerated_return,
    lopsided_tree,
    path_probabilities,
    random_full_tree,
    random_logits,
)

SURE = 60.0
"""A logit so high that the other actions have no weight in float64."""

every_tree = pytest.mark.parametrize("make", [lopsided_tree, random_full_tree])


@every_tree
def test_visits_values_and_return_against_enumeration(make: Callable[[np.random.Generator], Tree]) -> None:
    rng = np.random.default_rng(0)
    tree = make(rng)
    logits = random_logits(rng, tree)
    paths, chances = list(trajectories(tree)), path_probabilities(tree, logits)
    assert chances.sum() == pytest.approx(1.0, abs=TIGHT)
    visits, values = np.zeros(tree.num_states), np.zeros(tree.child.shape)
    taken = np.zeros(tree.child.shape)
    for (states, actions, _), chance in zip(paths, chances, strict=True):
        rewards = [tree.reward[s, a] for s, a in zip(states, actions, strict=True)]
        for i, (s, a) in enumerate(zip(states, actions, strict=True)):
            visits[s] += chance
            taken[s, a] += chance
            values[s, a] += chance * sum(rewards[i:])
    assert visitation(tree, logits) == pytest.approx(visits, abs=TIGHT)
    assert action_values(tree, logits) == pytest.approx(values / taken, abs=TIGHT)
    assert expected_return(tree, logits) == pytest.approx(enumerated_return(tree, logits), abs=TIGHT)
    assert (policy(logits) * advantages(tree, logits)).sum(axis=-1) == pytest.approx(0.0, abs=TIGHT)
    assert (policy(logits) * action_values(tree, logits)).sum(axis=-1) != pytest.approx(0.0, abs=TIGHT)


@every_tree
def test_visited_entropy_is_the_entropy_of_the_paths(make: Callable[[np.random.Generator], Tree]) -> None:
    """The chain rule of entropy, given the prompt."""
    rng = np.random.default_rng(1)
    tree = make(rng)
    logits = random_logits(rng, tree)
    chances = path_probabilities(tree, logits)
    starts = tree.start[tree.start > 0]
    of_paths = -float(chances @ np.log(chances)) + float(starts @ np.log(starts))
    assert visited_entropy(tree, logits) == pytest.approx(of_paths, abs=TIGHT)
    assert float(entropy(logits).sum()) != pytest.approx(of_paths, abs=TIGHT)


@every_tree
def test_the_optimum_is_the_best_deterministic_policy(make: Callable[[np.random.Generator], Tree]) -> None:
    rng = np.random.default_rng(2)
    tree = make(rng)
    choices = product(range(tree.num_actions), repeat=min(tree.num_states, 5))
    best = -np.inf
    for choice in choices:
        # Below the fifth state the larger of the end rewards is taken, which keeps the enumeration small.
        greedy = tree.reward.argmax(axis=1)
        greedy[: len(choice)] = choice
        logits = np.zeros(tree.child.shape)
        logits[np.arange(tree.num_states), greedy] = SURE
        best = max(best, enumerated_return(tree, logits))
    assert optimal_return(tree) == pytest.approx(best, abs=TIGHT)
    assert expected_return(tree, random_logits(rng, tree)) < best - TIGHT


def test_a_full_tree_pays_at_its_ends() -> None:
    outcomes = np.arange(8.0).reshape(2, 2, 2)
    paths = {actions: total for _, actions, total in trajectories(full_tree(outcomes))}
    assert paths == {index: outcomes[index] for index in np.ndindex(2, 2, 2)}
    one = bandit(np.array([1.0, 2.0]))
    assert (one.num_states, one.num_actions) == (1, 2)


@pytest.mark.parametrize(
    ("child", "start", "error", "words"),
    [
        ([[END, END]], [0.5], ConfigError, "sum to 1"),
        ([[END, END]], [1.0, 0.0], ShapeError, "must be"),
        ([[0, END]], [1.0], ConfigError, "later state"),
        ([[7, END]], [1.0], ConfigError, "later state"),
        ([[1, 1], [END, END]], [1.0, 0.0], ConfigError, "2 ways in"),
        ([[END, END], [END, END]], [1.0, 0.0], ConfigError, "0 ways in"),
    ],
)
def test_what_is_no_tree_is_refused(child: list, start: list, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Tree(np.array(child), np.zeros((len(child), 2)), np.array(start))


def test_other_wrong_problems_are_refused() -> None:
    with pytest.raises(ConfigError, match="not finite"):
        bandit(np.array([0.0, np.nan]))
    with pytest.raises(ShapeError, match="one length"):
        full_tree(np.zeros((2, 3)))
