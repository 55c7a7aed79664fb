"""What covent hears of a TRL run, put together into the rows of its run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import TrainerCallback

from covent.core import ranks
from covent.core.plan import Measured
from covent.core.shapes import Tensor
from covent.errors import ConfigError
from covent.integrations.header import hardware_of, run_header
from covent.integrations.readings import PREFIX, UpdateReading, response_entropies
from covent.integrations.recorder import Recorder
from covent.integrations.settings import CoventConfig
from covent.integrations.trl.batch import PROMPT, SAMPLE
from covent.integrations.trl.checks import updates_per_generation
from covent.integrations.trl.rewards import KillableReward, text_of
from covent.integrations.trl.rollouts import Rewards, Rollout, RolloutSettings, rollout_of
from covent.integrations.trl.window import MicroBatch, Window
from covent.readings import Mean
from covent.store.schema import RunHeader, SampleRow, VerifierFaultRow

_KEPT_FAULTS = 20
"""Of a generation, as the embedded trainer keeps them."""
_KEPT_CHARS = 500


class Recording(TrainerCallback):  # type: ignore[misc]  # transformers has no types here
    """One run of one trainer, rollout after rollout. Every rank has one; they meet when rows are counted."""

    def __init__(self, settings: CoventConfig, trainer: Any) -> None:
        """Args:
        settings: with a run folder.
        trainer: of TRL, made.

        Raises:
          ConfigError: no reward function has the name that is to be the accuracy.
        """
        if settings.accuracy is not None and settings.accuracy not in trainer.reward_func_names:
            raise ConfigError(
                f"accuracy = '{settings.accuracy}' names no reward function of this run. They are"
                f" {', '.join(trainer.reward_func_names)}."
            )
        assert settings.run_folder is not None
        self.settings, self.trainer = settings, trainer
        self.recorder = Recorder(settings, settings.run_folder, temperature=trainer.temperature)
        self.rollout_settings = RolloutSettings(
            right_from=settings.right_from,
            temperature=trainer.temperature,
            masks_truncated=bool(trainer.mask_truncated_completions),
            end_ids=_end_ids(trainer),
            micro_batches=trainer.args.steps_per_generation,
        )
        self.rollout: Rollout | None = None
        self.rewards: Rewards | None = None
        self.reading: UpdateReading | None = None
        self.lr = self.grad_norm = float("nan")
        self.eval_rewards: list[Rewards] = []
        self.eval_entropy = [0.0, 0.0]
        self._since = time.perf_counter()

    def rewarded(self, by_function: Tensor, *, group_size: int, training: bool) -> None:
        """TRL has rewarded a generation, or a batch of an evaluation."""
        found = Rewards.of(
            by_function,
            self.trainer.reward_weights,
            self.trainer.reward_func_names,
            self.settings.accuracy,
            group_size,
        )
        if training:
            self.rewards = found
        else:
            self.eval_rewards.append(found)

    def misjudged(self, rewards: Sequence[KillableReward], prompts: Any, completions: Any, number: int) -> None:
        """Keep what killable reward functions failed at in a generation, of this rank's responses.

        Args:
          number: of the generation.
        """
        size = self.trainer.num_generations
        first = number * len(prompts) * self.trainer.accelerator.num_processes // size
        self.recorder.misjudged(
            [
                VerifierFaultRow(
                    phase="train",
                    step=number,
                    group=first + row // size,
                    sample=row % size,
                    prompt=text_of(prompts[row])[-_KEPT_CHARS:],
                    response=text_of(completions[row])[-_KEPT_CHARS:],
                    verdict=str(judgement.verdict),
                    reason=judgement.reason or judgement.warning,
                )
                for each in rewards
                for row, judgement in each.faults
            ][:_KEPT_FAULTS]
        )

    def generated(self, number: int, output: dict[str, Any], seconds: float) -> None:
        """A generation is there to be trained on."""
        assert self.rewards is not None
        self.rollout = rollout_of(number, output, self.rewards, self.rollout_settings)
        self.rollout.seconds["rollout"] = seconds
        self._since = time.perf_counter()

    def close_rollout(self) -> None:
        """Write the row of the generation before; every rank takes part."""
        if self.rollout is None:
            return
        self.rollout.seconds["update"] = time.perf_counter() - self._since
        row = self.rollout.row(self.rollout_settings, self.trainer._covent.group, self.trainer.accelerator.device)
        self.rollout = None
        for name, value in self.recorder.rolled(row).items():
            self.trainer._metrics["train"][PREFIX + name].append(value)

    def micro_passed(self, micro: MicroBatch) -> None:
        """A micro-batch has been scored for its loss."""
        if self.rollout is not None and micro.scores is not None:
            self.rollout.measured(micro.columns, micro.scores)

    def window_passed(self, window: Window, whole: Measured, reading: UpdateReading | None) -> None:
        """All micro-batches of an optimizer step have been scored."""
        self.reading = reading
        rollout = self.rollout
        if rollout is None or reading is None or rollout.num_updates or not self.recorder.wants_samples(rollout.step):
            return
        # The covariances are centred over all ranks, so every rank takes part in them.
        covariances = whole.covariances()
        self.recorder.sampled(list(self._samples(window, whole, covariances)))

    def eval_scored(self, entropies: Tensor, mask: Tensor) -> None:
        """A batch of an evaluation has been scored."""
        found = response_entropies(entropies.cpu(), mask.cpu())
        self.eval_entropy = [before + more for before, more in zip(self.eval_entropy, found, strict=True)]

    def _samples(self, window: Window, whole: Measured, covariances: Tensor) -> Iterator[SampleRow]:
        """Some responses of this rank, right and wrong in turn."""
        assert self.rollout is not None
        rewards, tokenizer = self.rollout.rewards, _tokenizer(self.trainer)
        rows = [(micro, row) for micro in window.passed for row in range(len(micro.columns.mask))]
        order = torch.argsort(whole.advantages[:, 0], descending=True, stable=True).tolist()
        alternating = [place for pair in zip(order, reversed(order), strict=True) for place in pair]
        for place in list(dict.fromkeys(alternating))[: self.settings.samples_kept]:
            micro, row = rows[place]
            width = micro.columns.mask.shape[1]
            mask = micro.columns.mask[row]
            columns = [
                column[place][:width][mask].tolist() for column in (whole.logprobs, whole.entropies, covariances)
            ]
            prompt, sample = int(micro.inputs[PROMPT][row]), int(micro.inputs[SAMPLE][row])
            index = prompt * rewards.group_size % len(rewards.accuracy) + sample
            reward = float(rewards.accuracy[index].nan_to_num())
            seen = micro.inputs["prompt_ids"][row][micro.inputs["prompt_mask"][row].bool()]
            yield SampleRow(
                step=self.rollout.step,
                group=prompt,
                sample=sample,
                prompt=tokenizer.decode(seen),
                answer="",
                verdict="right" if reward >= self.settings.right_from else "wrong",
                reward=reward,
                advantage=float(whole.advantages[place, 0]),
                update=window.update,
                old_logprobs=whole.old_logprobs[place][:width][mask].tolist(),
                tokens=tokenizer.convert_ids_to_tokens(micro.inputs["completion_ids"][row][mask].tolist()),
                logprobs=columns[0],
                entropies=columns[1],
                covariances=columns[2],
                selected=(torch.zeros_like(mask) if micro.plan is None else micro.plan.chosen[row])[mask].tolist(),
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Make the run folder."""
        trainer = self.trainer
        updates = updates_per_generation(trainer.args, trainer.num_iterations)
        self.recorder.begin(
            self._header if trainer.is_world_process_zero() else None,
            num_steps=max(1, math.ceil(trainer.state.max_steps / updates)),
            first_rollout=trainer._covent_num_generations,
        )

    def _header(self) -> RunHeader:
        trainer = self.trainer
        return run_header(
            self.settings,
            {"name": "trl", "trainer": type(trainer).__name__, "ranks": trainer.accelerator.num_processes},
            trainer.args.to_dict(),
            seed=trainer.args.seed,
            libraries=("transformers", "trl", "accelerate"),
            hardware=hardware_of(trainer.accelerator.device),
            num_parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """The learning rate of the step that comes."""
        self.lr = float(optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the row of the optimizer step."""
        if self.rollout is None or self.reading is None:
            return
        self.recorder.updated(self.reading, self.rollout.step, grad_norm=self.grad_norm, lr=self.lr)
        self.rollout.num_updates += 1
        self.reading = None

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Write the row of the evaluation."""
        group, device = self.trainer._covent.group, self.trainer.accelerator.device
        own = torch.tensor(self.eval_entropy, dtype=torch.float64, device=device if group else "cpu")
        seconds = float((metrics or {}).get("eval_runtime", 0.0))
        updates = updates_per_generation(self.trainer.args, self.trainer.num_iterations)
        step = int(state.global_step / updates + 1e-9)
        entropy, count = ranks.total(own, group).tolist()
        if self.eval_rewards:
            right = torch.cat([each.right(self.settings.right_from) for each in self.eval_rewards])
            found = Mean(sum=entropy, count=round(count))
            self.recorder.evaluated(step, right.sum(dim=1).tolist(), right.shape[1], found, seconds=seconds)
        self.eval_rewards, self.eval_entropy = [], [0.0, 0.0]


def _tokenizer(trainer: Any) -> Any:
    """Of a text model, or the one inside the processor of a multimodal one."""
    return getattr(trainer.processing_class, "tokenizer", trainer.processing_class)


def _end_ids(trainer: Any) -> tuple[int, ...]:
    """Tokens after which a response is over; a padding token is one for TRL."""
    tokenizer = _tokenizer(trainer)
    found = getattr(trainer, "eos_token_ids", None) or [tokenizer.eos_token_id]
    return (*found, tokenizer.pad_token_id)
