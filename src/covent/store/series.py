"""From the rows of a run to the points (entropy, accuracy) that the law R = -a·exp(H) + b is fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covent.errors import StoreError
from covent.readings import Mean
from covent.store.reader import Run
from covent.store.schema import StepRow


@dataclass(frozen=True, eq=False)
class LawSeries:
    """Points of the law in the order of time; all arrays have the same length, which may be 0."""

    step: NDArray[np.int64]
    """The last rollout step of a point's block: the step at which the point is known."""
    entropy: NDArray[np.float64]
    """Mean policy entropy over the block, nats."""
    accuracy: NDArray[np.float64]
    """Share right, in [0, 1]."""
    window: int
    """Rollout steps in a block."""

    def __len__(self) -> int:
        return len(self.step)


def law_series(run: Run, source: Literal["validation", "training"], window: int | None = None) -> LawSeries:
    """Entropy and accuracy of a run over blocks of `window` rollout steps.

        block j = steps [j·w, (j+1)·w),  H_j = mean over the block of the step entropies
        validation: R_j = avg@k of the evaluation at the middle policy of the block, step j·w + ⌊w/2⌋
        training:   R_j = mean training reward over the block, (sum, count) merged

    The evaluation in the middle sees the policy that the block's entropy is centred on. Evaluations at other steps,
    such as those of the untrained and of the final policy, are not points of the law. Blocks that miss a step, an
    entropy or an accuracy are left out.

    Args:
        run: a run folder that was read.
        source: which accuracy is R.
        window: rollout steps in a block; by default the run's own `evaluation.every`.

    Raises:
        StoreError: no window is given and the run's settings have no usable `evaluation.every`.
    """
    width = _evaluation_interval(run) if window is None else window
    if width < 1:
        raise StoreError(f"A block of the law needs at least 1 rollout step, not {width}.")
    validation = {row.step: row.avg.value for row in run.evaluations if row.split == "validation"}
    blocks: dict[int, list[StepRow]] = {}
    for row in run.steps:
        blocks.setdefault(row.step // width, []).append(row)

    points: list[tuple[int, float, float]] = []
    for block, rows in sorted(blocks.items()):
        entropies = [row.entropy.value for row in rows]
        known = [value for value in entropies if value is not None]
        middle = block * width + width // 2
        accuracy = validation.get(middle) if source == "validation" else _merged_reward(rows)
        if len(known) == width and accuracy is not None:
            points.append(((block + 1) * width - 1, float(np.mean(known)), accuracy))
    return LawSeries(
        step=np.array([point[0] for point in points], dtype=np.int64),
        entropy=np.array([point[1] for point in points], dtype=np.float64),
        accuracy=np.array([point[2] for point in points], dtype=np.float64),
        window=width,
    )


def _merged_reward(rows: list[StepRow]) -> float | None:
    total = Mean(sum=0.0, count=0)
    for row in rows:
        total = total + row.reward
    return total.value


def _evaluation_interval(run: Run) -> int:
    """`evaluation.every` of the run's settings."""
    section = run.header.config.get("evaluation")
    every = section.get("every") if isinstance(section, dict) else None
    if not isinstance(every, int) or isinstance(every, bool) or every < 1:
        if run.is_header_lost and every is None:
            raise StoreError("No file says evaluation.every, which sets the blocks of the law.")
        raise StoreError(
            f"{run.folder / 'run.json'} has no usable setting evaluation.every (found {every!r}); it must be a whole"
            f" number of at least 1, as it sets the blocks of the law. covent explain and covent fit take their width"
            f" as --window instead."
        )
    return every
