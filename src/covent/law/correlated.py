"""Straight lines under noise that remembers: intervals and likelihood that hold when neighbouring points err together.

Points of one training run share their policy's history, so their residuals are correlated and the textbook interval
is far too narrow. Here the noise is AR(1) in the order of the points,

    e_t = φ_t·e_{t-1} + √(1 - φ_t²)·u_t,    u_t ~ N(0, σ²/w_t) independent,    φ_t = sign(ρ)·|ρ|^gap_t

with the gap in units of the usual one (1 for evenly spaced points, infinite where another run begins). ρ is not
estimated and then trusted, but integrated over on a grid. Each ρ gives generalised least squares and a t distribution
with n - p degrees of freedom; it weighs as its restricted likelihood (REML) times its reference prior.

The prior matters, because a run of 30 points says little about ρ. A flat one on [0, 1) takes it for granted that noise
is correlated, and white noise then gets intervals that are too wide. The reference prior is the one of Berger, De
Oliveira and Sansó: the square root of the information that the data hold about ρ once coefficients and σ are integrated
out. It is derived, not chosen, and known for intervals whose coverage is close to nominal.

Source: Harville (1974) for REML as the likelihood with the coefficients integrated out; Zellner and Tiao (1964) for
the regression with autocorrelated errors; Berger, De Oliveira and Sansó (2001), Objective Bayesian analysis of
spatially correlated data, theorem 2, for the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covent.law.line import least_squares
from covent.law.series import FloatArray
from covent.law.student import mixture_interval

LARGEST_CORRELATION = 0.97
"""Beyond it a run of a few hundred points cannot tell noise from trend."""

CORRELATIONS: FloatArray = np.linspace(-LARGEST_CORRELATION, LARGEST_CORRELATION, 195)
"""The grid of ρ, in steps of 0.01. Negative values belong to it: without them a ρ of 0 would be estimated upwards."""

COARSE_CORRELATIONS: FloatArray = np.linspace(-LARGEST_CORRELATION, LARGEST_CORRELATION, 49)
"""In steps of 0.04, for families of many lines, whose spread over the members outweighs it."""

LONG = 1000
"""Evenly spaced points from which ρ is so well known that a grid around its estimate does, and saves the time."""

EXACT = 1e-14
"""Residuals below this share of the response are rounding; they are treated as being this large."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CorrelatedFit:
    """A mixture of generalised least-squares fits, one component for each member of a family and each ρ."""

    members: NDArray[np.intp]
    """(C,): which design of the family a component belongs to; all 0 for a single line."""
    correlations: FloatArray
    """(C,): its ρ."""
    coefficients: FloatArray
    """(C, p)"""
    covariances: FloatArray
    """(C, p, p): scale matrix of their t distribution."""
    scales: FloatArray
    """(C,): σ, the spread of one observation of weight 1 about the line."""
    weights: FloatArray
    """(C,): restricted likelihood times reference prior, normalised."""
    dof: int
    log_likelihoods: FloatArray
    """(K,): the full (not restricted) log-likelihood of each member, at its maximum over coefficients, σ and ρ."""

    @property
    def correlation(self) -> float:
        """Mean of ρ under the weights."""
        return float(self.correlations @ self.weights)

    @property
    def log_likelihood(self) -> float:
        """The largest of `log_likelihoods`."""
        return float(np.max(self.log_likelihoods))

    @property
    def member_weights(self) -> FloatArray:
        """(K,): weight of each member, summed over ρ."""
        shares = np.bincount(self.members, self.weights, minlength=self.log_likelihoods.size)
        return np.asarray(shares, dtype=np.float64)

    def interval(self, contrast: FloatArray, level: float) -> Interval:
        """Central interval for contrast·coefficients; contrast is (p,), or (K, p) when it depends on the member."""
        rows = contrast[self.members] if contrast.ndim == 2 else np.broadcast_to(contrast, self.coefficients.shape)
        centres = np.einsum("ci,ci->c", rows, self.coefficients)
        spreads = np.sqrt(np.maximum(np.einsum("ci,cij,cj->c", rows, self.covariances, rows), 0.0))
        return mixture_interval(centres, spreads, self.weights, self.dof, level)

    def draws(self, rng: np.random.Generator, count: int) -> Draws:
        """Coefficients, σ and ρ drawn from the mixture."""
        chosen = rng.choice(self.weights.size, size=count, p=self.weights)
        shrink = np.sqrt(self.dof / rng.chisquare(self.dof, count))
        roots = np.linalg.cholesky(self.covariances[chosen])
        normal = rng.standard_normal((count, self.coefficients.shape[1]))
        return Draws(
            members=self.members[chosen],
            correlations=self.correlations[chosen],
            coefficients=self.coefficients[chosen] + shrink[:, None] * np.einsum("dij,dj->di", roots, normal),
            scales=self.scales[chosen] * shrink,
        )


@dataclass(frozen=True, slots=True)
class Draws:
    """What `CorrelatedFit.draws` drew; D draws."""

    members: NDArray[np.intp]
    """(D,)"""
    correlations: FloatArray
    """(D,)"""
    coefficients: FloatArray
    """(D, p)"""
    scales: FloatArray
    """(D,)"""


