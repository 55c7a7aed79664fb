"""The whole method on one page: sample → verify → advantages → measure → plan → loss → record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import torch

from covent import controls
from covent.core.covariance import covariance_tail
from covent.core.dynamics import predicted_entropy_changes
from covent.core.keys import key
from covent.core.loss import POLICY_LOSSES
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS
from covent.law import Forecast, Forecaster
from covent.readings import ControlReading, EntropyReading, Mean, ProbeReading
from covent.rollout.batch import Responses
from covent.store.schema import ForecastRow, SampleRow, StepRow, UpdateRow
from covent.store.writer import RunWriter
from covent.train.anchors import Anchors
from covent.train.attribution import StepAttribution
from covent.train.config import TrainConfig
from covent.train.evaluate import Exam
from covent.train.model import LanguageModel
from covent.train.probes import Probes
from covent.train.rollouts import Rollout, RolloutSource
from covent.train.step import LossChoice, OptimizerBatch, Outcome, execute, grad_clip_factor, learner_scores, measure


@dataclass
class Loop:
    """Everything a run needs once it is set up; `run` is the run."""

    config: TrainConfig
    model: LanguageModel
    optimizer: torch.optim.Optimizer
    source: RolloutSource
    validation: Exam
    probes: Probes | None
    writer: RunWriter
    forecaster: Forecaster
    num_updates: int = 0
    states: controls.States = field(init=False)
    """What the controls remember between optimizer steps."""

    def __post_init__(self) -> None:
        self.states = controls.first_states(self.config.controls)
        self.anchors = Anchors.of(self.model.network, self.config.controls)
        self.choice = LossChoice(
            POLICY_LOSSES[self.config.loss_mode], AGGREGATIONS[self.config.loss_agg_mode], self.source.max_tokens
        )

    def run(self, after_step: Callable[[StepRow], None]) -> str:
        """All rollout steps. Each row of the run folder is written when it is known, none later.

        Returns: why the run stopped early, or nothing.
        """
        config, every = self.config, self.config.evaluation.every
        for step in range(config.steps):
            clock = _Stopwatch()
            if step % every == every // 2:
                evaluation, _ = self.validation.take(self.model, self.source.task, step)
                self.writer.append("evaluations", evaluation)
                self.forecaster.evaluated(evaluation.avg.value)
            clock.lap("evaluate")
            self.anchors.renew_old(self.model.network)
            rollout = self.source.next(step)
            clock.lap("rollout")
            for fault in rollout.verifier_faults:
                self.writer.append("verifier_faults", fault)
            first_update, gap = self.num_updates, None
            if rollout.kept is not None:
                old_logprobs, _ = self._scores(rollout.kept)
                gap = float((old_logprobs - rollout.kept.logprobs).abs().max())
                clock.lap("measure")
                traced = step % every == every // 2
                for batch in self._batches(rollout, old_logprobs):
                    measured, plan = self.update(batch, step)
                    if traced:
                        self._keep_samples(step, rollout, batch, measured, plan)
                        traced = False
                clock.lap("update")
            row = self._step_row(step, rollout, gap, self.num_updates - first_update, clock.seconds)
            self.writer.append("steps", row)
            after_step(row)
            if reason := self._forecast(row):
                return reason
        return ""

    def _forecast(self, row: StepRow) -> str:
        """Forecast the rest of the run where a point of the law has just become known; say whether to stop."""
        assert row.entropy.value is not None
        ahead = self.forecaster.stepped(row.step, row.entropy.value)
        if ahead is None:
            return ""
        self.writer.append("forecasts", _forecast_row(row.step, ahead))
        limit, gain = self.config.stop_when_gain_below, self.forecaster.gain_left(ahead)
        if limit is None or gain is None or gain >= limit:
            return ""
        return (
            f"stopped early after rollout step {row.step}: at most {gain:.3f} of accuracy left to win by the law's"
            f" forecast, less than stop_when_gain_below = {limit:g}"
        )

    def update(self, batch: OptimizerBatch, step: int) -> tuple[Measured, Plan]:
        """One optimizer step on one optimizer batch: Measure → Plan → Loss."""
        config, at_once = self.config, self.config.optimizer.responses_per_micro_batch
        temperature = config.rollout.temperature
        measured = measure(self.model, batch, temperature=temperature, at_once=at_once, anchors=self.anchors)
        plan = controls.plan(measured, config.controls, key(config.seed, "plan", self.num_updates), self.states)
        self.states = controls.next_states(self.states, config.controls, measured)

        lr = config.optimizer.lr * min(1.0, (self.num_updates + 1) / max(1, config.optimizer.lr_warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        outcomes: list[Outcome] = []

        def take_step() -> None:
            outcomes.append(
                execute(
                    self.model,
                    self.optimizer,
                    batch,
                    measured,
                    plan,
                    temperature=temperature,
                    at_once=at_once,
                    grad_clip=config.optimizer.grad_clip,
                    choice=self.choice,
                    anchors=self.anchors,
                )
            )

        attribution, probe = self._attribution(batch, measured, plan), None
        if self.probes is None:
            take_step()
        else:
            predicted = predicted_entropy_changes(
                measured.logprobs, measured.advantages, measured.mask, step_size=lr, coverage=batch.coverage
            )
            probe = self.probes.change(take_step, predicted)
        row = _update_row(self.num_updates, step, batch, measured, plan.reading, outcomes[0], lr, probe)
        self.writer.append("updates", row)
        if attribution is not None and probe is not None:
            grad_factor = grad_clip_factor(outcomes[0].grad_norm, config.optimizer.grad_clip)
            self.writer.append("attributions", attribution.row(self.num_updates, step, probe, grad_factor))
        self.num_updates += 1
        return measured, plan

    def _attribution(self, batch: OptimizerBatch, measured: Measured, plan: Plan) -> StepAttribution | None:
        """What the attribution of the coming optimizer step needs, if it is this step's turn."""
        every = self.config.attribute_every
        if self.probes is None or every == 0 or self.num_updates % every:
            return None
        return StepAttribution.before(
            self.model,
            self.optimizer,
            self.probes,
            batch,
            measured,
            plan,
            temperature=self.config.rollout.temperature,
            at_once=self.config.optimizer.responses_per_micro_batch,
            choice=self.choice,
            anchors=self.anchors,
        )

    def _scores(self, responses: Responses) -> tuple[torch.Tensor, torch.Tensor]:
        return learner_scores(
            self.model.network,
            responses,
            temperature=self.config.rollout.temperature,
            at_once=self.config.optimizer.responses_per_micro_batch,
        )

    def _batches(self, rollout: Rollout, old_logprobs: torch.Tensor) -> Iterator[OptimizerBatch]:
        """Whole groups, split into optimizer batches of nearly equal size."""
        assert rollout.kept is not None
        ends = [0, *accumulate(rollout.group_sizes)]
        coverage = int(rollout.kept.mask.sum()) / rollout.entropy_token.count
        groups = torch.arange(rollout.num_kept_groups)
        for part in groups.tensor_split(min(self.config.optimizer.updates_per_rollout, len(groups))):
            rows = slice(ends[int(part[0])], ends[int(part[-1]) + 1])
            right = (rollout.rewards[rows] > 0).to(old_logprobs.device)
            yield OptimizerBatch(rollout.kept.rows(rows), rollout.advantages[rows], old_logprobs[rows], coverage, right)

    def _step_row(
        self, step: int, rollout: Rollout, gap: float | None, num_updates: int, seconds: dict[str, float]
    ) -> StepRow:
        shared = {name: getattr(rollout, name) for name in StepRow.model_fields if hasattr(rollout, name)}
        return StepRow(step=step, num_updates=num_updates, sampler_gap=gap, seconds=seconds, **shared)

    def _keep_samples(self, step: int, rollout: Rollout, batch: OptimizerBatch, measured: Measured, plan: Plan) -> None:
        """Some responses of one optimizer batch, right and wrong in turn, with their token columns."""
        covariances = measured.covariances()
        order = torch.argsort(batch.advantages, descending=True, stable=True).tolist()
        alternating = [row for pair in zip(order, reversed(order), strict=True) for row in pair]
        for row in list(dict.fromkeys(alternating))[: self.config.samples_kept]:
            self.writer.append("samples", self._sample_row(step, rollout, batch, measured, plan, covariances, row))

    def _sample_row(
        self,
        step: int,
        rollout: Rollout,
        batch: OptimizerBatch,
        measured: Measured,
        plan: Plan,
        covariances: torch.Tensor,
        row: int,
    ) -> SampleRow:
        responses = batch.responses
        group, sample = int(responses.group[row]), int(responses.sample[row])
        mask = responses.mask[row]
        problem, judgement = rollout.problems[group], rollout.judgements[group][sample]
        return SampleRow(
            step=step,
            group=group,
            sample=sample,
            prompt=problem.prompt,
            answer=problem.answer,
            verdict=str(judgement.verdict),
            reward=judgement.reward,
            advantage=float(batch.advantages[row]),
            tokens=self.model.tokenizer.convert_ids_to_tokens(responses.response_ids[row][mask].tolist()),
            logprobs=measured.logprobs[row][mask].tolist(),
            entropies=measured.entropies[row][mask].tolist(),
            covariances=covariances[row][mask].tolist(),
            selected=plan.chosen[row][mask].tolist(),
        )


