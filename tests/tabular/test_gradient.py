"""Gradients by theorem, by enumeration and by finite differences; natural steps against exponential weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from covent.tabular import (
    Tree,
    action_values,
    adam_direction,
    advantages,
    ascent,
    bandit,
    enumerated_gradient,
    expected_return,
    fisher,
    natural_gradient,
    optimal_return,
    policy,
    policy_gradient,
    shared_gradient,
    shared_natural_gradient,
    visitation,
)
from tests.support.tolerances import FINITE_DIFFERENCE, FLOAT32, TIGHT
from tests.tabular.problems import (
    enumerated_return,
    finite_differences,
    lopsided_tree,
    path_probabilities,
    random_full_tree,
    random_logits,
)

every_tree = pytest.mark.parametrize("make", [lopsided_tree, random_full_tree])


@every_tree
def test_three_routes_to_the_gradient(make: Callable[[np.random.Generator], Tree]) -> None:
    rng = np.random.default_rng(0)
    tree = make(rng)
    logits = random_logits(rng, tree)
    by_theorem = policy_gradient(tree, logits)
    assert by_theorem == pytest.approx(enumerated_gradient(tree, logits), abs=TIGHT)
    differences = finite_differences(lambda z: enumerated_return(tree, z), logits)
    assert by_theorem == pytest.approx(differences, abs=FINITE_DIFFERENCE)
    without_visits = by_theorem / visitation(tree, logits)[:, None]
    assert without_visits != pytest.approx(differences, abs=FINITE_DIFFERENCE)


@every_tree
def test_fisher_is_the_covariance_of_the_paths_scores(make: Callable[[np.random.Generator], Tree]) -> None:
    """Over whole trajectories and with finite differences, where blocks of different states could show."""
    rng = np.random.default_rng(1)
    tree = make(rng)
    logits = random_logits(rng, tree)
    chances = path_probabilities(tree, logits)
    num = len(chances)
    scores = np.stack(
        [finite_differences(lambda z, i=i: np.log(path_probabilities(tree, z)[i]), logits).ravel() for i in range(num)]
    )
    whole = (scores.T * chances) @ scores
    blocks = whole.reshape(*logits.shape, *logits.shape)
    states = np.arange(tree.num_states)
    assert fisher(tree, logits) == pytest.approx(blocks[states, :, states, :], abs=FINITE_DIFFERENCE)
    off_diagonal = blocks.copy()
    off_diagonal[states, :, states, :] = 0.0
    assert off_diagonal == pytest.approx(0.0, abs=FINITE_DIFFERENCE)


@every_tree
def test_the_natural_gradient_solves_its_equation(make: Callable[[np.random.Generator], Tree]) -> None:
    rng = np.random.default_rng(2)
    tree = make(rng)
    logits = random_logits(rng, tree)
    found, gradient, information = natural_gradient(tree, logits), policy_gradient(tree, logits), fisher(tree, logits)
    assert np.einsum("sbc,sc->sb", information, found) == pytest.approx(gradient, abs=TIGHT)
    inverse = np.linalg.pinv(information, hermitian=True)
    assert found == pytest.approx(np.einsum("sbc,sc->sb", inverse, gradient), rel=1e3 * TIGHT, abs=0)
    assert np.einsum("sbc,sc->sb", information, gradient) != pytest.approx(gradient, abs=FINITE_DIFFERENCE)


def test_natural_steps_in_a_bandit_are_exponential_weights() -> None:
    rng = np.random.default_rng(3)
    tree = bandit(rng.standard_normal(6))
    logits = random_logits(rng, tree)
    path = ascent(tree, logits, natural_gradient, step_size=0.3, num_steps=10)
    weights = policy(logits) * np.exp(0.3 * 10 * tree.reward)
    truth = weights / weights.sum()
    assert policy(path.logits[-1]) == pytest.approx(truth, abs=1e2 * TIGHT)
    vanilla = ascent(tree, logits, policy_gradient, step_size=0.3, num_steps=10)
    assert policy(vanilla.logits[-1]) != pytest.approx(truth, abs=FINITE_DIFFERENCE)


def test_ascent_reaches_the_known_optimum_and_spends_the_entropy() -> None:
    rng = np.random.default_rng(4)
    tree = random_full_tree(rng)
    path = ascent(tree, np.zeros(tree.child.shape), natural_gradient, step_size=1.0, num_steps=60)
    assert (np.diff(path.returns) > -TIGHT).all()
    assert path.returns[-1] == pytest.approx(optimal_return(tree), abs=FINITE_DIFFERENCE)
    assert path.entropies[0] == pytest.approx(3 * np.log(3), abs=TIGHT)
    assert path.entropies[-1] < FINITE_DIFFERENCE
    downhill = ascent(tree, np.zeros(tree.child.shape), natural_gradient, step_size=-1.0, num_steps=5)
    assert downhill.returns[-1] < downhill.returns[0]


def test_shared_parameters_against_finite_differences() -> None:
    rng = np.random.default_rng(5)
    tree = lopsided_tree(rng)
    features, parameters = rng.standard_normal((*tree.child.shape, 4)), rng.standard_normal(4)
    logits = features @ parameters
    differences = finite_differences(lambda theta: expected_return(tree, features @ theta), parameters)
    assert shared_gradient(tree, logits, features) == pytest.approx(features @ differences, abs=10 * FINITE_DIFFERENCE)
    # The natural step maximises the gain for a given Fisher length: F θ-step = gradient.
    step = np.linalg.lstsq(features.reshape(-1, 4), shared_natural_gradient(tree, logits, features).ravel())[0]
    information = np.einsum("sbf,sbc,scg->fg", features, fisher(tree, logits), features)
    assert information @ step == pytest.approx(differences, abs=FINITE_DIFFERENCE)


def test_parameters_of_their_own_share_nothing() -> None:
    rng = np.random.default_rng(6)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    own = np.eye(logits.size).reshape(*logits.shape, logits.size)
    assert shared_gradient(tree, logits, own) == pytest.approx(policy_gradient(tree, logits), abs=TIGHT)
    assert shared_natural_gradient(tree, logits, own) == pytest.approx(natural_gradient(tree, logits), abs=1e3 * TIGHT)
    mixed = own @ rng.standard_normal((logits.size, logits.size))
    assert shared_gradient(tree, logits, mixed) != pytest.approx(policy_gradient(tree, logits), abs=FINITE_DIFFERENCE)


def test_adam_against_pytorch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    gradients = rng.standard_normal((6, 2, 3))
    parameter = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=0.1, maximize=True)
    for num, gradient in enumerate(gradients, start=1):
        before = parameter.detach().clone()
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
        moved = (parameter.detach() - before).numpy()
        assert 0.1 * adam_direction(list(gradients[:num])) == pytest.approx(moved, abs=TIGHT)
    assert adam_direction([gradients[0]]) == pytest.approx(np.sign(gradients[0]), abs=FLOAT32)
    assert adam_direction(list(gradients)) != pytest.approx(np.sign(gradients[-1]), abs=FLOAT32)


def test_advantages_and_values_differ_by_the_states_value() -> None:
    rng = np.random.default_rng(8)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    gap = action_values(tree, logits) - advantages(tree, logits)
    assert gap == pytest.approx(gap[:, :1] * np.ones(2), abs=TIGHT)
