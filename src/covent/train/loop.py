"""The whole method on one page: sample → verify → advantages → measure → plan → loss → record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch

from covent import controls
from covent.core.covariance import covariance_tail
from covent.core.dynamics import polarity_reading, polarity_sums, predicted_entropy_changes
from covent.core.keys import key
from covent.core.loss import POLICY_LOSSES
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS
from covent.errors import NonFiniteError
from covent.law import Forecaster
from covent.law.live import outlook
from covent.readings import ControlReading, EntropyReading, Mean, ProbeReading
from covent.rollout.batch import Responses
from covent.store.schema import ForecastRow, StepRow, UpdateRow
from covent.store.writer import RunWriter
from covent.train.attribution import StepAttribution
from covent.train.config import TrainConfig
from covent.train.evaluate import Exam
from covent.train.faults import leave_out
from covent.train.forward_passes import AtOnce, TokenBudget
from covent.train.probes import Probes
from covent.train.rollouts import RolloutSource
from covent.train.samples import KeptSamples
from covent.train.state import Pending, RunState
from covent.train.step import LossChoice, OptimizerBatch, Outcome, execute, grad_clip_factor, learner_scores, measure


@dataclass
class Loop:
    """Everything a run needs once it is set up; `run` is the run. What it must remember is in `state` alone."""

    config: TrainConfig
    state: RunState
    source: RolloutSource
    validation: Exam
    probes: Probes | None
    writer: RunWriter
    forecaster: Forecaster
    save: Callable[[], None]
    """Write a checkpoint of the state."""

    def __post_init__(self) -> None:
        self.model = self.state.model
        self.choice = LossChoice(
            POLICY_LOSSES[self.config.loss_mode], AGGREGATIONS[self.config.loss_agg_mode], self.source.max_tokens
        )

    def run(self, after_step: Callable[[StepRow], None]) -> None:
        """The rollout steps that are left. Each row of the run folder is written when it is known, none later.

        Raises:
          Stopped: a signal asked for it; the state is where its position says.
          NonFiniteError: three faults in a row.
        """
        every = self.config.checkpoint.every
        while not self._has_ended():
            try:
                after_step(self._step())
            except NonFiniteError as error:
                # Without the name of a tensor it is no fault that can be left out.
                if not error.tensor:
                    raise
                leave_out(error, self.state, self.writer, self.source.drawn, update=None)
                self._moved(step=self.state.at.step + 1, validated=False, num_groups=self.source.num_groups)
            is_due = self._has_ended() or (every and self.state.at.step % every == 0)
            # What made the last step bad may be in the state itself.
            if is_due and not self.state.at.faults_in_a_row:
                self.save()

    def _has_ended(self) -> bool:
        return bool(self.state.at.reason) or self.state.at.step >= self.config.steps

    def _moved(self, **changes: Any) -> None:
        """All rows so far belong to the new position, and all verdicts."""
        self.state.move(**changes, errors_counted=self.source.watch.counted, marks=self.writer.marks())

    def _step(self) -> StepRow:
        """One rollout step, or what is left of it."""
        state, step, every = self.state, self.state.at.step, self.config.evaluation.every
        clock = _Stopwatch(state.pending.seconds if state.pending else {})
        if step % every == every // 2 and not state.at.validated:
            evaluation, _ = self.validation.take(self.model, self.source.task, step)
            self.writer.append("evaluations", evaluation)
            self.forecaster.evaluated(evaluation.avg.value)
            self._moved(validated=True)
        clock.lap("evaluate")
        if state.pending is None:
            state.anchors.renew_old(self.model.network)
            state.pending = self._sampled(step, clock)
            self._moved(num_groups=self.source.num_groups, batches_done=0, num_not_applied=0)
        pending = state.pending
        batches = list(self._batches(pending))
        for number, batch in enumerate(batches):
            if number >= state.at.batches_done:
                # The last one, where the policy has moved from the one that sampled.
                self._try_update(batch, traced=number == len(batches) - 1 and step % every == every // 2)
        clock.lap("update")
        row = self._step_row(step, pending, clock.seconds)
        self.writer.append("steps", row)
        reason = self._forecast(row)
        had_fault = bool(state.at.num_not_applied or pending.rollout.bad_reward)
        state.pending = None
        self._moved(
            step=step + 1,
            validated=False,
            batches_done=0,
            num_not_applied=0,
            faults_in_a_row=state.at.faults_in_a_row if had_fault else 0,
            reason=reason,
        )
        return row

    def _sampled(self, step: int, clock: _Stopwatch) -> Pending:
        """The rollout of a step and what the policy that sampled it, as the learner has it, says of it."""
        rollout, gap, old_logprobs = self.source.next(step), None, None
        clock.lap("rollout")
        for fault in rollout.verifier_faults:
            self.writer.append("verifier_faults", fault)
        if rollout.bad_reward:
            rule = "Rewards, and the sum of their squares, must be finite in the model's arithmetic."
            error = NonFiniteError(f"The verifier gave the {rollout.bad_reward}. {rule}", tensor=rollout.bad_reward)
            leave_out(error, self.state, self.writer, self.source.drawn, update=None)
            rollout = replace(rollout, kept=None)
        if rollout.kept is not None:
            old_logprobs, _ = self._scores(rollout.kept)
            gap = float((old_logprobs - rollout.kept.logprobs).abs().max())
        clock.lap("measure")
        return Pending(rollout, old_logprobs, gap, self.state.at.num_updates, clock.seconds)

    def _try_update(self, batch: OptimizerBatch, *, traced: bool) -> None:
        """One optimizer step; one that is not finite is left out, and the run goes on with the next."""
        at, kept = self.state.at, self._chosen(batch) if traced else None
        try:
            measured, plan = self.update(batch, at.step)
            if kept is not None and self.state.pending is not None:
                where, rollout = (at.step, at.num_updates), self.state.pending.rollout
                for row in kept.rows(self.model, where, rollout, batch, measured, plan, self.choice):
                    self.writer.append("samples", row)
            self._moved(num_updates=at.num_updates + 1, batches_done=at.batches_done + 1)
        except NonFiniteError as error:
            if not error.tensor:
                raise
            leave_out(error, self.state, self.writer, self.source.drawn, update=at.num_updates)
            self._moved(
                num_updates=at.num_updates + 1,
                batches_done=at.batches_done + 1,
                num_not_applied=at.num_not_applied + 1,
            )

    def _chosen(self, batch: OptimizerBatch) -> KeptSamples:
        """The responses of this batch that are kept with their tokens."""
        config = self.config
        return KeptSamples.before(
            self.model,
            batch,
            config.samples_kept,
            temperature=config.rollout.temperature,
            detail=config.samples_detail,
        )

    def _forecast(self, row: StepRow) -> str:
        """Forecast the rest of the run where a point of the law has just become known; say whether to stop."""
        assert row.entropy.value is not None
        ahead = self.forecaster.stepped(row.step, row.entropy.value)
        if ahead is None:
            return ""
        self.writer.append("forecasts", ForecastRow(step=row.step, **outlook(ahead)))
        limit, gain = self.config.stop_when_gain_below, self.forecaster.gain_left(ahead)
        if limit is None or gain is None or gain >= limit:
            return ""
        return (
            f"stopped early after rollout step {row.step}: at most {gain:.3f} of accuracy left to win by the law's"
            f" forecast, less than stop_when_gain_below = {limit:g}"
        )

    def update(self, batch: OptimizerBatch, step: int) -> tuple[Measured, Plan]:
        """One optimizer step on one optimizer batch: Measure → Plan → Loss."""
        config, at_once = self.config, self._at_once
        temperature = config.rollout.temperature
        num_updates, states, anchors = self.state.at.num_updates, self.state.at.controls, self.state.anchors
        if not bool(batch.advantages.isfinite().all()):
            raise NonFiniteError("An advantage is NaN or infinite.", tensor="advantages")
        measured = measure(self.model, batch, temperature=temperature, at_once=at_once, anchors=anchors)
        plan = controls.plan(measured, config.controls, key(config.seed, "plan", num_updates), states)
        next_states = controls.next_states(states, config.controls, measured)

        lr = config.optimizer.lr * min(1.0, (num_updates + 1) / max(1, config.optimizer.lr_warmup_steps))
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        outcomes: list[Outcome] = []

        def take_step() -> None:
            outcomes.append(
                execute(
                    self.model,
                    self._optimizer,
                    batch,
                    measured,
                    plan,
                    temperature=temperature,
                    at_once=at_once,
                    grad_clip=config.optimizer.grad_clip,
                    choice=self.choice,
                    anchors=anchors,
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
        row = _update_row(num_updates, step, batch, measured, plan.reading, outcomes[0], lr, probe)
        self.writer.append("updates", row)
        if attribution is not None and probe is not None:
            grad_factor = grad_clip_factor(outcomes[0].grad_norm, config.optimizer.grad_clip)
            self.writer.append("attributions", attribution.row(num_updates, step, probe, grad_factor))
        self.state.move(controls=next_states)
        return measured, plan

    @property
    def _at_once(self) -> AtOnce:
        settings = self.config.optimizer
        if settings.tokens_per_micro_batch is None:
            return settings.responses_per_micro_batch
        return TokenBudget(settings.tokens_per_micro_batch, settings.responses_per_micro_batch)

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        assert self.state.optimizer is not None
        return self.state.optimizer

    def _attribution(self, batch: OptimizerBatch, measured: Measured, plan: Plan) -> StepAttribution | None:
        """What the attribution of the coming optimizer step needs, if it is this step's turn."""
        every = self.config.attribute_every
        if self.probes is None or every == 0 or self.state.at.num_updates % every:
            return None
        return StepAttribution.before(
            self.model,
            self._optimizer,
            self.probes,
            batch,
            measured,
            plan,
            temperature=self.config.rollout.temperature,
            at_once=self._at_once,
            choice=self.choice,
            anchors=self.state.anchors,
        )

    def _scores(self, responses: Responses) -> tuple[torch.Tensor, torch.Tensor]:
        return learner_scores(
            self.model.network,
            responses,
            temperature=self.config.rollout.temperature,
            at_once=self._at_once,
        )

    def _batches(self, pending: Pending) -> Iterator[OptimizerBatch]:
        """Whole groups, split into optimizer batches of nearly equal size."""
        rollout, old_logprobs = pending.rollout, pending.old_logprobs
        if rollout.kept is None or old_logprobs is None:
            return
        ends = [0, *accumulate(rollout.group_sizes)]
        coverage = int(rollout.kept.mask.sum()) / rollout.entropy_token.count
        groups = torch.arange(rollout.num_kept_groups)
        for part in groups.tensor_split(min(self.config.optimizer.updates_per_rollout, len(groups))):
            rows = slice(ends[int(part[0])], ends[int(part[-1]) + 1])
            right = (rollout.rewards[rows] > 0).to(old_logprobs.device)
            yield OptimizerBatch(rollout.kept.rows(rows), rollout.advantages[rows], old_logprobs[rows], coverage, right)

    def _step_row(self, step: int, pending: Pending, seconds: dict[str, float]) -> StepRow:
        rollout = pending.rollout
        shared = {name: getattr(rollout, name) for name in StepRow.model_fields if hasattr(rollout, name)}
        # Where a reward is bad, the whole rollout is left out, before there are optimizer batches.
        skipped = self.state.at.num_not_applied
        return StepRow(
            step=step,
            num_updates=self.state.at.num_updates - pending.first_update - skipped,
            num_not_applied=skipped + bool(rollout.bad_reward),
            sampler_gap=pending.gap,
            seconds=seconds,
            **shared,
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
        polarity=polarity_reading(
            polarity_sums(measured.logprobs, measured.entropies, measured.advantages, mask), num_tokens
        ),
        control=control,
        probe=probe,
    )


class _Stopwatch:
    """Wall time by phase, on top of what earlier parts of the step took."""

    def __init__(self, before: Mapping[str, float]) -> None:
        self.seconds = dict(before)
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._last
        self._last = now
