"""GRPO's sample and its expectation: against plain loops, every possible group, and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from covent.errors import ConfigError, ShapeError
from covent.tabular import (
    bandit,
    expected_standardised_advantages,
    expected_surrogate,
    expected_surrogate_gradient,
    group_centred,
    group_standardised,
    leave_one_out,
    policy,
    policy_gradient,
    sample,
    sampled_gradient,
    score,
    trajectories,
)
from covent.tabular.softmax import FloatArray
from covent.tabular.tree import END
from tests.support.tolerances import FINITE_DIFFERENCE, STANDARD_ERRORS, TIGHT
from tests.tabular.problems import finite_differences, lopsided_tree, path_probabilities, random_logits

GROUP_SIZE = 4


def _expected_gradient(
    rewards: FloatArray, logits: FloatArray, group_advantages: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Mean of the group gradient over every group that can be drawn."""
    probs, scores = policy(logits)[0], score(logits)[0]
    total = np.zeros_like(logits)
    for group in product(range(len(rewards)), repeat=GROUP_SIZE):
        worth = group_advantages(rewards[list(group)][None])[0]
        chance = math.prod(float(probs[a]) for a in group)
        total[0] += chance * sum(worth[i] * scores[a] for i, a in enumerate(group)) / GROUP_SIZE
    return total


def test_expected_group_gradients_against_every_group() -> None:
    rng = np.random.default_rng(0)
    rewards = rng.standard_normal(3)
    tree, logits = bandit(rewards), rng.standard_normal((1, 3))
    exact = policy_gradient(tree, logits)
    assert _expected_gradient(rewards, logits, leave_one_out) == pytest.approx(exact, abs=TIGHT)
    with_own_reward = _expected_gradient(rewards, logits, group_centred)
    assert with_own_reward == pytest.approx((1 - 1 / GROUP_SIZE) * exact, abs=TIGHT)
    assert with_own_reward != pytest.approx(exact, abs=FINITE_DIFFERENCE)


def test_expected_standardised_advantages_against_every_group() -> None:
    rng = np.random.default_rng(1)
    right = np.array([True, False, False])
    logits = rng.standard_normal((1, 3))
    probs = policy(logits)[0]
    worth = expected_standardised_advantages(probs, right, GROUP_SIZE)
    assert probs @ worth == pytest.approx(0.0, abs=TIGHT)
    found = _expected_gradient(right.astype(float), logits, group_standardised)
    assert found == pytest.approx((probs * worth)[None], abs=TIGHT)
    exact = policy_gradient(bandit(right.astype(float)), logits)
    scale = found / exact
    assert scale == pytest.approx(scale[0, 0], abs=1e2 * TIGHT), "verdicts: the direction of the policy gradient"
    assert found != pytest.approx(exact, abs=FINITE_DIFFERENCE), "but not its length"


def test_more_than_two_rewards_turn_grpos_direction() -> None:
    rewards, logits = np.array([0.0, 0.2, 1.0]), np.array([[0.5, -0.3, 0.1]])
    scale = _expected_gradient(rewards, logits, group_standardised) / policy_gradient(bandit(rewards), logits)
    assert scale != pytest.approx(scale[0, 0], abs=FINITE_DIFFERENCE)


