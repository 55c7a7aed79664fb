"""The entropy change of one optimizer step by cause: what is kept before the step, and the row that follows from it.

The step itself is not touched. The gradients by cause are taken beside it, so a run with attribution is bit for bit the
run without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from covent.core.attribution import adam_directions, entropy_gradient, mean_entropy_changes, sgd_directions
from covent.core.causes import loss_by_cause
from covent.core.plan import Measured, Plan
from covent.core.reduce import part_of_mean
from covent.errors import ConfigError
from covent.readings import ProbeReading
from covent.store.schema import AttributionRow
from covent.train.anchors import NO_ANCHORS, Anchors
from covent.train.forward_passes import AtOnce
from covent.train.model import LanguageModel, trained
from covent.train.probes import Probes
from covent.train.step import VANILLA, LossChoice, OptimizerBatch, micro_batches

Gradients = dict[str, dict[str, Tensor]]
"""By cause, then by parameter."""

WEIGHT_DECAY = "weight decay"
RIGHT, WRONG = "right answers", "wrong answers"


def gradients_by_cause(
    model: LanguageModel,
    batch: OptimizerBatch,
    measured: Measured,
    plan: Plan,
    *,
    temperature: float,
    at_once: AtOnce,
    choice: LossChoice = VANILLA,
    anchors: Anchors = NO_ANCHORS,
    sets: Mapping[str, Tensor] | None = None,
) -> Gradients:
    """The parts of the gradient of one optimizer batch, one backward pass a cause and micro-batch.

    Args:
      model, batch, measured, plan, temperature, at_once, choice, anchors: as for `accumulate`, whose gradient is the
        sum of the parts.
      sets: whose policy terms are told apart, see `loss_by_cause`; by default right and wrong answers.
    Returns: parts that are not 0 everywhere, before any clip of the gradient's norm. No `.grad` is touched.
    """
    chosen = {RIGHT: batch.right, WRONG: ~batch.right} if sets is None else sets
    names, parameters = zip(*trained(model.network).items(), strict=True)
    counts = measured.counts(choice.max_tokens)
    total: Gradients = {}
    for micro in micro_batches(
        model, batch, measured, plan, temperature=temperature, at_once=at_once, choice=choice, anchors=anchors
    ):
        members = {name: rows[micro.rows] for name, rows in chosen.items()}
        terms = loss_by_cause(micro.terms_of, micro.plan, micro.mask, members)
        parts = {cause: choice.aggregation(term, micro.mask, counts) for cause, term in terms.aggregated.items()}
        for cause, term in terms.token_mean.items():
            parts[cause] = part_of_mean(term, micro.mask, count=counts.num_tokens)
        for cause, part in parts.items():
            gradients = torch.autograd.grad(
                part, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            before = total.get(cause)
            total[cause] = {
                name: found if before is None else before[name] + found
                for name, found in zip(names, gradients, strict=True)
            }
    return {cause: found for cause, found in total.items() if any(bool(part.any()) for part in found.values())}


@dataclass(frozen=True)
class StepAttribution:
    """What must be kept from before an optimizer step to split its entropy change afterwards."""

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    weights: dict[str, Tensor]
    momentum: dict[str, Tensor]
    """The optimizer's running mean of earlier gradients, where it has one."""
    gradients: Gradients
    entropy_gradient: dict[str, Tensor]

    @classmethod
    def before(
        cls,
        model: LanguageModel,
        optimizer: torch.optim.Optimizer,
        probes: Probes,
        batch: OptimizerBatch,
        measured: Measured,
        plan: Plan,
        *,
        temperature: float,
        at_once: AtOnce,
        choice: LossChoice = VANILLA,
        anchors: Anchors = NO_ANCHORS,
        sets: Mapping[str, Tensor] | None = None,
    ) -> StepAttribution:
        """To be called right before `execute` with the same arguments.

        Raises: ConfigError for an optimizer whose step is not linear in the gradient's parts in a way known here.
        """
        _must_be_linear(optimizer)
        weights = {name: weight.detach().clone() for name, weight in trained(model.network).items()}
        momentum = {}
        for name, parameter in trained(model.network).items():
            state = optimizer.state.get(parameter, {})
            buffer = state.get("exp_avg", state.get("momentum_buffer"))
            if buffer is not None:
                momentum[name] = buffer.clone()
        return cls(
            network=model.network,
            optimizer=optimizer,
            weights=weights,
            momentum=momentum,
            gradients=gradients_by_cause(
                model,
                batch,
                measured,
                plan,
                temperature=temperature,
                at_once=at_once,
                choice=choice,
                anchors=anchors,
                sets=sets,
            ),
            entropy_gradient=entropy_gradient(probes.logits_of, weights),
        )

    def directions(self, grad_factor: float) -> Gradients:
        """After the step: how each cause moved the weights, float64. They add up to the step, rounding apart.

        Args:
          grad_factor: what the clip of the gradient's norm multiplied all parts by.
        """
        settings = {id(p): group for group in self.optimizer.param_groups for p in group["params"]}
        moved: Gradients = {}
        for name, parameter in trained(self.network).items():
            if id(parameter) in settings:
                parts = self._parts(name, self.optimizer.state[parameter], settings[id(parameter)], grad_factor)
                for cause, direction in parts.items():
                    moved.setdefault(cause, {})[name] = direction
        return moved

    def row(self, update: int, step: int, probe: ProbeReading, grad_factor: float) -> AttributionRow:
        """After the step: the entropy change by cause, and what is left over.

        Args:
          update, step: of this optimizer step.
          probe: its reading on the same probe states.
          grad_factor: as for `directions`.
        """
        parts = mean_entropy_changes(self.entropy_gradient, self.directions(grad_factor))
        step_taken = {name: p.detach().double() - self.weights[name] for name, p in trained(self.network).items()}
        first_order = mean_entropy_changes(self.entropy_gradient, {"step": step_taken})["step"]
        return AttributionRow(
            update=update,
            step=step,
            num_states=probe.num_states,
            entropy_before=probe.entropy_before,
            parts=parts,
            unattributed=first_order - sum(parts.values()),
            second_order_logits=probe.accounted - first_order,
            second_order_entropy=probe.observed - probe.accounted,
            observed=probe.observed,
            grad_factor=grad_factor,
        )

    def _parts(
        self, name: str, state: Mapping[str, Any], group: Mapping[str, Any], grad_factor: float
    ) -> dict[str, Tensor]:
        """How each cause moved one parameter."""
        weight, decay = self.weights[name].double(), group["weight_decay"]
        gradients = {cause: grad_factor * found[name].double() for cause, found in self.gradients.items()}
        if decay and not group.get("decoupled_weight_decay", False):
            gradients[WEIGHT_DECAY] = decay * weight
        if isinstance(self.optimizer, torch.optim.SGD):
            buffer = self.momentum.get(name)
            return sgd_directions(gradients, buffer, lr=float(group["lr"]), momentum=float(group["momentum"]))
        parts = adam_directions(
            gradients,
            self.momentum.get(name),
            state["exp_avg_sq"],
            lr=float(group["lr"]),
            betas=group["betas"],
            eps=group["eps"],
            num_steps=int(state["step"]),
        )
        if decay and group.get("decoupled_weight_decay", False):
            parts[WEIGHT_DECAY] = -group["lr"] * decay * weight
        return parts


def _must_be_linear(optimizer: torch.optim.Optimizer) -> None:
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam):
        raise ConfigError(f"The step of {kind} cannot be split by cause. Known: SGD, Adam, AdamW.")
    for group in optimizer.param_groups:
        for option in ("amsgrad", "nesterov", "maximize", "dampening"):
            if group.get(option):
                raise ConfigError(
                    f"The step of {kind} with {option}={group[option]} cannot be split by cause. Unset it."
                )
