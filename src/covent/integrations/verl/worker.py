"""verl's training worker with the whole mini-batch measured and planned before its first micro-batch.

Each process of an actor has one. verl's engine, loss and optimizer are called as they are: before an optimizer step the
worker plans, during it the engine's loss finds the plan, after it the worker keeps a reading for the driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from verl.single_controller.base.decorator import Dispatch, make_nd_compute_dataproto_dispatch_fn, register
from verl.utils import tensordict_utils as tu
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker
from verl.workers.utils.padding import no_padding_2_padding

from covent.core.penalties import PenaltyInputs
from covent.core.shapes import Tensor
from covent.errors import EngineError
from covent.integrations.header import hardware_of
from covent.integrations.readings import UpdateReading, update_reading
from covent.integrations.verl.batch import PROMPT, ROW, SAMPLE, SAMPLES, Columns, measured
from covent.integrations.verl.losses import on_its_way
from covent.integrations.verl.samples import Sample, samples_of
from covent.integrations.verl.settings import clip_of, covent_config
from covent.integrations.verl.window import OnItsWay, Passed, Steering, Window

STATE_FILE = "covent_state.json"
"""In each checkpoint of the actor: the memory of the controls and the number of optimizer steps so far."""


@dataclass(frozen=True)
class Update:
    """One optimizer step as the first rank hands it to the driver."""

    reading: UpdateReading
    grad_norm: float
    lr: float
    samples: list[Sample]


class CoventTrainingWorker(TrainingWorker):  # type: ignore[misc]  # verl has no types
    """verl's training worker that measures and controls entropy."""

    steering: Steering | None = None
    window: Window | None = None
    just_scored = False
    """verl has scored responses with the weights as they are now, and with their entropies."""

    def set_loss_fn(self, loss_fn: Any) -> None:
        """verl's loss of the actor; covent's stands around it."""
        config = loss_fn.keywords["config"]
        group = self.engine.get_data_parallel_group()
        shared = group if group is not None and dist.get_world_size(group) > 1 else None
        self.config_of_actor = config
        self.steering = Steering(covent_config(config), clip_of(config), shared)
        self.updates: list[Update] = []
        super().set_loss_fn(partial(self._loss, loss_fn))

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def infer_batch(self, data: Any) -> Any:
        """verl's scoring, after which the policy is the one that the old log-probs are of."""
        plain = not tu.get(data, key="no_lora_adapter", default=False)
        output = super().infer_batch(data)
        self.just_scored = plain and bool(tu.get(data, key="calculate_entropy", default=False))
        return output

    @register(dispatch_mode=make_nd_compute_dataproto_dispatch_fn(mesh_name="train"), blocking=False)
    def train_batch(self, data: Any) -> Any:
        """One optimizer step of verl: planned before, read after."""
        assert self.steering is not None
        data[ROW] = torch.arange(len(data))
        columns = Columns.of(data.select(*_present(data)).to(self.device_name))
        fresh = self.just_scored and columns.old_entropies is not None
        window = Window.of(columns, on_policy=fresh, update=self.steering.num_updates)
        self._plan_ahead(window, data)
        lr = _learning_rate(self.engine)
        self.window = window
        try:
            output = super().train_batch(data)
        finally:
            self.window, self.just_scored = None, False
        self._read(window, data, output, lr)
        return output

    def _plan_ahead(self, window: Window, data: Any) -> None:
        """Plan the mini-batch now, unless its one micro-batch can be planned from its own forward pass."""
        assert self.steering is not None
        settings, columns = self.steering.settings, window.columns
        alone = not self.engine_config.use_dynamic_bsz and len(data) <= self.engine_config.micro_batch_size_per_gpu
        measures_on_the_way = not settings.controls or settings.scope == "micro" or alone
        if measures_on_the_way or self.steering.has_bonus:
            tu.assign_non_tensor(data, calculate_entropy=True)
        if measures_on_the_way:
            return
        if window.on_policy:
            assert columns.old_entropies is not None
            self.steering.plan_all(window, columns.old_logprobs, columns.old_entropies)
        else:
            self.steering.plan_all(window, *self._scores(data))

    def _scores(self, data: Any) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies of the current policy by verl's engine, without gradient, [B, T]."""
        asked = data.copy()
        tu.assign_non_tensor(
            asked,
            calculate_entropy=True,
            use_remove_padding=self.model_config.get("use_remove_padding", False),
            use_dynamic_bsz=self.engine_config.use_dynamic_bsz,
            max_token_len_per_gpu=self.engine_config.max_token_len_per_gpu,
            micro_batch_size_per_gpu=self.engine_config.micro_batch_size_per_gpu,
            use_fused_kernels=self.engine_config.use_fused_kernels,
        )
        self.engine.module.eval()
        try:
            output = self.engine.infer_batch(asked)["model_output"]
        finally:
            self.engine.module.train()
        found = [no_padding_2_padding(output[name].to(self.device_name), data) for name in ("log_probs", "entropy")]
        return found[0], found[1]

    def _loss(self, loss_fn: Any, model_output: Any, data: Any, dp_group: Any = None) -> Any:
        """verl's loss of one micro-batch, with the plan where it reads one."""
        window, steering = self.window, self.steering
        if window is None or steering is None:
            return loss_fn(model_output=model_output, data=data, dp_group=dp_group)
        with torch.no_grad():
            logprobs = no_padding_2_padding(model_output["log_probs"].detach(), data)
        entropies = model_output.get("entropy")
        if entropies is not None and not steering.has_bonus and not self.config_of_actor.entropy_coeff:
            # No gradient is asked of them, and verl would multiply one by 0.
            entropies = entropies.detach()
            model_output = {**model_output, "entropy": entropies}
        padded_entropies = None if entropies is None else no_padding_2_padding(entropies, data)
        rows = data[ROW]
        window.scored(rows, logprobs, None if padded_entropies is None else padded_entropies.detach())
        reference = window.part(rows, logprobs.shape[1]).reference_logprobs
        micro = OnItsWay(steering, window, Passed(rows), PenaltyInputs(padded_entropies, reference))
        with on_its_way(micro):
            loss, metrics = loss_fn(model_output=model_output, data=data, dp_group=dp_group)
        micro.entry.loss = loss.detach()
        window.passed.append(micro.entry)
        return loss, metrics

    def _read(self, window: Window, data: Any, output: Any, lr: float) -> None:
        """Keep what the driver will ask for; every rank takes part in the counting."""
        assert self.steering is not None
        group = self.steering.group
        whole = measured(window.columns, window.logprobs, window.entropies, on_policy=False, group=group)
        reading = update_reading(window, whole, self.steering.settings.label or "verl")
        wanted = tu.get(data, key=SAMPLES, default=False) and not self.updates
        samples = samples_of(window, whole, data, self.steering.settings.samples_kept) if wanted else []
        self.steering.stepped(whole)
        if reading is not None:
            grad_norm = float(tu.get(output, "metrics")["grad_norm"])
            self.updates.append(Update(reading, grad_norm, lr, samples))


