"""GRPO on a tree: groups of sampled responses, advantages from their rewards, sampled and expected gradients.

Gradients are means over responses, of sums over their actions. GRPO's division by response length is a matter of the
step size in trees whose paths have one length.
"""

from __future__ import annotations

from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from covent.errors import ConfigError, ShapeError
from covent.tabular.softmax import FloatArray, log_policy, policy, score
from covent.tabular.tree import END, Tree, advantages, visitation

STD_FLOOR = 1e-6
"""Added to a group's standard deviation, as in the paper's released code, verl and TRL."""


class Rollouts(NamedTuple):
    """Sampled responses: G groups of n, in each group from one start. Path lengths may differ."""

    states: NDArray[np.int64]
    """[G, n, T]: the state before each action; `END` after the end."""
    actions: NDArray[np.int64]
    """[G, n, T]: 0 after the end."""
    rewards: FloatArray
    """[G, n]: total reward of each response."""


def sample(tree: Tree, logits: FloatArray, *, num_groups: int, group_size: int, rng: np.random.Generator) -> Rollouts:
    """Responses drawn from the policy.

    Args:
      tree, logits: problem and policy.
      num_groups: number of starts drawn, each a prompt.
      group_size: responses to each of them.
      rng: the only source of chance.
    """
    cumulative = np.cumsum(policy(logits), axis=-1)
    now = np.repeat(rng.choice(tree.num_states, size=num_groups, p=tree.start)[:, None], group_size, axis=1)
    rewards = np.zeros(now.shape)
    states, actions = [], []
    while (now != END).any():
        # The comparison with the last action's cumulative probability is left out: rounding may leave it below 1.
        action = (rng.random(now.shape)[..., None] >= cumulative[now, :-1]).sum(axis=-1)
        running = now != END
        states.append(now)
        actions.append(np.where(running, action, 0))
        rewards += np.where(running, tree.reward[now, action], 0.0)
        now = np.where(running, tree.child[now, action], END)
    return Rollouts(np.stack(states, axis=-1), np.stack(actions, axis=-1), rewards)


def group_centred(rewards: FloatArray) -> FloatArray:
    """Dr.GRPO: A_i = r_i − mean of the group, which holds r_i itself. [G, n].

    The expected gradient is (1 − 1/n) times the policy gradient.
    """
    return np.asarray(rewards - rewards.mean(axis=-1, keepdims=True), dtype=np.float64)


def group_standardised(rewards: FloatArray) -> FloatArray:
    """GRPO: A_i = (r_i − mean) / (std + 1e-6), the standard deviation with n − 1; 0 in a group of equal rewards.

    Source: arXiv 2505.22617, Eq. 3.
    """
    _needs_a_group(rewards.shape[-1])
    # Rounding leaves a tiny deviation in a group of equal rewards, which the division would blow up.
    equal = (rewards == rewards[..., :1]).all(axis=-1, keepdims=True)
    scaled = group_centred(rewards) / (rewards.std(axis=-1, ddof=1, keepdims=True) + STD_FLOOR)
    return np.where(equal, 0.0, scaled)


def leave_one_out(rewards: FloatArray) -> FloatArray:
    """RLOO: A_i = r_i − mean of the others. Unbiased: the expected gradient is the policy gradient. [G, n]."""
    num = rewards.shape[-1]
    _needs_a_group(num)
    return np.asarray(group_centred(rewards) * num / (num - 1), dtype=np.float64)


def _needs_a_group(num: int) -> None:
    if num < 2:
        raise ShapeError(f"Groups of {num} response: the baseline needs at least 2.")


def sampled_gradient(logits: FloatArray, rollouts: Rollouts, response_advantages: FloatArray) -> FloatArray:
    """On-policy gradient of GRPO and its kin from a sample.

        g = (1 / Gn) Σ_i A_i Σ_t ∇ log π(a_it | s_it)

    Args:
      logits: [S, K], the policy that sampled.
      rollouts: from `sample`.
      response_advantages: [G, n], one for each response.
    Returns: [S, K].
    Source: arXiv 2505.22617, Eqs. 2 and 3.
    """
    running = rollouts.states != END
    states, actions = rollouts.states[running], rollouts.actions[running]
    weights = np.broadcast_to(response_advantages[..., None], running.shape)[running]
    gradient = np.zeros_like(logits)
    np.add.at(gradient, states, weights[:, None] * score(logits)[states, actions])
    return np.asarray(gradient / response_advantages.size, dtype=np.float64)


