"""Exact gradients of the expected return: by the policy gradient theorem, by enumeration, natural, and shared."""

from __future__ import annotations

import numpy as np

from covent.tabular.softmax import FloatArray, log_policy, policy, score
from covent.tabular.tree import Tree, advantages, trajectories, visitation


def policy_gradient(tree: Tree, logits: FloatArray) -> FloatArray:
    """Gradient of the expected return with respect to the logits, by the policy gradient theorem.

        ∂J / ∂z_sa = d(s) π(a|s) A(s, a)

    Args:
      tree: the problem.
      logits: [S, K].
    Returns: reward units per nat, [S, K]; sums to 0 in every state.
    Source: arXiv 2505.22617, Eq. 2 and Proposition 1. Differs: the paper drops d(s), the probability of reaching s.
    """
    return np.asarray(visitation(tree, logits)[:, None] * policy(logits) * advantages(tree, logits), dtype=np.float64)


def enumerated_gradient(tree: Tree, logits: FloatArray) -> FloatArray:
    """The same gradient from its definition, a sum over every trajectory; no value function, no advantage.

        ∇J = Σ_τ P(τ) R(τ) Σ_t ∇ log π(a_t|s_t)

    Args:
      tree: the problem; its number of paths is the cost.
      logits: [S, K].
    Returns: [S, K].
    Source: arXiv 2505.22617, Eq. 2, with the reward of the whole response in place of the advantage.
    """
    logp, scores = log_policy(logits), score(logits)
    gradient = np.zeros_like(logits)
    for states, actions, total_reward in trajectories(tree):
        steps = list(states), list(actions)
        weight = tree.start[states[0]] * np.exp(logp[steps].sum()) * total_reward
        # A state is met at most once on a path, so plain indexed addition loses nothing.
        gradient[steps[0]] += weight * scores[steps]
    return gradient


def fisher(tree: Tree, logits: FloatArray) -> FloatArray:
    """Fisher information of the logits. It is block diagonal: one block for each state.

        F_s = d(s) E_{a~π}[ ∇ log π(a|s) ∇ log π(a|s)ᵀ ]

    Returns: [S, K, K]; each block is singular, since a constant added to a state's logits changes nothing.
    """
    scores = score(logits)
    blocks = np.einsum("sa,sab,sac->sbc", policy(logits), scores, scores)
    return np.asarray(visitation(tree, logits)[:, None, None] * blocks, dtype=np.float64)


def natural_gradient(tree: Tree, logits: FloatArray) -> FloatArray:
    """Natural gradient of the expected return, the shortest solution of F w = ∇J.

        w = F⁺ ∇J = A(s, a) − (1/K) Σ_b A(s, b)

    d(s) and π(a|s) stand in F as in ∇J and cancel. That is done on paper: F itself is singular in float64 as soon as
    a policy is nearly certain, and its numerical inverse then walks away from the optimum.

    Returns: [S, K].
    Source: Kakade 2001; Agarwal et al., arXiv 1908.00261, on which Theorem 2 of arXiv 2505.22617 rests.
    """
    worth = advantages(tree, logits)
    return np.asarray(worth - worth.mean(axis=-1, keepdims=True), dtype=np.float64)


def shared_gradient(tree: Tree, logits: FloatArray, features: FloatArray) -> FloatArray:
    """Direction in which the logits move when a gradient step is taken on parameters that they share.

        z = Φθ,   θ ← θ + η ∂J/∂θ,   ∂J/∂θ = Φᵀ ∇J   ⇒   Δz = η Φ Φᵀ ∇J

    Args:
      tree: the problem.
      logits: [S, K], the current Φθ.
      features: Φ, [S, K, F]; with the identity (F = S·K) nothing is shared and this is `policy_gradient`.
    Returns: Δz / η, [S, K].
    """
    parameter_gradient = np.einsum("skf,sk->f", features, policy_gradient(tree, logits))
    return np.asarray(features @ parameter_gradient, dtype=np.float64)


def shared_natural_gradient(tree: Tree, logits: FloatArray, features: FloatArray) -> FloatArray:
    """The same for a natural gradient step on the shared parameters.

        Δz = η Φ (Φᵀ F Φ)⁺ Φᵀ ∇J

    Args: as in `shared_gradient`.
    Returns: Δz / η, [S, K]: A(s, a) only as far as the features can express it.
    """
    information = np.einsum("sbf,sbc,scg->fg", features, fisher(tree, logits), features)
    parameter_gradient = np.einsum("skf,sk->f", features, policy_gradient(tree, logits))
    return np.asarray(features @ (np.linalg.pinv(information, hermitian=True) @ parameter_gradient), dtype=np.float64)