def _update_row(
    update: int,
    step: int,
    batch: OptimizerBatch,
    measured: Measured,
    control: ControlReading,
    outcome: Outcome,
    lr: float,
    probe: ProbeReading | None,
) -> UpdateRow:
    mask, num_tokens = measured.mask, measured.num_tokens
    return UpdateRow(
        update=update,
        step=step,
        num_responses=len(batch),
        num_tokens=num_tokens,
        loss=outcome.loss,
        grad_norm=outcome.grad_norm,
        lr=lr,
        entropy=EntropyReading(
            sum=float(measured.entropies[mask].double().sum()),
            count=num_tokens,
            estimator="exact",
            temperature=1.0,
            policy="learner",
            weighting="token",
            tokens="gradient tokens",
        ),
        abs_log_ratio=Mean(
            sum=float((measured.logprobs - measured.old_logprobs)[mask].abs().double().sum()), count=num_tokens
        ),
        clip_low=Mean(sum=outcome.cut_low, count=num_tokens),
        clip_high=Mean(sum=outcome.cut_high, count=num_tokens),
        covariance=covariance_tail(measured.covariances()[mask]),
        control=control,
        probe=probe,
    )


def _forecast_row(step: int, ahead: Forecast) -> ForecastRow:
    ceiling_low, ceiling_high = ahead.law.ceiling_interval or (None, None)
    final = ahead.final
    return ForecastRow(
        step=step,
        num_points=ahead.num_prefix,
        ceiling=ahead.ceiling,
        ceiling_low=ceiling_low,
        ceiling_high=ceiling_high,
        identified=ahead.identified,
        final=final.accuracy if final else None,
        final_low=final.low if final else None,
        final_high=final.high if final else None,
    )


class _Stopwatch:
    """Wall time by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = now - self._last
        self._last = now