class CorrelatedDesign:
    """Everything about a fit that does not depend on the response, so that many responses can share it."""

    def __init__(
        self,
        designs: FloatArray,
        *,
        gaps: FloatArray | None = None,
        precisions: FloatArray | None = None,
        correlations: FloatArray = CORRELATIONS,
    ) -> None:
        """Whiten the designs at every ρ and weigh each ρ by its reference prior.

        Args:
          designs: (n, p) or a family (K, n, p); p < n, full rank.
          gaps: (n,) distance from the point before in units of the usual one; the first is not used; infinite where
            an independent run begins. None: all 1.
          precisions: (n,) w > 0; the variance of point t is σ²/w_t. None: all 1.
          correlations: grid of ρ, each in (-1, 1).
        """
        family = designs if designs.ndim == 3 else designs[np.newaxis]
        num_points, num_columns = family.shape[1:]
        assert num_points > num_columns
        self.correlations = correlations
        self.dof = num_points - num_columns
        self._roots = np.ones(num_points) if precisions is None else np.sqrt(precisions)
        gaps = np.ones(num_points) if gaps is None else gaps
        gaps = np.concatenate([[np.inf], gaps[1:]])
        self._phi = np.sign(correlations)[:, None] * np.abs(correlations)[:, None] ** gaps
        self._half_log_v = 0.5 * np.sum(np.log1p(-(self._phi**2)), axis=1)
        self._white = _whitened(family * self._roots[:, None], self._phi)
        gram = np.einsum("kgni,kgnj->kgij", self._white, self._white)
        self._inverse = np.linalg.inv(gram)
        log_prior = np.zeros(gram.shape[:2])
        if correlations.size > 1:
            slopes = _correlation_slopes(correlations, gaps)
            log_prior = np.log(reference_prior(self._white, self._inverse, self._phi, slopes))
        self._log_weights = log_prior - self._half_log_v - 0.5 * np.linalg.slogdet(gram)[1]

    def fit(self, response: FloatArray) -> CorrelatedFit:
        """The mixture for one response of shape (n,).

            log weight(ρ) = log prior(ρ) - ½·log|V| - ½·log|XᵀV⁻¹X| - ½(n-p)·log S,    S = rᵀV⁻¹r

        Returns:
          One component for each member and ρ.
        """
        n = response.size
        white = _whitened((response * self._roots)[None, :, None], self._phi)[0, :, :, 0]
        projected = np.einsum("kgni,gn->kgi", self._white, white)
        coefficients = np.einsum("kgij,kgj->kgi", self._inverse, projected)
        residuals = white - np.einsum("kgni,kgi->kgn", self._white, coefficients)
        rounding = n * (EXACT * (float(np.max(np.abs(response))) or 1.0)) ** 2
        squares = np.maximum(np.sum(residuals**2, axis=2), rounding)
        log_weights = self._log_weights - 0.5 * self.dof * np.log(squares)
        weights = np.exp(log_weights - np.max(log_weights))
        log_likelihoods = -self._half_log_v - 0.5 * n * (np.log(2 * np.pi * squares / n) + 1)
        num_members, num_correlations = squares.shape
        num_columns = coefficients.shape[2]
        variances = squares / self.dof
        return CorrelatedFit(
            members=np.repeat(np.arange(num_members), num_correlations),
            correlations=np.tile(self.correlations, num_members),
            coefficients=coefficients.reshape(-1, num_columns),
            covariances=(variances[:, :, None, None] * self._inverse).reshape(-1, num_columns, num_columns),
            scales=np.sqrt(variances).ravel(),
            weights=(weights / np.sum(weights)).ravel(),
            dof=self.dof,
            log_likelihoods=np.max(log_likelihoods, axis=1) + float(np.sum(np.log(self._roots))),
        )


def _whitened(series: FloatArray, phi: FloatArray) -> FloatArray:
    """(K, G, n, p): series (K, n, p) with the correlation taken out, so that its noise is white: V^(-1/2)·series."""
    before = np.concatenate([np.zeros_like(series[:, :1]), series[:, :-1]], axis=1)
    spread = np.sqrt(1 - phi**2)
    return np.asarray((series[:, None] - phi[:, :, None] * before[:, None]) / spread[:, :, None], dtype=np.float64)


def _correlation_slopes(correlations: FloatArray, gaps: FloatArray) -> FloatArray:
    """(G, n): dφ_t/dρ = gap·|ρ|^(gap - 1). For gaps below 1 it is infinite at ρ = 0, and taken a little beside it."""
    finite = np.where(np.isfinite(gaps), gaps, 1.0)
    beside_zero = np.maximum(np.abs(correlations), 0.5 / correlations.size)[:, None]
    base = np.where(finite < 1, beside_zero, np.abs(correlations)[:, None])
    return np.asarray(np.where(np.isfinite(gaps), finite * base ** (finite - 1), 0.0), dtype=np.float64)


