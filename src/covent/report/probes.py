"""The entropy changes of a run on its probe states, as arrays: observed, accounted and predicted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covent.report.agreement import Floats, Quantity, sum_by_step
from covent.store.reader import Run


@dataclass(frozen=True, eq=False)
class ProbeSeries:
    """Entropy changes in the order of time, nats."""

    step: NDArray[np.int64]
    """Rollout step of each entry."""
    observed: Floats
    explained: Mapping[Quantity, Floats]
    """What should explain the observed change, by its name; see `covent.readings.ProbeReading`."""


def probe_series(run: Run) -> ProbeSeries | None:
    """One entry for each optimizer step that was probed; None if none was."""
    rows = [(row, row.probe) for row in run.updates if row.probe is not None]
    if not rows:
        return None
    return ProbeSeries(
        step=np.array([row.step for row, _ in rows], dtype=np.int64),
        observed=np.array([probe.observed for _, probe in rows]),
        explained={
            "accounted": np.array([probe.accounted for _, probe in rows]),
            "theorem 1": np.array([probe.predicted_theorem1 for _, probe in rows]),
            "theorem 2": np.array([probe.predicted_theorem2 for _, probe in rows]),
        },
    )


def by_rollout_step(series: ProbeSeries) -> ProbeSeries:
    """The same changes, added up over the optimizer steps of each rollout step."""
    steps, observed = sum_by_step(series.step, series.observed)
    explained = {name: sum_by_step(series.step, values)[1] for name, values in series.explained.items()}
    return ProbeSeries(step=steps, observed=observed, explained=explained)
