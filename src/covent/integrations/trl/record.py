"""The run folder of a TRL run: the same rows as the embedded trainer's, written on rank 0, counted on all."""

from __future__ import annotations

import datetime
import json
import logging
import math
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import torch
import transformers
import yaml

from covent import __version__
from covent.errors import CoventError, NonFiniteError
from covent.integrations.trl.checks import updates_per_generation
from covent.integrations.trl.readings import UpdateReading
from covent.integrations.trl.rollouts import Rewards, Rollout
from covent.integrations.trl.settings import CoventConfig
from covent.law import Forecast, Forecaster
from covent.law.live import outlook
from covent.provenance import commit
from covent.readings import EntropyReading, Mean
from covent.store.estimates import pass_at_k, powers_of_two, wilson
from covent.store.schema import (
    SCHEMA_VERSION,
    EvaluationRow,
    ForecastRow,
    RunHeader,
    SampleRow,
    StepRow,
    UpdateRow,
)
from covent.store.writer import RunWriter

_log = logging.getLogger(__name__)


class Recorder:
    """The one writer of a run's folder; on other ranks than the first it only takes part in the counting."""

    def __init__(self, settings: CoventConfig, folder: Path, *, temperature: float) -> None:
        """Args:
        settings: covent's.
        folder: to be made when training begins.
        temperature: of TRL's sampling, at which it measures entropy.
        """
        self.settings, self.folder, self.temperature = settings, folder, temperature
        self.writer: RunWriter | None = None
        self.forecaster: Forecaster | None = None
        self.rollouts_done = 0
        self._block: list[Mean] = []
        self._start = time.perf_counter()

    def begin(self, trainer: Any, *, first_rollout: int) -> None:
        """Make the folder. A run that goes on from a checkpoint gets its own beside that of its first part.

        Raises: RunExistsError.
        """
        self._start = time.perf_counter()
        self.rollouts_done = first_rollout
        updates = updates_per_generation(trainer.args, trainer.num_iterations)
        num_steps = max(1, math.ceil(trainer.state.max_steps / updates))
        self.forecaster = Forecaster(num_steps, every=self.settings.law_every)
        if not trainer.is_world_process_zero():
            return
        if first_rollout and self.folder.exists():
            self.folder = self.folder.with_name(f"{self.folder.name}-from-{first_rollout}")
        header = _header(self.settings, trainer)
        text = yaml.safe_dump(header.config, sort_keys=False)
        self.writer = RunWriter.create(self.folder, header, text, num_steps=num_steps)

    def rolled(self, row: StepRow) -> dict[str, float]:
        """A rollout has been trained on.

        Returns: the forecast, if there is a new one, under names for TRL's log.
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
                "covent makes no forecasts: the mean reward is no accuracy between 0 and 1. Name the reward function"
                " that is one: CoventConfig(accuracy=...). %s",
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
            # TRL goes on after such a step, and so does the run; its folder then lacks a row.
            _log.warning("The run folder has no row for optimizer step %d: %s", reading.update, error)

    def wants_samples(self, rollout: Rollout) -> bool:
        """Whether responses of this rollout are to be kept, of its first optimizer step."""
        every = self.settings.law_every
        return rollout.num_updates == 0 and rollout.step % every == every // 2

    def sampled(self, rows: Sequence[SampleRow]) -> None:
        """Keep some responses."""
        for row in rows if self.writer is not None else ():
            self.writer.append("samples", row)

    def evaluated(self, step: int, batches: Sequence[Rewards], entropy: Sequence[float], *, seconds: float) -> None:
        """Record an evaluation by TRL.

        Args:
          step: rollouts that the policy has been trained on.
          batches: of rewards, as TRL made them.
          entropy: sum over responses of their mean entropy, and responses, over all ranks.
        """
        if self.writer is None or not batches:
            return
        right = torch.cat([each.right(self.settings.right_from) for each in batches])
        num_right, num_samples = right.sum(dim=1).tolist(), right.shape[1]
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
                sum=entropy[0],
                count=round(entropy[1]),
                estimator="exact",
                temperature=self.temperature,
                policy="learner",
                weighting="response",
                tokens="all responses",
            ),
            num_right=num_right,
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


def _header(settings: CoventConfig, trainer: Any) -> RunHeader:
    controls = [each.model_dump(mode="json") for each in settings.controls]
    own = settings.model_dump(mode="json", exclude={"control", "law_every"})
    config = {
        "engine": {"name": "trl", "trainer": type(trainer).__name__, "ranks": trainer.accelerator.num_processes},
        "control": controls if len(controls) > 1 else controls[0] if controls else {"type": "grpo"},
        "evaluation": {"every": settings.law_every},
        "covent": own,
        "trl": _plain(trainer.args.to_dict()),
    }
    device = trainer.accelerator.device
    return RunHeader(
        schema_version=SCHEMA_VERSION,
        name=settings.label,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        config=config,
        seed=trainer.args.seed,
        threads=torch.get_num_threads(),
        versions={
            "covent": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "trl": version("trl"),
            "accelerate": version("accelerate"),
            "numpy": numpy.__version__,
            "platform": platform.platform(),
        },
        commit=commit(),
        hardware=torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}",
        num_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        start_model=None,
    )


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them; what it cannot is kept as text."""
    text = json.dumps(settings, default=str)
    plain: dict[str, Any] = json.loads(text, parse_constant=str)
    return plain
