"""The cases that `covent theory` measures: each statement where it should hold, and each broken assumption alone.

A case draws a problem and says what happens to it in a step of any size, beside what the statement predicts. To add
one: a function from a generator to that, and a line in `HOLDING` or `BROKEN`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from covent.tabular import gradient, grpo
from covent.tabular.softmax import FloatArray, policy
from covent.tabular.statements import (
    Sides,
    lemma_1,
    natural_entropy_slope,
    proposition_1,
    proposition_1_visited,
    theorem_1,
    theorem_1_visited,
    theorem_2,
    vanilla_entropy_slope,
)
from covent.tabular.steps import adam_direction
from covent.tabular.tree import Tree, action_values, advantages, bandit, full_tree, visitation, visited_entropy

NUM_BANDIT_ACTIONS = 20
TREE_SHAPE = (3, 3, 3)
"""Paths of three actions with three choices each: 13 states, 27 responses."""
GROUP_SIZE = 8
NUM_GROUPS = 32
NUM_UPDATES = 8
"""Optimizer steps on one rollout, as in section 4.3 of the paper."""
CLIP = 0.2
NUM_FEATURES = 8
OLD_POLICY_DISTANCE = 0.5
"""Standard deviation of the logits' distance from the policy that sampled, nats."""
RIGHT_SHARE = 0.3


@dataclass(frozen=True)
class Step:
    """One step on one problem: a statement about it, and Lemma 1 from the logits as they in fact changed."""

    statement: Sides
    lemma_1: Sides | None
    """None where the statement is not about entropy."""


StepAt = Callable[[float], Step]
"""The step that a step size gives."""


@dataclass(frozen=True)
class Case:
    """A statement in a setting."""

    name: str
    statement: str
    setting: str
    draw: Callable[[np.random.Generator], StepAt]
    """A problem at random, and its step at every step size."""


def _random_bandit(rng: np.random.Generator) -> tuple[Tree, FloatArray]:
    return bandit(rng.standard_normal(NUM_BANDIT_ACTIONS)), rng.standard_normal((1, NUM_BANDIT_ACTIONS))


def _random_tree(rng: np.random.Generator) -> tuple[Tree, FloatArray]:
    tree = full_tree(rng.standard_normal(TREE_SHAPE))
    return tree, rng.standard_normal(tree.child.shape)


def _verdict_bandit(rng: np.random.Generator) -> tuple[Tree, FloatArray]:
    """Rewards 0 and 1, with at least one of each."""
    right = rng.permutation(NUM_BANDIT_ACTIONS) < max(1, rng.binomial(NUM_BANDIT_ACTIONS - 1, RIGHT_SHARE))
    return bandit(right.astype(np.float64)), rng.standard_normal((1, NUM_BANDIT_ACTIONS))


def _entropy_step(logits: FloatArray, change: FloatArray, predicted: FloatArray) -> Step:
    lemma = lemma_1(logits, change)
    return Step(Sides(predicted, lemma.observed), lemma)


def _along(logits: FloatArray, direction: FloatArray, slope: FloatArray) -> StepAt:
    """Straight steps: Δz = η·direction, predicted ΔH = η·slope."""
    return lambda step_size: _entropy_step(logits, step_size * direction, step_size * slope)


def _vanilla_slope(tree: Tree, logits: FloatArray) -> FloatArray:
    return vanilla_entropy_slope(logits, advantages(tree, logits))


def _lemma_1(rng: np.random.Generator) -> StepAt:
    _, logits = _random_bandit(rng)
    direction = rng.standard_normal(logits.shape)
    return lambda step_size: Step(lemma_1(logits, step_size * direction), None)


def _stated(
    statement: Callable[[Tree, FloatArray, float], Sides],
    problem: Callable[[np.random.Generator], tuple[Tree, FloatArray]],
) -> Callable[[np.random.Generator], StepAt]:
    """A statement in its own words, on random problems."""

    def draw(rng: np.random.Generator) -> StepAt:
        tree, logits = problem(rng)
        return lambda step_size: Step(statement(tree, logits, step_size), None)

    return draw


