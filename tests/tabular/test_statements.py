"""Both sides of the lemma, the proposition and the theorems, and in which order they differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from covent.errors import ConfigError, ShapeError
from covent.tabular import (
    ErrorOrder,
    Sides,
    Tree,
    advantages,
    bandit,
    entropy,
    error_order,
    full_tree,
    lemma_1,
    log_policy,
    natural_gradient,
    policy,
    policy_gradient,
    proposition_1,
    proposition_1_visited,
    theorem_1,
    theorem_1_visited,
    theorem_2,
    visitation,
)
from covent.tabular.order import STEP_SIZES
from covent.tabular.softmax import FloatArray
from tests.support.tolerances import FINITE_DIFFERENCE, SLOPE, TIGHT
from tests.tabular.problems import STEP, finite_differences, lopsided_tree, random_logits


def _entropy_slope(logits: FloatArray, direction: FloatArray) -> FloatArray:
    """dH/dη along a direction of the logits, by central differences."""
    return (entropy(logits + STEP * direction) - entropy(logits - STEP * direction)) / (2 * STEP)


def _bandits(num: int) -> list[tuple[Tree, FloatArray]]:
    rng = np.random.default_rng(0)
    return [(bandit(rng.standard_normal(20)), rng.standard_normal((1, 20))) for _ in range(num)]


def test_predictions_are_derivatives_of_the_entropy() -> None:
    rng = np.random.default_rng(1)
    tree = lopsided_tree(rng)
    logits, change = random_logits(rng, tree), rng.standard_normal(tree.child.shape)
    vanilla = _entropy_slope(logits, policy_gradient(tree, logits))
    natural = _entropy_slope(logits, natural_gradient(tree, logits))
    assert lemma_1(logits, change).predicted == pytest.approx(_entropy_slope(logits, change), abs=FINITE_DIFFERENCE)
    assert theorem_1_visited(tree, logits, 1.0).predicted == pytest.approx(vanilla, abs=FINITE_DIFFERENCE)
    assert theorem_2(tree, logits, 1.0).predicted == pytest.approx(natural, abs=FINITE_DIFFERENCE)
    assert theorem_1(tree, logits, 1.0).predicted != pytest.approx(vanilla, abs=FINITE_DIFFERENCE), "d(s) is missing"
    assert theorem_2(tree, logits, 1.0).predicted != pytest.approx(vanilla, abs=FINITE_DIFFERENCE), "another step"


def test_observations_are_entropies_after_minus_before() -> None:
    rng = np.random.default_rng(2)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    for statement, direction in ((theorem_1, policy_gradient), (theorem_2, natural_gradient)):
        moved = logits + 0.1 * direction(tree, logits)
        sides = statement(tree, logits, 0.1)
        assert sides.observed == pytest.approx(entropy(moved) - entropy(logits), abs=TIGHT)
        assert sides.predicted != pytest.approx(sides.observed, abs=FINITE_DIFFERENCE), "first order is not exact"


def test_proposition_1_is_exact_with_its_visits() -> None:
    rng = np.random.default_rng(3)
    tree = lopsided_tree(rng)
    logits = random_logits(rng, tree)
    differences = 0.1 * finite_differences(lambda z: float(tree.start @ (policy(z) * _q(tree, z)).sum(-1)), logits)
    visited, printed = proposition_1_visited(tree, logits, 0.1), proposition_1(tree, logits, 0.1)
    assert visited.predicted == pytest.approx(visited.observed, abs=TIGHT)
    assert visited.predicted == pytest.approx(differences, abs=FINITE_DIFFERENCE)
    assert printed.predicted != pytest.approx(printed.observed, abs=FINITE_DIFFERENCE)
    assert printed.observed == pytest.approx(visitation(tree, logits)[:, None] * printed.predicted, abs=TIGHT)
    for problem, bandit_logits in _bandits(5):
        sides = proposition_1(problem, bandit_logits, 0.1)
        assert sides.predicted == pytest.approx(sides.observed, abs=TIGHT), "a bandit's state is always visited"


def _q(tree: Tree, logits: FloatArray) -> FloatArray:
    """Action values of the lopsided tree by plain recursion."""

    def value(state: int) -> float:
        return float(sum(np.exp(log_policy(logits)[state, a]) * q(state, a) for a in range(2)))

    def q(state: int, action: int) -> float:
        child = int(tree.child[state, action])
        return float(tree.reward[state, action]) + (value(child) if child >= 0 else 0.0)

    return np.array([[q(s, a) for a in range(2)] for s in range(tree.num_states)])


def _order(statement: Callable[[Tree, FloatArray, float], Sides], sign: float = 1.0) -> ErrorOrder:
    problems = _bandits(60)

    def errors(step_size: float) -> FloatArray:
        sides = [statement(tree, logits, step_size) for tree, logits in problems]
        return np.concatenate([Sides(sign * s.predicted, s.observed).relative_errors for s in sides])

    return error_order(errors)


@pytest.mark.parametrize("statement", [theorem_1, theorem_2])
def test_the_theorems_error_falls_linearly(statement: Callable[[Tree, FloatArray, float], Sides]) -> None:
    order = _order(statement)
    assert order.verdict == "first order"
    assert order.linear_decades >= 3
    assert order.slope == pytest.approx(1.0, abs=SLOPE)
    assert _order(statement, sign=-1.0).verdict == "fails"
    assert _order(statement, sign=1.001).verdict == "fails", "an error of one in a thousand is found"


def test_the_size_of_theorem_1s_error() -> None:
    """20 actions, normal logits and rewards: near 2.6e-3 at η = 0.01 and 2.6e-5 at 1e-4."""
    order = _order(theorem_1)
    by_size = dict(zip(np.round(STEP_SIZES, 8).tolist(), order.median_errors, strict=True))
    assert 1e-3 < by_size[1e-2] < 5e-3
    assert 1e-5 < by_size[1e-4] < 5e-5


@pytest.mark.parametrize(
    ("favoured", "falls"), [(0, True), (2, False)], ids=["a likely action is good", "a rare action is good"]
)
def test_the_reading_of_the_theorems(favoured: int, falls: bool) -> None:
    logits = np.array([[2.0, 0.0, -2.0]])
    tree = bandit(np.eye(3)[favoured])
    for statement in (theorem_1, theorem_2):
        sides = statement(tree, logits, 1e-3)
        assert (sides.observed[0] < 0, sides.predicted[0] < 0) == (falls, falls)


def test_relative_errors_leave_out_what_did_not_move() -> None:
    sides = Sides(np.array([1.0, 3.0, 2.0]), np.array([2.0, 0.0, 2.0]))
    assert sides.relative_errors.tolist() == [0.5, 0.0]
    with pytest.raises(ShapeError, match="shape"):
        Sides(np.zeros(2), np.zeros(3))


@pytest.mark.parametrize("size", [0.0, -1e-3, float("inf"), float("nan")])
@pytest.mark.parametrize("statement", [proposition_1, theorem_1, theorem_1_visited, theorem_2])
def test_a_step_without_size_is_refused(statement: Callable[[Tree, FloatArray, float], Sides], size: float) -> None:
    with pytest.raises(ConfigError, match="step_size"):
        statement(full_tree(np.zeros((2, 2))), np.zeros((3, 2)), size)


def test_advantages_need_the_policys_mean() -> None:
    """Lemma 3 carries Theorem 1: a constant added to A changes Cov(log π, π A), but not Cov(log π, A)."""
    rng = np.random.default_rng(4)
    logits = rng.standard_normal((1, 5))
    tree = bandit(rng.standard_normal(5))
    probs, logp, a = policy(logits)[0], log_policy(logits)[0], advantages(tree, logits)[0]

    def weighted(x: FloatArray, y: FloatArray) -> float:
        return float(np.cov(x, y, aweights=probs, ddof=0)[0, 1])

    assert theorem_1(tree, logits, 1.0).predicted[0] == pytest.approx(-weighted(logp, probs * a), abs=TIGHT)
    assert theorem_2(tree, logits, 1.0).predicted[0] == pytest.approx(-weighted(logp, a), abs=TIGHT)
    assert weighted(logp, a + 1.0) == pytest.approx(weighted(logp, a), abs=TIGHT)
    assert weighted(logp, probs * (a + 1.0)) != pytest.approx(weighted(logp, probs * a), abs=FINITE_DIFFERENCE)
