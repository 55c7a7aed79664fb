"""Simulated runs of which the truth is known, and the paper's digitised curves, whose entropies place their points.

The points of a run are not spread evenly over entropy: it falls fast, then creeps. So each simulated run has the
entropies of one of the paper's three curves, stretched to the number of points wanted, and its a and b.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CURVES = Path(__file__).parents[1] / "tests" / "law" / "data" / "qwen25_math.csv"

DRAWN_LINES = {"1.5B": (9.5, 35.0), "3B": (17.5, 47.9), "7B": (20.9, 59.6)}
"""a and b of the lines drawn in the paper's figure, percent; read off to 0.1."""

NOISE = 0.5
"""Standard deviation of one accuracy about the law, percent: about what the digitised markers show."""


def digitised() -> dict[str, tuple[FloatArray, FloatArray]]:
    """Model → (entropy in nats, accuracy in percent), in order of falling entropy."""
    rows = csv.reader(line for line in CURVES.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    next(rows)
    points: dict[str, list[tuple[float, float]]] = {}
    for model, entropy, accuracy in rows:
        points.setdefault(model, []).append((float(entropy), float(accuracy)))
    return {model: (np.array(pairs)[:, 0], np.array(pairs)[:, 1]) for model, pairs in points.items()}


def entropies(model: str, n: int) -> FloatArray:
    """(n,) entropies placed as the markers of one of the paper's curves."""
    marks = np.sort(digitised()[model][0])[::-1]
    return np.interp(np.linspace(0, marks.size - 1, n), np.arange(marks.size), marks)


def autoregressive(rng: np.random.Generator, count: int, rho: float, gaps: FloatArray) -> FloatArray:
    """(count, n) AR(1) noise with standard deviation 1; neighbours correlate by ρ^gap."""
    noise = np.empty((count, gaps.size))
    noise[:, 0] = rng.standard_normal(count)
    for t in range(1, gaps.size):
        phi = rho ** gaps[t]
        noise[:, t] = phi * noise[:, t - 1] + np.sqrt(1 - phi**2) * rng.standard_normal(count)
    return noise


@dataclass(frozen=True)
class World:
    """A way in which accuracies come about."""

    name: str
    accuracies: Callable[[np.random.Generator, int, FloatArray, float, float], FloatArray]
    """(rng, count, H, a, b) → (count, n), percent."""
    rho: float | None = None
    """The correlation of the noise where it is AR(1), so that an interval with ρ known can be drawn beside."""
    uneven: bool = False
    """Whether the points are 1 to 4 steps apart, by chance but the same for all runs."""

    def gaps(self, n: int) -> FloatArray:
        """(n,) steps between a point and the one before."""
        return np.random.default_rng(n).integers(1, 5, n).astype(np.float64) if self.uneven else np.ones(n)


def law_with_noise(rho: float, uneven: bool = False) -> World:
    """The law is true and its noise is AR(1), or white for ρ = 0."""
    name = f"AR(1) {rho:g}" if rho else "white"

    def accuracies(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
        gaps = world.gaps(h.size) / np.median(world.gaps(h.size))
        return b - a * np.exp(h) + NOISE * autoregressive(rng, count, rho, gaps)

    world = World(f"{name}, points 1 to 4 steps apart" if uneven else name, accuracies, rho, uneven)
    return world


def _arma(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
    slow = autoregressive(rng, count, 0.9, np.ones(h.size))
    return b - a * np.exp(h) + NOISE * np.sqrt(0.5) * (slow + rng.standard_normal(slow.shape))


def _binomial(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
    questions = 500
    return rng.binomial(questions, np.clip((b - a * np.exp(h)) / 100, 0, 1), (count, h.size)) * 100 / questions


def _heavy(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
    return b - a * np.exp(h) + NOISE / np.sqrt(3) * rng.standard_t(3, (count, h.size))


def _straight(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
    """Linear in H instead of exp(H), with the same ceiling."""
    noise = NOISE * autoregressive(rng, count, 0.5, np.ones(h.size))
    return (b - a) - a * h + noise


def _kinked(rng: np.random.Generator, count: int, h: FloatArray, a: float, b: float) -> FloatArray:
    """The law down to H = 0.1, below which accuracy stands still."""
    noise = NOISE * autoregressive(rng, count, 0.5, np.ones(h.size))
    return b - a * np.exp(np.maximum(h, 0.1)) + noise


RIGHT = [law_with_noise(0.0), law_with_noise(0.5), law_with_noise(0.8)]
"""The model of the intervals is true: these carry the bar."""

UNEVEN = law_with_noise(0.8, uneven=True)

HARD = [
    (law_with_noise(0.95), 60),
    (law_with_noise(0.95), 200),
    (law_with_noise(0.99), 60),
    (law_with_noise(0.99), 200),
    (law_with_noise(0.8), 8),
    (law_with_noise(0.8), 12),
    (law_with_noise(0.8, uneven=True), 8),
    (law_with_noise(0.8, uneven=True), 12),
]
"""Worlds and lengths in which the noise remembers longer than the points can show; reported without a bar."""

WRONG = [
    World("ARMA: half AR(1) 0.9, half white", _arma),
    World("binomial, 500 questions", _binomial),
    World("heavy tails, t with 3 degrees of freedom", _heavy),
    World("truth is a straight line in H, AR(1) 0.5", _straight),
    World("the law ends at H = 0.1, AR(1) 0.5", _kinked),
]
"""The model of the intervals is wrong; reported without a bar."""


def true_ceiling(world: World, a: float, b: float) -> float:
    """Accuracy at zero entropy, percent."""
    return b - a * np.exp(0.1) if world.accuracies is _kinked else b - a


def whole_run(rng: np.random.Generator, num_steps: int, window: int, plateau: bool) -> dict[str, FloatArray]:
    """A run by step: entropy decays with 10 % AR(1) 0.5 noise, accuracy follows the law of the 7B curve.

    Returns:
      steps and entropies of every rollout step (`series_step`, `series`), and the points of the law, each the mean of
      `window` steps (`step`, `entropy`, `accuracy`).
    """
    t = np.arange(num_steps, dtype=np.float64)
    tau = num_steps * rng.uniform(0.05, 0.2)
    mean = 0.05 * 10 ** np.exp(-t / tau) if plateau else 0.5 * (1 + t / tau) ** -rng.uniform(0.7, 1.3)
    series = mean * np.exp(0.1 * autoregressive(rng, 1, 0.5, np.ones(num_steps))[0])
    entropy = series.reshape(-1, window).mean(axis=1)
    noise = NOISE * autoregressive(rng, 1, 0.5, np.ones(entropy.size))[0]
    a, b = DRAWN_LINES["7B"]
    step = t[window - 1 :: window]
    accuracy = b - a * np.exp(entropy) + noise
    return {"series_step": t, "series": series, "step": step, "entropy": entropy, "accuracy": accuracy}
