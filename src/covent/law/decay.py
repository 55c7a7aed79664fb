"""Entropy's own decay over steps, the second model that an unconditional forecast needs.

Two forms, chosen by the data:

    power      H(t) = H0·(1 + (t - t0)/τ)^(-p)              τ > 0,  p >= 0: falls for ever
    plateau    H(t) = F·(H0/F)^exp(-(t - t0)/τ)             τ > 0,  F > 0:  ln H settles exponentially at ln F

The power contains the two shapes that uncontrolled runs show as limits: a power law (small τ) and an exponential (τ and
p large with p/τ fixed), and with p = 0 an entropy that does not fall. The plateau is what runs with an entropy control
show (Clip-Cov, KL-Cov). Both are straight lines in ln H once τ is fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.errors import FitError
from covent.law.correlated import CorrelatedFit, correlated_line
from covent.law.criterion import DECISIVE_AICC, aicc
from covent.law.family import family_fit
from covent.law.line import Line, is_flat, least_squares
from covent.law.series import FloatArray, aligned, check_entropy, check_increasing, gaps_of

FEWEST_POINTS = 3
"""H0, τ and p: fewer points do not determine them."""

FEWEST_FOR_PLATEAU = 8
"""Below, the criterion that decides between the forms means nothing, and the power is taken."""

TAU_GRID: FloatArray = np.geomspace(1e-3, 1e3, 241)
"""τ of the power in units of the span of the steps, in steps of 6 %. At 10³ the curve is exponential to 0.05 %."""

PLATEAU_TAU_GRID: FloatArray = np.geomspace(2e-2, 0.5, 56)
"""τ of the plateau in the same units, in steps of 6 %. Beyond half the span the plateau would lie outside the data."""

FormName = Literal["power", "plateau"]


class EntropyDecay(BaseModel):
    """The decay fitted by least squares on ln H, in the form that the data support."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    form: FormName = "power"
    initial_entropy: float
    """H0: entropy of the curve at `origin`, nats."""
    tau: float
    """Steps."""
    power: float
    """p, at least 0; 0 for a plateau."""
    floor: float | None = None
    """F: where a plateau settles, nats; None for a power."""
    origin: float
    """t0: the first step of the series."""
    last_step: float
    """The last step of the series; beyond it the curve is an extrapolation."""
    rmse_log: float
    """Root of the mean squared residual of ln H: 0.1 is about 10 % of H."""
    plateau_gain: float | None = None
    """AICc of the power minus AICc of the plateau, under AR(1) noise; the plateau is taken from 4 on. None below 8
    points and where entropy does not fall."""
    n: int
    warnings: list[str]

    def at(self, step: ArrayLike) -> FloatArray:
        """H in nats at each step, any shape.

        Raises:
          FitError: a step lies before the origin; the curve is not defined for all of them.
        """
        steps = np.asarray(step, dtype=np.float64)
        if steps.size and not float(np.min(steps)) >= self.origin:
            raise FitError(f"step {np.min(steps):g} lies before {self.origin:g}, the first fitted; ask from there.")
        elapsed = (steps - self.origin) / self.tau
        if self.floor is not None:
            rise = np.log(self.initial_entropy / self.floor)
            return np.asarray(self.floor * np.exp(rise * np.exp(-elapsed)), dtype=np.float64)
        return np.asarray(self.initial_entropy * np.exp(-self.power * np.log1p(elapsed)), dtype=np.float64)


def fit_decay(step: ArrayLike, entropy: ArrayLike) -> EntropyDecay:
    """The decay that fits a series of entropies best in ln H.

        power:    ln H(t) = ln H0 - p·ln(1 + (t - t0)/τ)
        plateau:  ln H(t) = ln F + ln(H0/F)·exp(-(t - t0)/τ)

    Each is a straight line for each τ of a fixed grid; the τ with the least sum of squared residuals is taken, the
    smallest of equals. The plateau is taken where its AICc, under AR(1) noise, is better by 4 at least.

    Args:
      step: increasing, shape (n,); t0 is the first.
      entropy: H > 0 in nats, shape (n,).

    Returns:
      The decay. Where entropy rises, p is held at 0: the curve is then flat at the geometric mean of H.

    Raises:
      ShapeError: the series differ in length.
      FitError: fewer than 3 points, steps that do not increase, or an entropy that is not positive.

    Example:
      >>> decay = fit_decay([0, 10, 20, 30, 40], [0.2, 0.1, 0.2 / 3, 0.05, 0.04])
      >>> round(decay.initial_entropy, 3), round(decay.power, 2)
      (0.2, 1.0)
    """
    steps, logs = _checked(step, entropy)
    span = float(steps[-1] - steps[0])
    best = _best_line("power", steps, logs)
    if best is None:
        return _flat(steps, logs)
    gain, plateau = None, _best_line("plateau", steps, logs)
    if plateau is not None and steps.size >= FEWEST_FOR_PLATEAU:
        gain = _criterion(steps, logs, best) - _criterion(steps, logs, plateau)
    chosen = plateau if plateau is not None and gain is not None and gain >= DECISIVE_AICC else best
    line = chosen.line
    is_plateau = chosen.form == "plateau"
    return EntropyDecay(
        form=chosen.form,
        initial_entropy=float(np.exp(line.intercept + (line.slope if is_plateau else 0.0))),
        tau=span * chosen.tau,
        power=0.0 if is_plateau else -line.slope,
        floor=float(np.exp(line.intercept)) if is_plateau else None,
        origin=float(steps[0]),
        last_step=float(steps[-1]),
        rmse_log=line.rmse,
        plateau_gain=gain,
        n=steps.size,
        warnings=_warnings(chosen),
    )