def _visitation_dropped(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_tree(rng)
    return _along(logits, gradient.policy_gradient(tree, logits), _vanilla_slope(tree, logits))


def _moving_visitation(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_tree(rng)
    direction, before = gradient.policy_gradient(tree, logits), visited_entropy(tree, logits)
    visits = visitation(tree, logits)

    def step(step_size: float) -> Step:
        lemma = lemma_1(logits, step_size * direction)
        predicted = visits @ theorem_1_visited(tree, logits, step_size).predicted
        observed = np.array([visited_entropy(tree, logits + step_size * direction) - before])
        return Step(Sides(np.array([predicted]), observed), Sides(np.array([visits @ lemma.predicted]), observed))

    return step


def _raw_rewards(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    slope = vanilla_entropy_slope(logits, action_values(tree, logits))
    return _along(logits, gradient.policy_gradient(tree, logits), slope)


def _raw_rewards_natural(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    slope = natural_entropy_slope(logits, action_values(tree, logits))
    return _along(logits, gradient.natural_gradient(tree, logits), slope)


def _shared(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    features = rng.standard_normal((*logits.shape, NUM_FEATURES)) / math.sqrt(NUM_FEATURES)
    return _along(logits, gradient.shared_gradient(tree, logits, features), _vanilla_slope(tree, logits))


def _shared_natural(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    features = rng.standard_normal((*logits.shape, NUM_FEATURES)) / math.sqrt(NUM_FEATURES)
    slope = natural_entropy_slope(logits, advantages(tree, logits))
    return _along(logits, gradient.shared_natural_gradient(tree, logits, features), slope)


def _adam(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    direction = adam_direction([gradient.policy_gradient(tree, logits)])
    return _along(logits, direction, _vanilla_slope(tree, logits))


def _adam_natural(rng: np.random.Generator) -> StepAt:
    tree, logits = _random_bandit(rng)
    direction = adam_direction([gradient.policy_gradient(tree, logits)])
    return _along(logits, direction, natural_entropy_slope(logits, advantages(tree, logits)))


def _several_updates(rng: np.random.Generator) -> StepAt:
    tree, old_logits = _random_bandit(rng)
    slope = _vanilla_slope(tree, old_logits)

    def step(step_size: float) -> Step:
        logits = old_logits
        for _ in range(NUM_UPDATES):
            logits = logits + step_size * gradient.policy_gradient(tree, logits)
        return _entropy_step(old_logits, logits - old_logits, NUM_UPDATES * step_size * slope)

    return step


def _old_sample(clip: float) -> Callable[[np.random.Generator], StepAt]:
    def draw(rng: np.random.Generator) -> StepAt:
        tree, logits = _random_bandit(rng)
        old_logits = logits + OLD_POLICY_DISTANCE * rng.standard_normal(logits.shape)
        direction = grpo.expected_surrogate_gradient(tree, logits, old_logits, clip_low=clip, clip_high=clip)
        return _along(logits, direction, _vanilla_slope(tree, logits))

    return draw


def _group_mean(rng: np.random.Generator) -> StepAt:
    tree, logits = _verdict_bandit(rng)
    direction = (1 - 1 / GROUP_SIZE) * gradient.policy_gradient(tree, logits)
    return _along(logits, direction, _vanilla_slope(tree, logits))


def _group_standardised(rng: np.random.Generator) -> StepAt:
    tree, logits = _verdict_bandit(rng)
    probs = policy(logits)
    worth = grpo.expected_standardised_advantages(probs[0], tree.reward[0] == 1.0, GROUP_SIZE)
    return _along(logits, probs * worth, _vanilla_slope(tree, logits))


def _sampled(rng: np.random.Generator) -> StepAt:
    tree, logits = _verdict_bandit(rng)
    rollouts = grpo.sample(tree, logits, num_groups=NUM_GROUPS, group_size=GROUP_SIZE, rng=rng)
    direction = grpo.sampled_gradient(logits, rollouts, grpo.leave_one_out(rollouts.rewards))
    return _along(logits, direction, _vanilla_slope(tree, logits))


_BANDIT = f"bandit, {NUM_BANDIT_ACTIONS} actions"
_TREE = f"tree, {TREE_SHAPE[0]} actions, depth {len(TREE_SHAPE)}"

HOLDING = (
    Case("lemma_1", "Lemma 1", f"any Δz; {_BANDIT}", _lemma_1),
    Case("proposition_1", "Proposition 1", _BANDIT, _stated(proposition_1, _random_bandit)),
    Case("theorem_1", "Theorem 1", _BANDIT, _stated(theorem_1, _random_bandit)),
    Case("theorem_2", "Theorem 2", _BANDIT, _stated(theorem_2, _random_bandit)),
    Case("proposition_1_tree", "Proposition 1 × d(s)", _TREE, _stated(proposition_1_visited, _random_tree)),
    Case("theorem_1_tree", "Theorem 1 × d(s)", _TREE, _stated(theorem_1_visited, _random_tree)),
    Case("theorem_2_tree", "Theorem 2", _TREE, _stated(theorem_2, _random_tree)),
)
"""Each statement where its assumptions are met."""

BROKEN = (
    Case("visitation_dropped", "Theorem 1", "tree, d(s) left out as printed", _visitation_dropped),
    Case("visitation_moves", "Theorem 1 × d(s)", "tree, entropy of visited states", _moving_visitation),
    Case("raw_rewards", "Theorem 1", "rewards in place of advantages", _raw_rewards),
    Case("raw_rewards_natural", "Theorem 2", "rewards in place of advantages", _raw_rewards_natural),
    Case("shared", "Theorem 1", f"{NUM_FEATURES} shared parameters", _shared),
    Case("shared_natural", "Theorem 2", f"{NUM_FEATURES} shared parameters", _shared_natural),
    Case("adam", "Theorem 1", "Adam", _adam),
    Case("adam_natural", "Theorem 2", "Adam", _adam_natural),
    Case("several_updates", "Theorem 1", f"{NUM_UPDATES} updates, predicted in one", _several_updates),
    Case("old_sample", "Theorem 1", "older policy's sample, no clip", _old_sample(math.inf)),
    Case("clip", "Theorem 1", f"older policy's sample, clip {CLIP}", _old_sample(CLIP)),
    Case("group_mean", "Theorem 1", f"groups of {GROUP_SIZE}: minus their mean", _group_mean),
    Case("group_standardised", "Theorem 1", f"groups of {GROUP_SIZE}: GRPO's advantage", _group_standardised),
    Case("sampled", "Theorem 1", f"{NUM_GROUPS} groups of {GROUP_SIZE} sampled", _sampled),
)
"""One assumption broken at a time. A case that still holds stays in the table: it says what is not the culprit."""
