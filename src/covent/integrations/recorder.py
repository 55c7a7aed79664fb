"""The run folder of an engine's run: the same rows as the embedded trainer's, written by one process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from covent.errors import CoventError, NonFiniteError
from covent.integrations.readings import UpdateReading
from covent.integrations.settings import CoventConfig
from covent.law import Forecast, Forecaster
from covent.law.live import outlook
from covent.readings import EntropyReading, Mean
from covent.store.estimates import pass_at_k, powers_of_two, wilson
from covent.store.schema import EvaluationRow, ForecastRow, RunHeader, SampleRow, StepRow, UpdateRow, VerifierFaultRow
from covent.store.writer import RunWriter

_log = logging.getLogger(__name__)


class Recorder:
    """The one writer of a run's folder; on other ranks than the first it only takes part in the counting."""

    def __init__(self, settings: CoventConfig, folder: Path, *, temperature: float) -> None:
        """Args:
        settings: covent's.
        folder: to be made when training begins.
        temperature: of the engine's sampling, at which it measures entropy.
        """
        self.settings, self.folder, self.temperature = settings, folder, temperature
        self.writer: RunWriter | None = None
        self.forecaster: Forecaster | None = None
        self.rollouts_done = 0
        self._block: list[Mean] = []
        self._start = time.perf_counter()

    def begin(self, header: Callable[[], RunHeader] | None, *, num_steps: int, first_rollout: int) -> None:
        """Make the folder. A run that goes on from a checkpoint gets its own beside that of its first part.

        Args:
          header: of the run; None in a process that does not write.
          num_steps: rollouts that the run is to have.
          first_rollout: 0, or what a checkpoint has done.
        Raises: RunExistsError.
        """
        self._start = time.perf_counter()
        self.rollouts_done = first_rollout
        self.forecaster = Forecaster(num_steps, every=self.settings.law_every)
        if header is None:
            return
        if first_rollout and self.folder.exists():
            self.folder = self.folder.with_name(f"{self.folder.name}-from-{first_rollout}")
        made = header()
        text = yaml.safe_dump(made.config, sort_keys=False)
        self.writer = RunWriter.create(self.folder, made, text, num_steps=num_steps)

    def rolled(self, row: StepRow) -> dict[str, float]:
        """A rollout has been trained on.

        Returns: the forecast, if there is a new one, under names for the engine's log.
        """
        self.rollouts_done = row.step + 1
        if self.writer is None:
            return {}
        self.writer.append("steps", row)
        self.status("running")
        ahead = self._forecast(row)
        if ahead is None:
            return {}
        found = ForecastRow(step=row.step, **outlook(ahead))
        self.writer.append("forecasts", found)
        named = {
            "ceiling": found.ceiling,
            "ceiling_low": found.ceiling_low,
            "ceiling_high": found.ceiling_high,
            "law_identified": float(found.identified),
            "forecast": found.final,
            "forecast_low": found.final_low,
            "forecast_high": found.final_high,
        }
        return {name: value for name, value in named.items() if value is not None}

    def _forecast(self, row: StepRow) -> Forecast | None:
        if self.forecaster is None or row.entropy.value is None:
            return None
        self._block.append(row.reward)
        try:
            if row.step % self.settings.law_every == self.settings.law_every - 1:
                reward = sum(self._block[1:], start=self._block[0])
                self._block = []
                if reward.value is not None:
                    self.forecaster.evaluated(reward.value)
            return self.forecaster.stepped(row.step, row.entropy.value)
        except CoventError as error:
            self.forecaster = None
            _log.warning(
                "covent makes no forecasts: the mean reward is no accuracy between 0 and 1. Name the reward that is one"
                " in covent's setting accuracy. %s",
                error,
            )
            return None

    def updated(self, reading: UpdateReading, step: int, *, grad_norm: float, lr: float) -> None:
        """An optimizer step has been made."""
        if self.writer is None:
            return
        row = UpdateRow(
            update=reading.update,
            step=step,
            num_responses=reading.num_responses,
            num_tokens=reading.num_tokens,
            loss=reading.loss,
            grad_norm=grad_norm,
            lr=lr,
            entropy=EntropyReading(
                sum=reading.entropy.sum,
                count=reading.entropy.count,
                estimator="exact",
                temperature=self.temperature,
                policy="learner",
                weighting="token",
                tokens="gradient tokens",
            ),
            abs_log_ratio=reading.abs_log_ratio,
            clip_low=reading.clip_low,
            clip_high=reading.clip_high,
            covariance=reading.covariance,
            control=reading.control,
            probe=None,
            polarity=reading.polarity,
        )
        try:
            self.writer.append("updates", row)
        except NonFiniteError as error:
            # The engine goes on after such a step, and so does the run; its folder then lacks a row.
            _log.warning("The run folder has no row for optimizer step %d: %s", reading.update, error)

    def wants_samples(self, rollout: int) -> bool:
        """Whether responses of this rollout are to be kept."""
        every = self.settings.law_every
        return rollout % every == every // 2

    def sampled(self, rows: Sequence[SampleRow]) -> None:
        """Keep some responses."""
        for row in rows if self.writer is not None else ():
            self.writer.append("samples", row)

    def misjudged(self, rows: Sequence[VerifierFaultRow]) -> None:
        """Keep responses that could not be judged."""
        for row in rows if self.writer is not None else ():
            self.writer.append("verifier_faults", row)

    def evaluated(
        self, step: int, num_right: Sequence[int], num_samples: int, entropy: Mean, *, seconds: float
    ) -> None:
        """Record an evaluation by the engine.

        Args:
          step: rollouts that the policy has been trained on.
          num_right: right responses of each problem.
          num_samples: responses to each problem.
          entropy: over responses, the mean entropy of their tokens; nothing counted where nobody measured it.
          seconds: it took.
        """
        if self.writer is None or not num_right:
            return
        row = EvaluationRow(
            step=step,
            split="validation",
            num_problems=len(num_right),
            num_samples=num_samples,
            greedy=None,
            avg=wilson([count / num_samples for count in num_right]),
            pass_at={
                str(k): wilson([pass_at_k(num_samples, count, k) for count in num_right])
                for k in powers_of_two(num_samples)
            },
            entropy=EntropyReading(
                sum=entropy.sum,
                count=entropy.count,
                estimator="exact",
                temperature=self.temperature,
                policy="learner",
                weighting="response",
                tokens="all responses",
            ),
            num_right=list(num_right),
            unparsable=Mean(sum=0, count=0),
            seconds=seconds,
        )
        self.writer.append("evaluations", row)

    def status(self, state: Any, message: str = "") -> None:
        """Say where the run stands; any state but `running` closes the folder."""
        if self.writer is None:
            return
        self.writer.status(state, step=self.rollouts_done, message=message, seconds=time.perf_counter() - self._start)
        if state != "running":
            self.writer.close()
            self.writer = None