def _checked(step: ArrayLike, entropy: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Steps and ln H."""
    steps, values = aligned(step=step, entropy=entropy)
    check_increasing("step", steps)
    check_entropy("entropy", values)
    if steps.size < FEWEST_POINTS:
        raise FitError(f"{steps.size} points of entropy; its decay needs at least {FEWEST_POINTS}.")
    if not np.all(values > 0):
        index = int(np.argmin(values > 0))
        raise FitError(
            f"entropy[{index}] = {values[index]:g} at step {steps[index]:g}; the decay is fitted on ln H and needs"
            " H > 0. A zero often means that a fused kernel did not report entropy."
        )
    return steps, np.log(values)


def _column(form: FormName, elapsed: FloatArray, tau: float) -> FloatArray:
    """What ln H is a straight line in; `elapsed` and τ in the same unit."""
    return np.log1p(elapsed / tau) if form == "power" else np.exp(-elapsed / tau)


@dataclass(frozen=True, slots=True)
class _Shape:
    form: FormName
    tau: float
    """In units of the span."""
    line: Line
    on_edge: int
    """-1 or 1 where τ is the smallest or largest of the grid, else 0."""


def _best_line(form: FormName, steps: FloatArray, logs: FloatArray) -> _Shape | None:
    """The line with the least error among those along which entropy falls; None if it falls along none."""
    grid = TAU_GRID if form == "power" else PLATEAU_TAU_GRID
    elapsed = (steps - steps[0]) / (steps[-1] - steps[0])
    falling = -1 if form == "power" else 1
    columns = [_column(form, elapsed, tau) for tau in grid]
    lines = [None if is_flat(column) else least_squares(column, logs) for column in columns]
    errors = [
        float(line.residuals @ line.residuals) if line is not None and line.slope * falling > 0 else np.inf
        for line in lines
    ]
    best = int(np.argmin(errors))
    line = lines[best]
    if line is None or not np.isfinite(errors[best]):
        return None
    edge = {0: -1, grid.size - 1: 1}.get(best, 0)
    return _Shape(form, float(grid[best]), line, edge)


def _criterion(steps: FloatArray, logs: FloatArray, shape: _Shape) -> float:
    column = _column(shape.form, (steps - steps[0]) / (steps[-1] - steps[0]), shape.tau)
    likelihood = correlated_line(column, logs, gaps=gaps_of(steps)).fit.log_likelihood
    found = aicc(likelihood, 3, steps.size)
    assert found is not None, "FEWEST_FOR_PLATEAU is chosen so"
    return found


def _flat(steps: FloatArray, logs: FloatArray) -> EntropyDecay:
    return EntropyDecay(
        initial_entropy=float(np.exp(np.mean(logs))),
        tau=float(steps[-1] - steps[0]),
        power=0.0,
        origin=float(steps[0]),
        last_step=float(steps[-1]),
        rmse_log=float(np.std(logs)),
        n=steps.size,
        warnings=["Entropy does not fall over these steps; it is extrapolated as constant."],
    )


def _warnings(shape: _Shape) -> list[str]:
    if shape.form == "plateau":
        floor = float(np.exp(shape.line.intercept))
        return [f"Entropy settles at about {floor:.3g} nats over these steps; it is extrapolated as staying there."]
    if shape.on_edge > 0:
        return ["The decay is exponential or faster over these steps; extrapolated, entropy vanishes quickly."]
    if shape.on_edge < 0:
        return ["Nearly all of the decay lies in the first step of the series; the extrapolation rests on the rest."]
    return []


FEWEST_FOR_BAND = 5
"""Level, change and spread, and something left for the form and its τ."""

MIXED_TAUS = 24
"""Members of each form in the mixture that the bands are drawn from: its τ in steps of 78 % and 15 %."""


class DecayMixture:
    """Both forms at every τ at once, each weighted by what the data say for it: what the bands of a forecast need."""

    def __init__(self, step: ArrayLike, entropy: ArrayLike) -> None:
        """Args, Raises: as `fit_decay`, and FitError for fewer than 5 points, from which no band can be drawn."""
        steps, logs = _checked(step, entropy)
        if steps.size < FEWEST_FOR_BAND:
            raise FitError(f"{steps.size} points of entropy; a band of its decay needs at least {FEWEST_FOR_BAND}.")
        self.origin, self.span = float(steps[0]), float(steps[-1] - steps[0])
        self.spacing = float(np.median(np.diff(steps)))
        self.steps, self.logs = steps, logs
        shapes: list[tuple[FormName, float]] = [("power", tau) for tau in np.geomspace(1e-3, 1e3, MIXED_TAUS)]
        shapes += [("plateau", tau) for tau in np.geomspace(2e-2, 0.5, MIXED_TAUS)]
        self._shapes = shapes
        raw = self._raw_columns(steps)
        self._starts, self._ranges = raw[:, 0], raw[:, -1] - raw[:, 0]
        self.fit: CorrelatedFit = family_fit(self.columns(steps), logs, gaps=gaps_of(steps))

    def columns(self, steps: FloatArray) -> FloatArray:
        """(K, n): the share of the fall within the data that is done at each step, 0 at the first, 1 at the last."""
        return (self._raw_columns(steps) - self._starts[:, None]) / self._ranges[:, None]

    def _raw_columns(self, steps: FloatArray) -> FloatArray:
        elapsed = (steps - self.origin) / self.span
        return np.stack([_column(form, elapsed, tau) for form, tau in self._shapes])
