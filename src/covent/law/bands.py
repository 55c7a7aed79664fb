"""Bands around a prediction: where an observation will lie, given everything that the prefix leaves open.

Three things are uncertain, and each is drawn from what the prefix says about it: the coefficients of the law, the noise
of the accuracies still to come, which continues from the last residual, and, where entropy is not known either, its
decay with its form, its τ and its own noise. A band is the central part of these draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from covent.law.correlated import Draws, correlated_line
from covent.law.decay import DecayMixture
from covent.law.line import is_flat
from covent.law.series import LARGEST_ENTROPY_NATS, FloatArray, Points

LEVEL = 0.95

NUM_DRAWS = 2000

SEED = 0
"""A band is a property of the data: the same prefix gives the same band."""

FEWEST_POINTS = 4
"""With three points one degree of freedom is left, and the band is as good as infinite."""

STEPS_PER_WINDOW = 8
"""Steps of a window at which a drawn entropy is evaluated for its mean."""

Band = tuple[FloatArray, FloatArray]


class AccuracyBands:
    """Draws of the law and its noise, conditioned on a prefix, applied to any later entropies."""

    def __init__(self, prefix: Points) -> None:
        """Fit the law to the prefix: at least 4 points whose entropies differ (see `can_be_drawn`)."""
        self._rng = np.random.default_rng(SEED)
        self._last_step = float(prefix.step[-1])
        self._spacing = float(np.median(np.diff(prefix.step)))
        x = np.exp(prefix.entropy)
        line = correlated_line(x, prefix.accuracy, gaps=prefix.gaps, precisions=prefix.weights)
        self._centre, self._unit = line.centre, line.unit
        self._draws = line.fit.draws(self._rng, NUM_DRAWS)
        self._last_residual = prefix.accuracy[-1] - self._line(np.array([x[-1]]))[:, 0]

    @staticmethod
    def can_be_drawn(prefix: Points) -> bool:
        """Enough points, and entropies that differ."""
        return prefix.entropy.size >= FEWEST_POINTS and not is_flat(np.exp(prefix.entropy))

    def curve(self, entropy: FloatArray) -> Band:
        """Band of the law itself at these entropies (m,), without the noise of an observation."""
        return central_part(self._line(np.exp(entropy)))

    def observed_entropy(self, entropy: FloatArray, step: FloatArray) -> Band:
        """Band of the accuracies at later steps whose entropies (m,) are known."""
        return self._band(np.exp(entropy), step)

    def drawn_entropy(self, entropy: FloatArray, step: FloatArray) -> Band:
        """Band of the accuracies at later steps for drawn entropies (NUM_DRAWS, m)."""
        return self._band(np.exp(entropy), step)

    def _line(self, x: FloatArray) -> FloatArray:
        level, slope = self._draws.coefficients[:, :1], self._draws.coefficients[:, 1:]
        return np.asarray(level + slope * (x - self._centre) / self._unit, dtype=np.float64)

    def _band(self, x: FloatArray, step: FloatArray) -> Band:
        gaps = np.diff(step, prepend=self._last_step) / self._spacing
        noise = continued_noise(self._rng, self._draws, self._last_residual, gaps)
        return central_part(self._line(x) + noise)


def central_part(values: FloatArray) -> Band:
    """The central 95 % of draws (D, m), column by column."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def continued_noise(rng: np.random.Generator, draws: Draws, last_residual: FloatArray, gaps: FloatArray) -> FloatArray:
    """AR(1) noise that goes on from the last residual of each draw.

        e_j = φ_j·e_{j-1} + √(1 - φ_j²)·σ·u_j,    φ_j = sign(ρ)·|ρ|^gap_j

    Returns:
      (D, m) for gaps (m,).
    """
    noise = np.empty((draws.scales.size, gaps.size))
    state = last_residual
    for index, gap in enumerate(gaps):
        phi = np.sign(draws.correlations) * np.abs(draws.correlations) ** gap
        state = phi * state + np.sqrt(1 - phi**2) * draws.scales * rng.standard_normal(draws.scales.size)
        noise[:, index] = state
    return noise


def drawn_entropies(decay: DecayMixture, windows: Sequence[tuple[float, float]]) -> FloatArray:
    """(NUM_DRAWS, m): entropies that may follow the prefix, each the mean over the steps of one window.

    Args:
      decay: the mixture fitted on the prefix.
      windows: first and last step of each window, increasing, whole steps apart.

    Draws along which entropy rises are held at their level, as the decay itself is: that a rise goes on for ever is no
    forecast.
    """
    rng = np.random.default_rng(SEED + 1)
    draws = decay.fit.draws(rng, NUM_DRAWS)
    level, change = draws.coefficients.T
    done = np.mean(decay.columns(decay.steps), axis=1)[draws.members]
    rising = change > 0
    level, change = np.where(rising, level + change * done, level), np.where(rising, 0.0, change)

    places = [np.unique(np.linspace(first, last, STEPS_PER_WINDOW).round()) for first, last in windows]
    steps = np.concatenate(places) if places else np.empty(0)
    known = decay.columns(decay.steps[-1:])[draws.members, 0]
    last_residual = decay.logs[-1] - (level + change * known)
    after = np.maximum(steps - decay.steps[-1], 0.0)
    gaps = np.maximum(np.diff(after, prepend=0.0), 0.0) / decay.spacing
    noise = continued_noise(rng, draws, last_residual, gaps)
    logs = level[:, None] + change[:, None] * decay.columns(steps)[draws.members] + noise
    entropies = np.exp(np.minimum(logs, np.log(LARGEST_ENTROPY_NATS)))
    ends = np.cumsum([place.size for place in places])
    parts = np.split(entropies, ends[:-1], axis=1) if places else []
    return np.stack([part.mean(axis=1) for part in parts], axis=1) if parts else np.empty((NUM_DRAWS, 0))
