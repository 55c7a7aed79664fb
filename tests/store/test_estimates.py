"""pass@k against enumeration, and the interval against the equation that defines it."""

from itertools import combinations

import pytest

from covent.store.estimates import pass_at_k, wilson
from tests.support.tolerances import TIGHT


@pytest.mark.parametrize(("num_samples", "num_right"), [(6, 0), (6, 1), (6, 3), (6, 6), (9, 2)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(num_samples: int, num_right: int) -> None:
    samples = [True] * num_right + [False] * (num_samples - num_right)
    for k in range(1, num_samples + 1):
        subsets = list(combinations(samples, k))
        enumerated = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k(num_samples, num_right, k) == pytest.approx(enumerated, abs=TIGHT)


def test_the_naive_estimate_is_another_number() -> None:
    """Negative control: 1 - (1 - c/n)^k samples with replacement and is biased."""
    assert pytest.approx(pass_at_k(6, 1, 3), abs=0.01) != 1 - (1 - 1 / 6) ** 3


@pytest.mark.parametrize(("num_right", "n"), [(0, 10), (3, 10), (10, 10), (241, 256), (1, 1)])
def test_the_interval_ends_solve_the_score_equation(num_right: int, n: int) -> None:
    """Wilson's ends are the p with |p_hat - p| = z sqrt(p (1 - p) / n), found here by bisection."""
    estimate = wilson([1.0] * num_right + [0.0] * (n - num_right))
    p_hat, z = num_right / n, 1.959963984540054

    def excess(p: float) -> float:
        return (p_hat - p) ** 2 - z**2 * p * (1 - p) / n

    def root(low: float, high: float) -> float:
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if (excess(middle) > 0) == (excess(low) > 0) else (low, middle)
        return low

    assert estimate.low == pytest.approx(root(0.0, p_hat) if num_right else 0.0, abs=1e-9)
    assert estimate.high == pytest.approx(root(1.0, p_hat) if num_right < n else 1.0, abs=1e-9)


def test_an_interval_that_has_seen_no_failure_is_not_a_point() -> None:
    """Negative control: the normal interval would be [1, 1]."""
    assert wilson([1.0] * 8).low < 0.7
