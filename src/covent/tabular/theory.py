"""Each case over many random problems: the order of its error, and how far the prediction is off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from covent.errors import ConfigError
from covent.tabular.cases import BROKEN, HOLDING, Case, Step
from covent.tabular.order import STEP_SIZES, ErrorOrder
from covent.tabular.softmax import FloatArray

MIN_PROBLEMS = 10
"""A single problem may have a covariance so near 0 that even small steps are large for it."""

_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class CaseReading:
    """What was measured of one case."""

    case: Case
    order: ErrorOrder
    """Of the statement's median relative error."""
    lemma_1_order: ErrorOrder | None
    """Of Lemma 1's, from the logits as they in fact changed."""
    ratio: tuple[float, float, float]
    """Observed over predicted at the smallest step: 10 %, 50 % and 90 % of all states and problems."""
    same_sign_frac: float
    """Share of them where the prediction has the right sign."""


@dataclass(frozen=True)
class Study:
    """The table of `covent theory`."""

    seed: int
    num_problems: int
    holding: tuple[CaseReading, ...]
    broken: tuple[CaseReading, ...]

    @property
    def agrees(self) -> bool:
        """Whether every statement is exact or of first order where its assumptions are met."""
        return all(reading.order.verdict != "fails" for reading in self.holding)


def study(
    seed: int = 0, num_problems: int = 100, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Study:
    """Measure every case.

    Args:
      seed: decides the problems; every case draws its own.
      num_problems: for each case, at least `MIN_PROBLEMS`.
      progress: called with (done, total) after each case.
    Raises: ConfigError for too few problems or a negative seed.
    """
    if num_problems < MIN_PROBLEMS:
        raise ConfigError(f"problems = {num_problems}; ask for at least {MIN_PROBLEMS}, or a median says too little.")
    if seed < 0:
        raise ConfigError(f"seed = {seed}; it must not be negative.")
    cases = HOLDING + BROKEN
    readings = []
    for index, case in enumerate(cases):
        readings.append(measure(case, np.random.default_rng([seed, index]), num_problems))
        progress(index + 1, len(cases))
    return Study(seed, num_problems, tuple(readings[: len(HOLDING)]), tuple(readings[len(HOLDING) :]))


def measure(
    case: Case, rng: np.random.Generator, num_problems: int, step_sizes: tuple[float, ...] = STEP_SIZES
) -> CaseReading:
    """One case over random problems, each of them at every step size."""
    problems = [case.draw(rng) for _ in range(num_problems)]
    by_size = [[step_at(size) for step_at in problems] for size in step_sizes]
    medians = tuple(float(np.median(_statement_errors(steps))) for steps in by_size)
    predicted = np.concatenate([step.statement.predicted.ravel() for step in by_size[-1]])
    observed = np.concatenate([step.statement.observed.ravel() for step in by_size[-1]])
    told = predicted != 0
    low, middle, high = np.quantile(observed[told] / predicted[told], _QUANTILES)
    return CaseReading(
        case=case,
        order=ErrorOrder(step_sizes, medians),
        lemma_1_order=_lemma_1_order(by_size, step_sizes),
        ratio=(float(low), float(middle), float(high)),
        same_sign_frac=float((np.sign(predicted) == np.sign(observed)).mean()),
    )


def _statement_errors(steps: Sequence[Step]) -> FloatArray:
    return np.concatenate([step.statement.relative_errors for step in steps])


def _lemma_1_order(by_size: Sequence[Sequence[Step]], step_sizes: tuple[float, ...]) -> ErrorOrder | None:
    medians = []
    for steps in by_size:
        errors = [step.lemma_1.relative_errors for step in steps if step.lemma_1 is not None]
        if not errors:
            return None
        medians.append(float(np.median(np.concatenate(errors))))
    return ErrorOrder(step_sizes, tuple(medians))
