"""The line under AR(1) noise against dense matrices, and the coverage of its interval against the textbook one's."""

import numpy as np
import pytest

from covent.law.correlated import CORRELATIONS, CorrelatedDesign, correlated_line, white_noise_line
from covent.law.line import least_squares
from tests.support.tolerances import CENTRED, CORRELATION, CORRELATION_GRID, DRAWN_SHARE, FINITE_DIFFERENCE, TIGHT

TOP = 0.4


def autoregressive(rng: np.random.Generator, n: int, rho: float, scale: float) -> np.ndarray:
    """AR(1) noise from its stationary distribution."""
    shocks = rng.normal(0, scale, n)
    noise = np.empty(n)
    noise[0] = shocks[0] / np.sqrt(1 - rho**2)
    for t in range(1, n):
        noise[t] = rho * noise[t - 1] + shocks[t]
    return noise


def run(seed: int, n: int, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """exp(H) and accuracy of a made-up run with the ceiling TOP, its entropies placed as in real runs."""
    x = np.exp(0.55 / (1 + np.arange(n) / (0.04 * n)))
    return x, TOP - 0.2 * (x - 1) + autoregressive(np.random.default_rng(seed), n, rho, 0.01)


RHOS = np.array([-0.6, -0.1, 0.2, 0.7, 0.9])
GAPS = np.array([1, 1, 2, 1, 0.5, 1, 3, np.inf, 1, 1, 2.5, 1, 1, 1, 1, 0.5, 1, 1])


def matrix(rho: float, gaps: np.ndarray, precisions: np.ndarray) -> np.ndarray:
    """The covariance of all points, each pair's correlation the product of the steps between them."""
    phi = np.sign(rho) * np.abs(rho) ** np.where(np.isfinite(gaps), gaps, 1) * np.isfinite(gaps)
    v = np.array([[np.prod(phi[min(i, j) + 1 : max(i, j) + 1]) for j in range(gaps.size)] for i in range(gaps.size)])
    return v / np.sqrt(np.outer(precisions, precisions))


def dense(x: np.ndarray, y: np.ndarray, rho: float, gaps: np.ndarray, precisions: np.ndarray) -> dict[str, np.ndarray]:
    """One ρ from n x n matrices, its prior by a central difference."""
    n, v, design = x.size, matrix(rho, gaps, precisions), np.stack([np.ones_like(x), x], axis=1)
    inverse = np.linalg.inv(v)
    information = design.T @ inverse @ design
    beta = np.linalg.solve(information, design.T @ inverse @ y)
    residual = y - design @ beta
    squares = float(residual @ inverse @ residual)
    slope = (matrix(rho + 1e-5, gaps, precisions) - matrix(rho - 1e-5, gaps, precisions)) / 2e-5
    w = slope @ (inverse - inverse @ design @ np.linalg.inv(information) @ design.T @ inverse)
    log_prior = 0.5 * np.log(np.trace(w @ w) - np.trace(w) ** 2 / (n - 2))
    log_v, log_information = np.linalg.slogdet(v)[1], np.linalg.slogdet(information)[1]
    log_reml = -0.5 * (log_v + log_information + (n - 2) * np.log(squares))
    return {
        "beta": beta,
        "covariance": squares / (n - 2) * np.linalg.inv(information),
        "weight": np.exp(log_prior + log_reml),
        "flat_weight": np.exp(log_reml),
        "log_likelihood": np.array(-0.5 * (log_v + n * np.log(2 * np.pi * squares / n) + n)),
    }


@pytest.mark.parametrize("uneven", [False, True])
def test_every_correlation_is_generalised_least_squares_with_its_reference_prior(uneven: bool) -> None:
    rng = np.random.default_rng(1)
    gaps = GAPS if uneven else np.ones(18)
    precisions = rng.uniform(0.5, 2, 18) if uneven else np.ones(18)
    x, y = run(seed=1, n=18, rho=0.6)
    design = np.stack([np.ones(18), x], axis=1)
    fit = CorrelatedDesign(design, gaps=gaps, precisions=precisions, correlations=RHOS).fit(y)
    truth = [dense(x, y, rho, gaps, precisions) for rho in RHOS]
    stacked = {name: np.array([t[name] for t in truth]) for name in truth[0]}
    assert fit.coefficients == pytest.approx(stacked["beta"], abs=CENTRED)
    assert fit.covariances == pytest.approx(stacked["covariance"], abs=CENTRED)
    assert fit.weights == pytest.approx(stacked["weight"] / stacked["weight"].sum(), abs=FINITE_DIFFERENCE)
    assert fit.weights != pytest.approx(stacked["flat_weight"] / stacked["flat_weight"].sum(), abs=CORRELATION / 10)
    assert fit.log_likelihood == pytest.approx(stacked["log_likelihood"].max(), abs=CENTRED)


def test_gaps_and_weights_are_not_ignored() -> None:
    x, y = run(seed=5, n=18, rho=0.6)
    plain = correlated_line(x, y).value_interval(1.0, 0.95)
    assert correlated_line(x, y, gaps=np.ones(18)).value_interval(1.0, 0.95) == pytest.approx(plain, abs=CENTRED)
    assert correlated_line(x, y, gaps=GAPS).value_interval(1.0, 0.95) != pytest.approx(plain, abs=CENTRED)
    assert correlated_line(x, y, precisions=np.full(18, 7.0)).value_interval(1.0, 0.95) == pytest.approx(
        plain, abs=CENTRED
    )
    halved = np.where(np.arange(18) < 9, 0.5, 1.0)
    assert correlated_line(x, y, precisions=halved).value_interval(1.0, 0.95) != pytest.approx(plain, abs=CENTRED)


def test_a_family_is_its_members_mixed() -> None:
    """Components of each member are those of its own fit, weighted by its share; draws follow the mixture."""
    x, y = run(seed=6, n=20, rho=0.3)
    designs = np.stack([np.stack([np.ones(20), column], axis=1) for column in (x, x**4)])
    family = CorrelatedDesign(designs, correlations=RHOS).fit(y)
    for member in (0, 1):
        alone = CorrelatedDesign(designs[member], correlations=RHOS).fit(y)
        mine = family.members == member
        assert family.coefficients[mine] == pytest.approx(alone.coefficients, abs=CENTRED)
        assert family.weights[mine] / family.weights[mine].sum() == pytest.approx(alone.weights, abs=CENTRED)
    contrast = np.array([[1.0, 1.0], [1.0, 0.5]])
    low, high = family.interval(contrast, 0.8)
    draws = family.draws(np.random.default_rng(0), 20_000)
    values = np.sum(contrast[draws.members] * draws.coefficients, axis=1)
    assert np.mean(values < low) == pytest.approx(0.1, abs=DRAWN_SHARE)
    assert np.mean(values < high) == pytest.approx(0.9, abs=DRAWN_SHARE)
    assert np.mean(values < (low + high) / 2) != pytest.approx(0.1, abs=DRAWN_SHARE)


def test_many_points_need_only_the_plausible_correlations() -> None:
    x, y = run(seed=7, n=1000, rho=0.8)
    narrowed = correlated_line(x, y).value_interval(1.0, 0.95)
    whole = correlated_line(x, y, correlations=CORRELATIONS).value_interval(1.0, 0.95)
    width = whole[1] - whole[0]
    assert narrowed == pytest.approx(whole, abs=CORRELATION_GRID * width)
    assert white_noise_line(x, y).value_interval(1.0, 0.95) != pytest.approx(whole, abs=CORRELATION_GRID * width)


def test_without_correlation_it_is_the_textbook() -> None:
    x, y = run(seed=2, n=12, rho=0.0)
    ordinary = least_squares(x, y)
    t_quantile = 2.2281388519649385
    spread = ordinary.rmse * np.sqrt(12 / 10 / np.sum((x - x.mean()) ** 2))
    expected = (ordinary.slope - t_quantile * spread, ordinary.slope + t_quantile * spread)
    assert white_noise_line(x, y).slope_interval(0.95) == pytest.approx(expected, abs=CENTRED)
    assert correlated_line(x, y).slope_interval(0.95) != pytest.approx(expected, abs=CENTRED)


def test_correlation_is_found() -> None:
    assert correlated_line(*run(seed=3, n=400, rho=0.8)).fit.correlation == pytest.approx(0.8, abs=CORRELATION)
    assert correlated_line(*run(seed=3, n=400, rho=0.0)).fit.correlation == pytest.approx(0.0, abs=CORRELATION)


def test_intervals_move_with_the_data() -> None:
    """A shifted and stretched response shifts and stretches the interval; reversing time changes nothing."""
    x, y = run(seed=4, n=30, rho=0.5)
    low, high = correlated_line(x, y).value_interval(1.0, 0.95)
    assert correlated_line(x, 100 * y + 7).value_interval(1.0, 0.95) == pytest.approx(
        (100 * low + 7, 100 * high + 7), abs=CENTRED
    )
    assert correlated_line(x[::-1], y[::-1]).value_interval(1.0, 0.95) == pytest.approx((low, high), abs=CENTRED)
    order = np.random.default_rng(0).permutation(30)
    assert correlated_line(x[order], y[order]).value_interval(1.0, 0.95) != pytest.approx((low, high), abs=CENTRED)


def test_points_on_a_line_leave_no_interval() -> None:
    x = np.exp(np.linspace(0.5, 0.1, 8))
    low, high = correlated_line(x, TOP - 0.2 * (x - 1)).value_interval(1.0, 0.95)
    assert low == pytest.approx(TOP, abs=TIGHT)
    assert high == pytest.approx(TOP, abs=TIGHT)
    assert correlated_line(x, np.zeros(8)).value_interval(1.0, 0.95) == pytest.approx((0.0, 0.0), abs=TIGHT)


def coverage(num_runs: int, n: int, rho: float) -> tuple[float, float]:
    """Share of runs whose 95 % interval contains the ceiling: the robust interval's and the textbook one's."""
    hits = np.zeros(2)
    for seed in range(num_runs):
        x, y = run(seed=1000 + seed, n=n, rho=rho)
        for index, line in enumerate((correlated_line(x, y), white_noise_line(x, y))):
            low, high = line.value_interval(1.0, 0.95)
            hits[index] += low <= TOP <= high
    robust, naive = hits / num_runs
    return float(robust), float(naive)


def test_coverage_under_strong_correlation_is_kept_where_the_textbook_fails() -> None:
    robust, naive = coverage(num_runs=100, n=60, rho=0.8)
    assert robust >= 0.88
    assert naive <= 0.65


@pytest.mark.slow
@pytest.mark.parametrize("n", [30, 60, 200])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_coverage_at_every_length_and_correlation(n: int, rho: float) -> None:
    """600 runs: the standard error of a coverage of 95 % is 0.9 points, so the bounds leave more than three of them."""
    robust, naive = coverage(num_runs=600, n=n, rho=rho)
    assert 0.92 <= robust <= 0.98
    if rho > 0:
        assert naive < 0.85 < robust
