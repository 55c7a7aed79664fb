"""Accuracy before and after, and between runs, on the same problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covent.store.reader import Run
from covent.store.schema import Estimate, EvaluationRow

Z95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""


class Difference(BaseModel):
    """A difference of two accuracies on the same problems, with its 95 % interval over problems."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


class AccuracyChange(BaseModel):
    """One accuracy measure at the first and at the last evaluation of a split; both are never None."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    split: Literal["validation", "test"]
    measure: str
    """`greedy`, `avg@k` or `pass@k`."""
    num_problems: int
    start: Estimate | None
    """The untrained policy; None if only trained policies were evaluated."""
    end: Estimate | None
    """The trained policy; None where the run ended before it was evaluated."""
    end_step: int | None
    difference: Difference | None
    """End minus start, paired by problem; None without a start, and for greedy, of which only the mean is kept."""


def accuracy_changes(run: Run) -> list[AccuracyChange]:
    """Every measure of each split that was evaluated, test first."""
    changes: list[AccuracyChange] = []
    for split in ("test", "validation"):
        rows = sorted((row for row in run.evaluations if row.split == split), key=lambda row: row.step)
        if rows:
            start = rows[0] if rows[0].step == 0 else None
            changes += _changes(start, rows[-1] if rows[-1].step > 0 else None)
    return changes


def last_test(run: Run) -> EvaluationRow | None:
    """The last evaluation on test problems."""
    rows = [row for row in run.evaluations if row.split == "test"]
    return max(rows, key=lambda row: row.step) if rows else None


def measures(row: EvaluationRow) -> dict[str, Estimate]:
    """All accuracies of an evaluation by name: greedy, avg@k, pass@1 and so on."""
    found = {} if row.greedy is None else {"greedy": row.greedy}
    found[f"avg@{row.num_samples}"] = row.avg
    # pass@1 is avg@k by another name.
    ks = sorted((k for k in row.pass_at if k != "1"), key=int)
    return found | {f"pass@{k}": row.pass_at[k] for k in ks}


def problem_scores(row: EvaluationRow, measure: str) -> NDArray[np.float64] | None:
    """Each problem's own value of a measure, whose mean is the measure; None for greedy.

    Source: pass@k is the unbiased estimator 1 - C(n-c, k)/C(n, k) of Chen et al., arXiv 2107.03374.
    """
    kind, _, number = measure.partition("@")
    n = row.num_samples
    if kind == "avg":
        return np.array(row.num_right, dtype=np.float64) / n
    if kind == "pass" and int(number) <= n:
        k = int(number)
        return np.array([1 - math.comb(n - right, k) / math.comb(n, k) for right in row.num_right])
    return None


def paired_difference(after: EvaluationRow, before: EvaluationRow, measure: str) -> Difference | None:
    """The difference of a measure between two evaluations of the same problems.

        d_i = score_i(after) - score_i(before),    mean(d) ± 1.96·sd(d)/√n

    The interval is about the choice of problems and the sampling of responses. It knows nothing of training seeds.

    Args:
        after: the evaluation that is subtracted from.
        before: the evaluation that is subtracted.
        measure: `avg@k` or `pass@k`.

    Returns:
        The difference; None if the evaluations are not of the same problems, or hold no value per problem.
    """
    if after.num_problems != before.num_problems or after.split != before.split or after.num_problems < 2:
        return None
    if measure not in measures(after) or measure not in measures(before):
        return None
    scores = problem_scores(after, measure), problem_scores(before, measure)
    if scores[0] is None or scores[1] is None:
        return None
    differences = scores[0] - scores[1]
    mean = float(differences.mean())
    half = Z95 * float(differences.std(ddof=1)) / math.sqrt(len(differences))
    return Difference(value=mean, low=mean - half, high=mean + half)


def same_test_problems(runs: Sequence[Run]) -> bool:
    """Whether the runs were tested on the same problems in the same order, as far as their verdicts tell."""
    hashes = {tuple(row.problem for row in run.verdicts if row.split == "test" and row.step == 0) for run in runs}
    return len(hashes) == 1


def _changes(start: EvaluationRow | None, end: EvaluationRow | None) -> list[AccuracyChange]:
    some = end or start
    assert some is not None
    before, after = ({} if row is None else measures(row) for row in (start, end))
    return [
        AccuracyChange(
            split=some.split,
            measure=measure,
            num_problems=some.num_problems,
            start=before.get(measure),
            end=after.get(measure),
            end_step=None if end is None else end.step,
            difference=None if start is None or end is None else paired_difference(end, start, measure),
        )
        for measure in measures(some)
    ]