def test_group_advantages_by_hand() -> None:
    rewards = np.array([[1.0, 0.0, 0.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    assert group_centred(rewards)[0] == pytest.approx([0.5, -0.5, -0.5, 0.5], abs=TIGHT)
    assert leave_one_out(rewards)[0] == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3], abs=TIGHT)
    std = math.sqrt(1 / 3)
    assert group_standardised(rewards)[0] == pytest.approx(np.array([1, -1, -1, 1]) * 0.5 / (std + 1e-6), abs=TIGHT)
    assert group_standardised(rewards)[1].tolist() == [0.0] * 4


@pytest.mark.parametrize("rule", [group_standardised, leave_one_out])
def test_a_group_of_one_is_refused(rule: Callable[[FloatArray], FloatArray]) -> None:
    with pytest.raises(ShapeError, match="at least 2"):
        rule(np.ones((3, 1)))
    with pytest.raises(ConfigError, match="sum to 1"):
        expected_standardised_advantages(np.ones(2), np.array([True, False]), 2)


def test_samples_follow_the_policy() -> None:
    rng = np.random.default_rng(2)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    rollouts = sample(tree, logits, num_groups=4000, group_size=2, rng=rng)
    assert (rollouts.states[:, 0, 0] == rollouts.states[:, 1, 0]).all(), "one prompt in a group"
    counts: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    totals = {(path.states, path.actions): path.total_reward for path in trajectories(tree)}
    for states, actions, reward in zip(
        rollouts.states.reshape(8000, -1), rollouts.actions.reshape(8000, -1), rollouts.rewards.ravel(), strict=True
    ):
        length = int((states != END).sum())
        path = tuple(states[:length].tolist()), tuple(actions[:length].tolist())
        assert reward == pytest.approx(totals[path], abs=TIGHT)
        counts[path] = counts.get(path, 0) + 1
    frequencies = np.array([counts.get(path, 0) for path in totals]) / 8000
    chances = path_probabilities(tree, logits)
    # Two responses share a prompt, so the spread is that of 4,000 independent ones at worst.
    errors = np.sqrt(chances * (1 - chances) / 4000)
    assert (np.abs(frequencies - chances) <= STANDARD_ERRORS * errors).all()
    others = path_probabilities(tree, np.zeros_like(logits))
    assert not (np.abs(frequencies - others) <= STANDARD_ERRORS * errors).all()


def test_one_seed_one_sample() -> None:
    tree = lopsided_tree(np.random.default_rng(3))
    draw = [sample(tree, np.zeros((5, 2)), num_groups=9, group_size=3, rng=np.random.default_rng(s)) for s in (0, 0, 1)]
    assert (draw[0].actions == draw[1].actions).all()
    assert draw[0].actions.shape != draw[2].actions.shape or (draw[0].actions != draw[2].actions).any()


def test_the_sampled_gradient_against_a_loop() -> None:
    rng = np.random.default_rng(4)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    rollouts = sample(tree, logits, num_groups=5, group_size=3, rng=rng)
    worth = rng.standard_normal((5, 3))
    truth = np.zeros_like(logits)
    for g, i in np.ndindex(5, 3):
        for state, action in zip(rollouts.states[g, i], rollouts.actions[g, i], strict=True):
            if state != END:
                truth[state] += worth[g, i] * score(logits)[state, action] / 15
    assert sampled_gradient(logits, rollouts, worth) == pytest.approx(truth, abs=TIGHT)


def test_the_sampled_gradient_is_unbiased() -> None:
    rng = np.random.default_rng(5)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    draws = []
    for _ in range(400):
        rollouts = sample(tree, logits, num_groups=8, group_size=4, rng=rng)
        draws.append(sampled_gradient(logits, rollouts, leave_one_out(rollouts.rewards)))
    mean, error = np.mean(draws, axis=0), np.std(draws, axis=0) / math.sqrt(400)
    exact = policy_gradient(tree, logits)
    assert (np.abs(mean - exact) <= STANDARD_ERRORS * error).all()
    assert not (np.abs(mean - 0.5 * exact) <= STANDARD_ERRORS * error).all()


@pytest.mark.parametrize("clip", [0.2, math.inf])
def test_the_surrogates_gradient_against_finite_differences(clip: float) -> None:
    rng = np.random.default_rng(6)
    tree = lopsided_tree(rng)
    old_logits = random_logits(rng, tree)
    logits = old_logits + 1.5 * rng.standard_normal(old_logits.shape)
    found = expected_surrogate_gradient(tree, logits, old_logits, clip_low=clip, clip_high=clip)
    differences = finite_differences(
        lambda z: expected_surrogate(tree, z, old_logits, clip_low=clip, clip_high=clip), logits
    )
    assert found == pytest.approx(differences, abs=FINITE_DIFFERENCE)
    other = 0.2 if clip == math.inf else math.inf
    not_this = expected_surrogate_gradient(tree, logits, old_logits, clip_low=other, clip_high=other)
    assert not_this != pytest.approx(differences, abs=FINITE_DIFFERENCE)


def test_on_policy_the_surrogate_has_the_policy_gradient() -> None:
    rng = np.random.default_rng(7)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    clipped = expected_surrogate_gradient(tree, logits, logits, clip_low=0.2, clip_high=0.2)
    assert clipped == pytest.approx(policy_gradient(tree, logits), abs=TIGHT)