def expected_surrogate(
    tree: Tree, logits: FloatArray, old_logits: FloatArray, *, clip_low: float, clip_high: float
) -> float:
    """PPO's clipped surrogate over all that the old policy may sample, with exact advantages of the old policy.

        L = Σ_s d_old(s) Σ_a π_old(a|s) min(ρ A_old, clip(ρ, 1 − low, 1 + high) A_old),   ρ = π / π_old

    Args:
      tree: the problem.
      logits: [S, K], the policy being trained.
      old_logits: [S, K], the policy that sampled.
      clip_low, clip_high: the range; `math.inf` for none.
    Source: arXiv 2505.22617, Eq. 4; PPO, arXiv 1707.06347, Eq. 7.
    """
    ratio = np.exp(log_policy(logits) - log_policy(old_logits))
    old_advantages = advantages(tree, old_logits)
    terms = np.minimum(ratio * old_advantages, np.clip(ratio, 1 - clip_low, 1 + clip_high) * old_advantages)
    return float(visitation(tree, old_logits) @ (policy(old_logits) * terms).sum(axis=-1))


def expected_surrogate_gradient(
    tree: Tree, logits: FloatArray, old_logits: FloatArray, *, clip_low: float, clip_high: float
) -> FloatArray:
    """Gradient of `expected_surrogate` with respect to the logits.

        ∂L/∂z_sa = d_old(s) π(a|s) (w_sa − Σ_b π(b|s) w_sb),   w = A_old, and 0 where the clip cuts

    In a bandit without a clip this is the exact gradient at the current policy, however old the sample is.

    Args: as in `expected_surrogate`.
    Returns: [S, K].
    """
    probs = policy(logits)
    ratio = np.exp(log_policy(logits) - log_policy(old_logits))
    old_advantages = advantages(tree, old_logits)
    cut = ((ratio > 1 + clip_high) & (old_advantages > 0)) | ((ratio < 1 - clip_low) & (old_advantages < 0))
    weight = np.where(cut, 0.0, old_advantages)
    weight = weight - (probs * weight).sum(axis=-1, keepdims=True)
    return np.asarray(visitation(tree, old_logits)[:, None] * probs * weight, dtype=np.float64)


def expected_standardised_advantages(probs: FloatArray, right: NDArray[np.bool_], group_size: int) -> FloatArray:
    """What GRPO's standardised advantage is worth on average to each action of a bandit with verdicts for rewards.

        w_a = E[ A_i | a_i = a ]   over groups of n drawn from π, with k right among the other n − 1 binomial

    The expected gradient of GRPO is π(a) w_a. Right actions share one w and wrong ones another, so it points where the
    policy gradient points, and its length depends on how hard the prompt is.

    Args:
      probs: π, [K].
      right: which actions earn 1; the others earn 0. [K].
      group_size: n ≥ 2.
    Returns: unitless, [K]; E_{a~π}[w] = 0.
    Raises: ShapeError for a group of one, ConfigError if `probs` does not sum to 1.
    """
    _needs_a_group(group_size)
    if not np.isclose(probs.sum(), 1.0):
        raise ConfigError(f"probs sums to {probs.sum():g}; it must sum to 1.")
    chance = float(probs[right].sum())
    others = np.arange(group_size)
    ways = np.array([comb(group_size - 1, int(k)) for k in others], dtype=np.float64)
    weights = ways * chance**others * (1 - chance) ** (group_size - 1 - others)
    worth = [weights @ _advantage_beside(is_right, others, group_size) for is_right in (False, True)]
    return np.asarray(np.where(right, worth[1], worth[0]), dtype=np.float64)


def _advantage_beside(is_right: bool, num_right_others: NDArray[np.int64], group_size: int) -> FloatArray:
    """Standardised advantage of one response whose group holds that many right ones beside it."""
    verdicts = np.arange(1, group_size) <= num_right_others[:, None]
    rewards = np.concatenate([np.full((group_size, 1), is_right), verdicts], axis=1).astype(np.float64)
    return np.asarray(group_standardised(rewards)[:, 0], dtype=np.float64)
