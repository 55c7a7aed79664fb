"""Student's t against its integrated density and printed tables; the mixture against its own distribution function."""

import math

import numpy as np
import pytest
from scipy import stats

from covent.law.student import f_survival, mixture_interval, student_cdf
from tests.support.tolerances import CENTRED, PRINTED, TIGHT


def integrated(t: float, dof: int) -> float:
    """1/2 + the integral of the density from 0 to t, by Simpson's rule."""
    points = np.linspace(0.0, t, 4001)
    log_scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    density = np.exp(log_scale - (dof + 1) / 2 * np.log1p(points**2 / dof))
    weights = np.array([1.0, *[4.0, 2.0] * 1999, 4.0, 1.0])
    return 0.5 + float(weights @ density) * (points[1] - points[0]) / 3


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 5, 10, 28, 57, 199, 1000])
@pytest.mark.parametrize("t", [-4.0, -1.3, 0.0, 0.5, 2.0, 6.0])
def test_cdf_is_the_integral_of_the_density(dof: int, t: float) -> None:
    assert float(student_cdf(np.array(t), dof)) == pytest.approx(integrated(t, dof), abs=CENTRED)


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 5, 10, 28, 57])
def test_one_degree_more_is_another_distribution(dof: int) -> None:
    assert float(student_cdf(np.array(2.0), dof)) != pytest.approx(integrated(2.0, dof + 1), abs=CENTRED)


@pytest.mark.parametrize(("dof", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (10, 2.2281), (120, 1.9799)])
def test_one_component_gives_the_tables(dof: int, quantile: float) -> None:
    low, high = mixture_interval(np.array([3.0]), np.array([0.5]), np.ones(1), dof, 0.95)
    assert (high - 3.0) / 0.5 == pytest.approx(quantile, abs=PRINTED)
    assert low + high == pytest.approx(6.0, abs=TIGHT)


def test_a_mixture_has_its_tails_outside() -> None:
    centres, scales, weights = np.array([0.0, 5.0, 1.0]), np.array([1.0, 0.2, 3.0]), np.array([0.5, 0.3, 0.2])
    low, high = mixture_interval(centres, scales, weights, 7, 0.9)

    def below(point: float, component_weights: np.ndarray) -> float:
        parts = [integrated((point - m) / s, 7) for m, s in zip(centres, scales, strict=True)]
        return float(component_weights @ parts)

    assert below(low, weights) == pytest.approx(0.05, abs=CENTRED)
    assert below(high, weights) == pytest.approx(0.95, abs=CENTRED)
    assert below(low, np.full(3, 1 / 3)) != pytest.approx(0.05, abs=CENTRED)


@pytest.mark.parametrize("dof", [1, 2, 30])
def test_quantiles_of_components_of_very_different_scales(dof: int) -> None:
    centres, scales, weights = np.array([0.0, 1e-6, 3.0]), np.array([1e-6, 1.0, 10.0]), np.array([0.6, 0.3, 0.1])
    for end, share in zip(mixture_interval(centres, scales, weights, dof, 0.95), (0.025, 0.975), strict=True):
        assert weights @ stats.t.cdf((end - centres) / scales, dof) == pytest.approx(share, abs=CENTRED)
        assert weights @ stats.t.cdf((end - centres) / scales, dof + 1) != pytest.approx(share, abs=CENTRED)


@pytest.mark.parametrize("num_contrasts", [2, 4, 10])
@pytest.mark.parametrize("dof", [1, 7, 200])
def test_tail_of_f_is_scipys(num_contrasts: int, dof: int) -> None:
    f = np.array([0.0, 0.3, 1.0, 4.0, 30.0])
    assert f_survival(f, num_contrasts, dof) == pytest.approx(stats.f.sf(f, num_contrasts, dof), abs=TIGHT)
    assert f_survival(f, num_contrasts, dof) != pytest.approx(stats.f.sf(f, num_contrasts + 1, dof), abs=TIGHT)
