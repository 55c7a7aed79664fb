"""Whether accuracy rises at equal entropy: then something besides entropy is at work, and the law does not apply.

The law says that accuracy is bought with entropy alone. Where a control holds entropy up, accuracy still rises, and a
fit of R against H then means nothing, however large its R². Time beside exp(H) in one regression tells:

    R = b - a·exp(H) + d·t + noise,    t from 0 at the first point to 1 at the last
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.law.correlated import Interval
from covent.law.family import FULL_RANK, family_fit, left_over
from covent.law.line import is_flat
from covent.law.series import Points

FEWEST_POINTS = 6
"""Three coefficients, σ and ρ, and one point to disagree."""

LEVEL = 0.95


class Drift(BaseModel):
    """What time adds to the law."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gain: float
    """d: accuracy gained over the run at equal entropy, unit of R; its mean given the data."""
    gain_interval: Interval
    """95 %, under AR(1) noise."""
    entropy_gain: float
    """The most that entropy can account for beside it: a·(range of exp(H)), at least 0."""

    @property
    def is_clear(self) -> bool:
        """The interval excludes 0, on either side."""
        return self.gain_interval[0] > 0 or self.gain_interval[1] < 0

    @property
    def outweighs_entropy(self) -> bool:
        """Accuracy certainly rose at equal entropy, and by more than entropy accounts for."""
        return self.gain_interval[0] > 0 and self.gain > self.entropy_gain


def drift_at_equal_entropy(points: Points) -> Drift | None:
    """The law with time beside exp(H), under AR(1) noise.

    Returns:
      None below 6 points, for flat entropy, and where exp(H) is a straight line in time, so that the two are one.
    """
    x, n = np.exp(points.entropy), points.entropy.size
    if n < FEWEST_POINTS or is_flat(x):
        return None
    time = (points.step - points.step[0]) / (points.step[-1] - points.step[0])
    spent = (x - np.mean(x)) / np.ptp(x)
    centred = time - np.mean(time)
    if left_over(time[None], spent)[0] <= FULL_RANK:
        return None
    columns = np.stack([spent, centred], axis=1)[np.newaxis]
    fitted = family_fit(columns, points.accuracy, gaps=points.gaps, precisions=points.weights)
    middle = fitted.weights @ fitted.coefficients
    return Drift(
        gain=float(middle[2]),
        gain_interval=fitted.interval(np.array([0.0, 0.0, 1.0]), LEVEL),
        entropy_gain=max(0.0, -float(middle[1])),
    )
