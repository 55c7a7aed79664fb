"""covent in a TRL trainer: what is overridden, and nothing of TRL's loss copied.

    class MyTrainer(CoventMixin, GRPOTrainer): ...

TRL prepares a micro-batch, scores it and computes its loss. The mixin measures before the first micro-batch of an
optimizer step (by TRL's own scoring, without gradient, where the scope asks for it), hands the plan to TRL's loss when
TRL has scored the micro-batch, and adds the terms for which TRL has no place.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from covent.core.plan import Plan
from covent.core.reduce import part_of_mean
from covent.core.shapes import Tensor
from covent.errors import EngineError
from covent.integrations.readings import PREFIX, update_reading
from covent.integrations.settings import CoventConfig, settings_of
from covent.integrations.trl import batch
from covent.integrations.trl.batch import Columns, Scores
from covent.integrations.trl.checks import require_device, require_settings
from covent.integrations.trl.compatibility import CLIPPED, require_attributes, require_hooks, require_version
from covent.integrations.trl.execution import clip_of, cuts, gate, gated, left_to_trl, replaced, terms_of
from covent.integrations.trl.recording import Recording
from covent.integrations.trl.rewards import KillableReward
from covent.integrations.trl.weights import token_weights
from covent.integrations.trl.window import MicroBatch, Steering, Window

STATE_FILE = "covent_state.json"
"""In each checkpoint of TRL: the memory of the controls and the number of generations so far."""

_log = logging.getLogger(__name__)


class _Scored(Exception):
    """TRL has scored a micro-batch and need not go on to its loss."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.scores = scores


