"""The forecast of a run while it goes on: the same law and decay as afterwards, one point at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from covent.law.forecast import Forecast, forecast
from covent.law.series import Unit

FEWEST_POINTS = 3
"""Below, two coefficients fit anything."""


def outlook(ahead: Forecast) -> dict[str, Any]:
    """A forecast as the fields of a run folder's row, without the step."""
    ceiling_low, ceiling_high = ahead.law.ceiling_interval or (None, None)
    final = ahead.final
    return {
        "num_points": ahead.num_prefix,
        "ceiling": ahead.ceiling,
        "ceiling_low": ceiling_low,
        "ceiling_high": ceiling_high,
        "identified": ahead.identified,
        "final": final.accuracy if final else None,
        "final_low": final.low if final else None,
        "final_high": final.high if final else None,
    }


class Forecaster:
    """Collects a run's entropy and accuracy as they become known and forecasts the rest from them alone.

    Rollout steps are grouped in blocks of `every`; a block's point is its mean entropy and the accuracy evaluated in
    it, known at its last step: the points that a finished run's report fits.
    """

    def __init__(self, num_steps: int, *, every: int, unit: Unit = "fraction") -> None:
        """Args:
        num_steps: rollout steps of the whole run.
        every: rollout steps in a block.
        unit: of the accuracies.
        """
        self._num_steps, self._every, self._unit = num_steps, every, unit
        self._entropies: list[tuple[int, float]] = []
        self._points: list[tuple[int, float, float]] = []
        self._accuracy: float | None = None

    @property
    def num_points(self) -> int:
        """Points of the law so far."""
        return len(self._points)

    def evaluated(self, accuracy: float) -> None:
        """Take in the accuracy of an evaluation inside the current block."""
        self._accuracy = accuracy

    def recall(self, entropies: Iterable[tuple[int, float | None]], accuracies: Mapping[int, float]) -> None:
        """Take in what was recorded before, without a forecast.

        Args:
          entropies: (step, mean entropy) of each rollout step so far, in order.
          accuracies: by the step before whose rollout it was evaluated.
        """
        left = sorted(accuracies.items(), reverse=True)
        for step, entropy in entropies:
            while left and left[-1][0] <= step:
                self.evaluated(left.pop()[1])
            if entropy is not None:
                self._taken_in(step, entropy)
        if left:
            self.evaluated(left[0][1])

    def stepped(self, step: int, entropy: float) -> Forecast | None:
        """Take in a rollout step's entropy.

        Args:
          step: rollout step, counted from 0; a block with a gap is no point.
          entropy: mean policy entropy of its responses, nats.

        Returns:
          The forecast, when a block with an accuracy has just ended, there are 3 points or more, and the run goes on.
        """
        if not self._taken_in(step, entropy) or len(self._points) < FEWEST_POINTS or step + 1 >= self._num_steps:
            return None
        steps, entropies, accuracies = zip(*self._points, strict=True)
        every_step, every_entropy = zip(*self._entropies, strict=True)
        return forecast(
            steps,
            entropies,
            accuracies,
            num_steps=self._num_steps,
            fraction=(step + 1) / self._num_steps,
            unit=self._unit,
            entropy_series=(every_step, every_entropy),
            window=self._every,
        )

    def _taken_in(self, step: int, entropy: float) -> bool:
        """Whether a point of the law has become known with this step."""
        self._entropies.append((step, entropy))
        if step % self._every != self._every - 1:
            return False
        block = self._entropies[-self._every :]
        accuracy, self._accuracy = self._accuracy, None
        if accuracy is None or len(block) < self._every or block[0][0] != step - self._every + 1:
            return False
        self._points.append((step, sum(value for _, value in block) / self._every, accuracy))
        return True

    def gain_left(self, ahead: Forecast, *, recent: int = 3) -> float | None:
        """How much accuracy the run can still win, at the upper end of the forecast's band.

            gain = upper end of the 95 % band at the last step - mean of the last accuracies

        Returns:
          None where the law is not identified or has no band: then nothing is known about the rest.
        """
        if not ahead.identified or ahead.final is None or ahead.final.high is None:
            return None
        last = [accuracy for _, _, accuracy in self._points[-recent:]]
        return ahead.final.high - sum(last) / len(last)