def reference_prior(white: FloatArray, inverse: FloatArray, phi: FloatArray, slopes: FloatArray) -> FloatArray:
    """Reference prior of ρ, up to a constant.

        prior(ρ) = √( tr W² - (tr W)²/(n-p) ),    W = V̇·(V⁻¹ - V⁻¹X(XᵀV⁻¹X)⁻¹XᵀV⁻¹),    V̇ = dV/dρ

    V is a Markov chain's, so with L = V^(-1/2) and K = L̇·L⁻¹, W is similar to -(K + Kᵀ)(I - P), where P projects on the
    whitened design, and K and Kᵀ are a recursion forwards and one backwards: O(n) instead of n x n matrices.

    Args:
      white: (K, G, n, p) L·X.
      inverse: (K, G, p, p) (XᵀV⁻¹X)⁻¹.
      phi: (G, n) correlation of each point with the one before, 0 where there is none.
      slopes: (G, n) dφ/dρ.

    Returns:
      (K, G).

    Source:
      Berger, De Oliveira and Sansó (2001), theorem 2.
    """
    n, num_columns = white.shape[2:]
    # Time first, so that each step of the recursions reads memory that lies together.
    basis = np.ascontiguousarray(np.moveaxis(white @ np.linalg.cholesky(inverse), 2, 0))
    chain = np.ascontiguousarray(phi.T)[:, :, None]
    spread = np.sqrt(1 - chain**2)
    off = np.ascontiguousarray(slopes.T)[:, :, None] / spread
    diagonal = off * chain / spread
    sums, state = diagonal[:, None] * basis, np.zeros_like(basis[0])
    sums *= 2
    for t in range(n):
        sums[t] -= off[t] * state
        state = chain[t] * state + spread[t] * basis[t]
    state = np.zeros_like(state)
    for t in range(n - 1, -1, -1):
        sums[t] += spread[t] * state
        state = chain[t] * state - off[t] * basis[t]
    inside = np.einsum("nkgi,nkgj->kgij", basis, sums)
    trace = -2 * np.sum(diagonal, axis=(0, 2)) + np.einsum("kgii->kg", inside)
    trace_of_square = (
        np.sum(4 * diagonal**2 + 2 * off**2, axis=(0, 2))
        - 2 * np.einsum("nkgi,nkgi->kg", sums, sums)
        + np.einsum("kgij,kgji->kg", inside, inside)
    )
    information = trace_of_square - trace**2 / (n - num_columns)
    return np.asarray(np.sqrt(np.maximum(information, np.finfo(np.float64).tiny)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class CorrelatedLine:
    """y = level + slope·(x - centre)/unit: standardised, so that a narrow range of x costs no digits."""

    fit: CorrelatedFit
    centre: float
    """Mean of x."""
    unit: float
    """Range of x."""

    def at(self, x: float) -> FloatArray:
        """The contrast for the line's value at x (the mean there, not a new observation)."""
        return np.array([1.0, (x - self.centre) / self.unit])

    def value_interval(self, x: float, level: float) -> Interval:
        """Interval for the line's value at x."""
        return self.fit.interval(self.at(x), level)

    def slope_interval(self, level: float) -> Interval:
        """Interval for the slope."""
        low, high = self.fit.interval(np.array([0.0, 1.0]), level)
        return low / self.unit, high / self.unit


def correlated_line(
    x: FloatArray,
    y: FloatArray,
    *,
    gaps: FloatArray | None = None,
    precisions: FloatArray | None = None,
    correlations: FloatArray | None = None,
) -> CorrelatedLine:
    """The straight line under AR(1) noise with its correlation integrated over.

    Args:
      x: regressor in the order of time, at least three points, not flat.
      y: response, same length.
      gaps, precisions, correlations: as `CorrelatedDesign`; correlations None: the whole grid, or, for many evenly
        spaced points, the part of it where ρ can lie.
    """
    if correlations is None:
        long = gaps is None and x.size >= LONG
        correlations = _plausible_correlations(least_squares(x, y, precisions).residuals) if long else CORRELATIONS
    centre, unit = float(np.mean(x)), float(np.ptp(x))
    design = np.stack([np.ones_like(x), (x - centre) / unit], axis=1)
    shared = CorrelatedDesign(design, gaps=gaps, precisions=precisions, correlations=correlations)
    return CorrelatedLine(fit=shared.fit(y), centre=centre, unit=unit)


def white_noise_line(x: FloatArray, y: FloatArray, precisions: FloatArray | None = None) -> CorrelatedLine:
    """The same line with ρ = 0 taken for granted: the textbook interval, too narrow where neighbours err together."""
    return correlated_line(x, y, precisions=precisions, correlations=np.zeros(1))


def _plausible_correlations(residuals: FloatArray) -> FloatArray:
    """Eight standard errors to each side of the lag-1 correlation of the residuals, and at least two steps."""
    squares = float(residuals @ residuals)
    lag_one = float(residuals[1:] @ residuals[:-1]) / squares if squares > 0 else 0.0
    reach = 8 * np.sqrt((1 - lag_one**2) / residuals.size) + 0.02
    low, high = np.clip([lag_one - reach, lag_one + reach], -LARGEST_CORRELATION, LARGEST_CORRELATION)
    return np.linspace(low, high, 65)