class CoventMixin:
    """Put before `trl.GRPOTrainer` or `trl.RLOOTrainer` in a class's bases."""

    _covent: Steering | None = None
    _covent_micro: MicroBatch | None = None
    _covent_sampled: list[Scores] | None = None
    _covent_asks = False
    _covent_recording: Recording | None = None

    def __init__(self, *args: Any, covent: CoventConfig | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        """Args:
        covent: covent's settings; a mapping is read as `CoventConfig`. All else goes to TRL.

        Raises:
          EngineError: a TRL that covent does not know.
          ConfigError: settings of covent and TRL that do not go together.
        """
        settings = settings_of(covent)
        cls = type(self)
        require_version(version("trl"))
        require_hooks(cls.__mro__[cls.__mro__.index(CoventMixin) + 1])
        super().__init__(*args, **kwargs)
        require_attributes(self)
        self._covent_is_rloo = not hasattr(self, "loss_type")
        require_device(self.accelerator.device)
        require_settings(settings, self.args, num_iterations=self.num_iterations, is_rloo=self._covent_is_rloo)
        self._covent_num_generations = 0
        self._covent_said: set[str] = set()
        self._covent = Steering(settings, dist.group.WORLD if self.accelerator.num_processes > 1 else None)
        if settings.run_folder is not None:
            self._covent_recording = Recording(settings, self)
            self.add_callback(self._covent_recording)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's training; the run folder says how it ended."""
        self._covent.begins()
        try:
            outcome = super().train(*args, **kwargs)
        except BaseException as error:
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self._covent_ended(state, "Ctrl-C" if state == "interrupted" else str(error))
            raise
        if self._covent_recording is not None:
            self._covent_recording.close_rollout()
        self._covent_ended("finished", "")
        return outcome

    def _covent_ended(self, state: str, message: str) -> None:
        if self._covent_recording is not None:
            self._covent_recording.recorder.status(state, message)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        """TRL samples; covent names every response and keeps the entropies of the policy that sampled."""
        if self._covent is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        if self._covent_recording is not None:
            self._covent_recording.close_rollout()
        self._covent_sampled, start = [], time.perf_counter()
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            sampled, self._covent_sampled = self._covent_sampled, None
        self._covent.sampled()
        number = self._covent_num_generations
        self._covent_num_generations += 1
        output = output | self._covent_columns(number, output, sampled)
        if self._covent_recording is not None:
            self._covent_recording.generated(number, output, time.perf_counter() - start)
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        """TRL's rewards, of all ranks; a response that a killable function could not judge has none."""
        by_function = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        training = self.model.training
        killable = [each for each in self.reward_funcs if isinstance(each, KillableReward)]
        if killable:
            own = torch.tensor([each.unjudged for each in killable], device=by_function.device).any(dim=0)
            unjudged = self.accelerator.gather(own.long()).bool()
            # TRL leaves a response without any reward out of its group's mean, and its advantage is 0.
            by_function = by_function.masked_fill(unjudged[:, None], torch.nan)
            self._metrics["train" if training else "eval"][f"{PREFIX}unjudged_frac"].append(
                unjudged.double().mean().item()
            )
        if self._covent_recording is not None:
            group_size = self.num_generations if training else self.num_generations_eval
            self._covent_recording.rewarded(by_function, group_size=group_size, training=training)
            if training:
                self._covent_recording.misjudged(killable, prompts, completions, self._covent_num_generations)
        return by_function

    def _covent_columns(self, number: int, output: dict[str, Any], sampled: list[Scores]) -> dict[str, Tensor]:
        """Columns beside TRL's, one entry a response of this rank."""
        num_rows, device = len(output["completion_ids"]), output["completion_ids"].device
        rows = self.accelerator.process_index * num_rows + torch.arange(num_rows, device=device)
        num_prompts = num_rows * self.accelerator.num_processes // self.num_generations
        first = number * num_prompts
        columns = {
            batch.PROMPT: first + rows // self.num_generations,
            batch.SAMPLE: rows % self.num_generations,
        }
        old = output.get("old_per_token_logps")
        # Beside the policy's own scores TRL may have asked for those of a reference that is an adapter of it.
        found = sampled[:1] if "old_logps" in output else [each for each in sampled if each.logprobs is old]
        if found and found[0].entropies is not None:
            columns |= {batch.OLD_LOGPROBS: found[0].logprobs, batch.OLD_ENTROPIES: found[0].entropies}
        return columns

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL hands over the next micro-batch; before the first of an optimizer step covent measures them all."""
        inputs = super()._prepare_inputs(generation_batch)
        if self._covent is not None and self.model.training:
            window = self._covent_window()
            if self._covent.wants_all_at_once(window):
                self._covent_plan_ahead(window)
        return inputs

    def _covent_window(self) -> Window:
        return self._covent.arrives(self.current_gradient_accumulation_steps, self.state.global_step)

    def _covent_plan_ahead(self, window: Window) -> None:
        """Measure and plan the micro-batches to come that are sampled already."""
        first = self._step % self.args.steps_per_generation
        ahead = self._buffered_inputs[first : first + window.num_to_come]
        if len(ahead) == 1:
            return
        scores = [self._covent_old_scores(each) for each in ahead] if window.on_policy else [None]
        if None in scores:
            scores = [self._covent_scores(each) for each in ahead]
        self._covent.plan_all(window, [Columns.of(each) for each in ahead], scores)

    def _covent_old_scores(self, inputs: dict[str, Any]) -> Scores | None:
        """Of the policy that sampled, where TRL scored with it."""
        if batch.OLD_ENTROPIES not in inputs:
            return None
        return Scores(inputs[batch.OLD_LOGPROBS], inputs[batch.OLD_ENTROPIES])

    def _covent_scores(self, inputs: dict[str, Any]) -> Scores:
        """Of the current policy, by TRL's own loss, which is left as soon as it has them; without gradient."""
        self._covent_asks = True
        self.model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                super()._compute_loss(self.model, inputs)
        except _Scored as answer:
            return answer.scores
        finally:
            self.model.train()
            self._covent_asks = False
        raise EngineError(
            "TRL computed a loss without asking for log-probs. Use a TRL release that covent was tested with."
        )

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """TRL's scores of some responses; on the way to its loss, the place where a plan takes hold."""
        # An evaluation may have the policy in another wrapping.
        of_policy = self._covent_sampled is not None and (model is self.model or not self.model.training)
        if of_policy:
            kwargs["compute_entropy"] = True
        with self._covent_entropies_with_gradient():
            found = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        scores = Scores(*found[:2])
        if of_policy:
            self._covent_sampled.append(scores)
        if self._covent_asks:
            raise _Scored(scores.detach())
        if self._covent_micro is not None:
            return (self._covent_take_hold(self._covent_micro, scores), *found[1:])
        return found

    def _covent_entropies_with_gradient(self) -> AbstractContextManager[None]:
        """TRL before 1.16 keeps the gradient of entropies only for a bonus of its own: so it is told of one."""
        wanted = self._covent_micro is not None and "entropy_bonus" in self._covent.types
        return replaced(self, {"_entropy_bonus_enabled": True} if wanted and hasattr(self, "entropy_coef") else {})

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's loss under the plan, plus the plan's own terms."""
        if self._covent is None:
            return super()._compute_loss(model, inputs)
        if not self.model.training:
            return self._covent_eval_loss(model, inputs)
        micro = MicroBatch(dict(inputs), Columns.of(inputs))
        with ExitStack() as micro.undo:
            self._covent_micro = micro
            micro.undo.callback(setattr, self, "_covent_micro", None)
            loss = super()._compute_loss(model, micro.inputs)
        if micro.plan is not None:
            loss = self._covent_with_own_terms(micro, left_to_trl(micro.plan), loss)
        micro.loss = loss.detach()
        self._covent_passed(micro)
        return loss

    def _covent_eval_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """TRL's own loss, of which the entropies are kept."""
        if self._covent_recording is None:
            return super()._compute_loss(model, inputs)
        self._covent_sampled = []
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            sampled, self._covent_sampled = self._covent_sampled, None
        self._covent_recording.eval_scored(sampled[0].entropies, inputs["completion_mask"].bool())
        return loss

    def _covent_take_hold(self, micro: MicroBatch, scores: Scores) -> Tensor:
        """Plan the micro-batch if that is not done, and put its plan where TRL's loss reads it.

        Returns: the log-probs that the loss is to use.
        """
        micro.scores = scores
        plan = self._covent.plan(self._covent_window(), micro, scores)
        logprobs = scores.logprobs
        if plan is not None:
            clip = clip_of(plan, self._covent_loss_type)
            micro.unheard = clip.unheard
            self._covent_say_unheard(clip.unheard)
            micro.undo.enter_context(replaced(self, clip.settings))
            micro.undo.enter_context(replaced(self.args, clip.arguments))
            if left_to_trl(plan).reference_weight is not None:
                micro.undo.enter_context(replaced(self, {"beta": 0.0}))
            kept = gate(plan, micro.columns.mask, micro.columns.advantages.dtype)
            if kept is not None and self._covent_level == "token":
                micro.inputs["advantages"] = micro.columns.advantages * kept
            elif kept is not None:
                logprobs = gated(logprobs, kept.to(logprobs))
        micro.cuts = cuts(scores.detach(), micro.columns, level=self._covent_level, **self._covent_range)
        return logprobs

    @property
    def _covent_loss_type(self) -> str:
        return getattr(self, "loss_type", "rloo")

    @property
    def _covent_level(self) -> str:
        """Whose ratio TRL's loss has."""
        if self._covent_is_rloo:
            return "sum"
        return self.importance_sampling_level

    @property
    def _covent_range(self) -> dict[str, float]:
        """The clip in force, as distances of the ratio from 1."""
        if self._covent_loss_type == "cispo":
            return {"low": inf, "high": self.epsilon_high - 1}
        if self._covent_loss_type in CLIPPED or self._covent_is_rloo:
            return {"low": self.epsilon_low, "high": self.epsilon_high}
        return {"low": inf, "high": inf}

    def _covent_with_own_terms(self, micro: MicroBatch, plan: Plan, loss: Tensor) -> Tensor:
        """TRL's loss plus the terms of the plan for which it has no place."""
        has_kl = plan.kl_form is not None and bool((plan.kl_weight > 0).any())
        has_reference = plan.reference_weight is not None
        if not has_kl and not has_reference and plan.entropy_weight is None:
            return loss
        terms = terms_of(plan, micro.scores, micro.columns)
        if has_kl or has_reference:
            weights = token_weights(self, _trl_loss, micro.inputs, micro.scores.logprobs)
            loss = loss + (weights * (terms.kl + terms.reference_kl)).sum()
        if plan.entropy_weight is not None:
            if not micro.scores.entropies.requires_grad:
                raise EngineError(
                    "This TRL gives its loss entropies without gradient, so an entropy bonus would do nothing. Use"
                    " CoventGRPOTrainer, or trl>=1.16."
                )
            part = part_of_mean(terms.bonus, micro.columns.mask, count=plan.reading.num_tokens)
            loss = loss + part * self._covent_bonus_scale(micro.share)
        return loss

    def _covent_bonus_scale(self, share: float) -> float:
        """From a part of a mean over what was planned together to a loss that is averaged over ranks."""
        num_ranks = self.accelerator.num_processes if self._covent.settings.scope == "window" else 1
        # Unlike GRPO's, RLOO's loss is divided by the number of micro-batches after covent has seen it.
        scaled = getattr(self, "loss_is_scaled_for_ga", None) or self.compute_loss_func is not None
        return share * num_ranks * (1 if scaled else self.current_gradient_accumulation_steps)

    def _covent_passed(self, micro: MicroBatch) -> None:
        """A micro-batch is done; after the last of an optimizer step its metrics are known."""
        window = self._covent_window()
        micro.scores = micro.scores.detach()
        window.passed.append(micro)
        if self._covent_recording is not None:
            self._covent_recording.micro_passed(micro)
        if not window.is_whole:
            return
        whole = window.measured(self._covent.group)
        reading = update_reading(window, whole, self._covent.settings.label or "trl")
        self._covent.stepped(whole)
        if self._covent_recording is not None:
            self._covent_recording.window_passed(window, whole, reading)
        if reading is not None:
            for name, value in reading.metrics().items():
                self._metrics["train"][PREFIX + name].append(value)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm before clipping."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self._covent_recording is not None and norm is not None:
            self._covent_recording.grad_norm = float(norm)
        return norm

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """TRL's checkpoint, and in it what the controls remember."""
        super()._save_checkpoint(model, trial)
        if self._covent is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            (folder / STATE_FILE).write_text(self._covent.saved(self._covent_num_generations))

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """Go on from a checkpoint with what the controls remembered."""
        super()._load_optimizer_and_scheduler(checkpoint)
        path = None if checkpoint is None else Path(checkpoint) / STATE_FILE
        if self._covent is not None and path is not None and path.is_file():
            self._covent_num_generations = self._covent.restored(path.read_text())

    def _covent_say_unheard(self, sentence: str) -> None:
        """Log once what of a plan's clip TRL's loss has no place for."""
        if sentence and sentence not in self._covent_said:
            self._covent_said.add(sentence)
            _log.warning("%s", sentence)


def _trl_loss(trainer: Any, inputs: dict[str, Any]) -> Tensor:
    return super(CoventMixin, trainer)._compute_loss(None, inputs)