class CoventWorker(ActorRolloutRefWorker):  # type: ignore[misc]  # verl has no types
    """verl's worker of actor, rollout and reference, whose actor is covent's."""

    actor_worker_cls = CoventTrainingWorker

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def covent_updates(self) -> list[Update]:
        """The optimizer steps since this was asked last; of the first rank, others have none."""
        found, self.actor.updates = self.actor.updates, []
        return found if dist.get_rank() == 0 else []

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def covent_facts(self) -> dict[str, Any]:
        """What the header of a run folder says of the workers."""
        parameters = self.actor.engine.module.parameters()
        return {
            "num_parameters": sum(parameter.numel() for parameter in parameters),
            "hardware": hardware_of(torch.device(self.actor.device_name)),
        }

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def save_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """verl's checkpoint, and in it what the controls remember."""
        super().save_checkpoint(local_path, *args, **kwargs)
        if dist.get_rank() == 0:
            Path(local_path).mkdir(parents=True, exist_ok=True)
            (Path(local_path) / STATE_FILE).write_text(self.actor.steering.saved())

    @register(dispatch_mode=Dispatch.ONE_TO_ALL)
    def load_checkpoint(self, local_path: str, *args: Any, **kwargs: Any) -> None:
        """Go on from a checkpoint with what the controls remembered."""
        state = Path(local_path) / STATE_FILE
        held = state.read_text() if state.is_file() else None
        super().load_checkpoint(local_path, *args, **kwargs)
        if held is not None:
            self.actor.steering.restored(held)


def _present(data: Any) -> list[str]:
    """The columns that covent reads, of those that are there."""
    wanted = ("response_mask", "advantages", "old_log_probs", "entropy", "rollout_log_probs", "ref_log_prob")
    missing = [name for name in (PROMPT, SAMPLE) if name not in data.keys()]  # noqa: SIM118 - a TensorDict
    if missing:
        raise EngineError(
            f"A mini-batch of verl came without {' and '.join(missing)}, which covent's trainer adds. Set"
            " trainer.v1.trainer_mode=covent."
        )
    return [*(name for name in wanted if name in data.keys()), PROMPT, SAMPLE]  # noqa: SIM118 - a TensorDict


def _learning_rate(engine: Any) -> float:
    """Of the step that comes; 0 where the engine has no optimizer that says so."""
    groups = getattr(engine.optimizer, "param_groups", None)
    return float(groups[0]["lr"]) if groups else 0.0
