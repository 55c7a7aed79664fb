"""Quantities of the logits alone, against decimal arithmetic with 60 digits, plain loops and finite differences."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest

from covent.tabular import covariance, entropy, entropy_change, log_policy, policy, score
from tests.support.tolerances import FINITE_DIFFERENCE, TIGHT
from tests.tabular.problems import STEP


def _decimal_log_policy(logits: list[Decimal]) -> list[Decimal]:
    total = sum((z.exp() for z in logits), Decimal(0)).ln()
    return [z - total for z in logits]


def _decimal_entropy(logits: list[Decimal]) -> Decimal:
    return -sum((logp.exp() * logp for logp in _decimal_log_policy(logits)), Decimal(0))


def _decimal_change(logits: np.ndarray, change: np.ndarray) -> float:
    with localcontext() as context:
        context.prec = 60
        before = [Decimal(float(z)) for z in logits]
        after = [z + Decimal(float(d)) for z, d in zip(before, change, strict=True)]
        return float(_decimal_entropy(after) - _decimal_entropy(before))


@pytest.mark.parametrize("size", [3.0, 1e-1, 1e-4, 1e-8])
@pytest.mark.parametrize("seed", range(5))
def test_entropy_change_keeps_its_digits(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    logits, change = 2 * rng.standard_normal(7), size * (rng.standard_normal(7) + 3.0)
    assert float(entropy_change(logits, change)) == pytest.approx(_decimal_change(logits, change), rel=TIGHT, abs=0)


def test_subtracting_two_entropies_does_not() -> None:
    rng = np.random.default_rng(0)
    logits, change = 2 * rng.standard_normal(7), 1e-8 * rng.standard_normal(7)
    naive = float(entropy(logits + change) - entropy(logits))
    assert naive != pytest.approx(_decimal_change(logits, change), rel=TIGHT, abs=0)


def test_entropy_and_log_policy_against_decimals() -> None:
    logits = np.array([700.0, 698.5, -40.0, 701.0])
    with localcontext() as context:
        context.prec = 60
        exact = [Decimal(z) for z in logits]
        assert log_policy(logits) == pytest.approx([float(x) for x in _decimal_log_policy(exact)], rel=TIGHT, abs=0)
        assert float(entropy(logits)) == pytest.approx(float(_decimal_entropy(exact)), rel=TIGHT, abs=0)


def test_a_constant_in_the_logits_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((3, 5))
    assert policy(logits + 7.0) == pytest.approx(policy(logits), abs=TIGHT)
    assert entropy_change(logits, np.full((3, 5), 7.0)) == pytest.approx(0.0, abs=TIGHT)


def test_score_is_the_derivative_of_the_log_policy() -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((2, 4))
    found = score(logits)
    for b in range(4):
        nudge = np.zeros(4)
        nudge[b] = STEP
        slope = (log_policy(logits + nudge) - log_policy(logits - nudge)) / (2 * STEP)
        assert found[..., b] == pytest.approx(slope, abs=FINITE_DIFFERENCE)
    swapped = np.eye(4) - policy(logits)[..., :, None]
    assert found != pytest.approx(swapped, abs=FINITE_DIFFERENCE)


def test_covariance_against_a_loop() -> None:
    rng = np.random.default_rng(3)
    probs, x, y = policy(rng.standard_normal(6)), rng.standard_normal(6), rng.standard_normal(6)
    mean_x = sum(p * a for p, a in zip(probs, x, strict=True))
    mean_y = sum(p * b for p, b in zip(probs, y, strict=True))
    truth = sum(p * (a - mean_x) * (b - mean_y) for p, a, b in zip(probs, x, y, strict=True))
    assert float(covariance(probs, x, y)) == pytest.approx(truth, abs=TIGHT)
    assert float(covariance(probs, x + 100.0, y)) == pytest.approx(truth, abs=100 * TIGHT)
    unweighted = float(np.cov(x, y, ddof=0)[0, 1])
    assert unweighted != pytest.approx(truth, abs=FINITE_DIFFERENCE)
