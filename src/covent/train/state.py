"""What a run must remember so that it can be taken up again bit for bit. All of it is here, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar, get_type_hints

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter
from torch import Tensor
from transformers import PreTrainedModel

from covent.controls import States
from covent.rollout.batch import Responses
from covent.store.rows import Mark
from covent.train.anchors import NO_ANCHORS, Anchors
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel, trained, weights_hash
from covent.train.rollouts import Rollout

Tensors = dict[str, Tensor]

Thing = TypeVar("Thing")


class Position(BaseModel):
    """Where a run stands between two things that are done whole or not at all. Replaced as one, never changed."""

    # The adaptive entropy bonus begins with an infinite entropy.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    phase: Literal["warm start", "warmed", "rl"] = "warm start"
    warm_steps: int = 0
    """Supervised steps done, over all rounds: the cursor in the warm start's corpus too."""
    start_model: str | None = None
    """Hash of the weights after the warm start."""
    tested: bool = False
    """The test before the first rollout is in the rows."""
    step: int = 0
    """Rollout steps done."""
    validated: bool = False
    """The validation that belongs to the coming rollout step is in the rows."""
    num_groups: int = 0
    """Train problems drawn: the cursor in the data."""
    batches_done: int = 0
    """Optimizer batches of the pending rollout that are done."""
    num_updates: int = 0
    """Optimizer steps tried, over the whole run."""
    num_not_applied: int = 0
    """Of the pending rollout's: those that were not applied."""
    faults_in_a_row: int = 0
    """Since the last rollout step without one."""
    errors_counted: tuple[tuple[int, int], ...] = ()
    """Errors and responses of the newest generation rounds, by which a failing verifier stops the run."""
    controls: States = ()
    """What the controls remember."""
    reason: str = ""
    """Why the run ends early, once it is to."""
    marks: dict[str, Mark] = {}
    """Where each row file ended."""
    seconds: float = 0.0
    """Wall time of the run up to its last save."""

    @property
    def label(self) -> str:
        """A name for people: how far the run is."""
        if self.phase == "warm start":
            return f"warm-start-{self.warm_steps}"
        return f"step-{self.step}" + (f"-update-{self.batches_done}" if self.batches_done else "")


@dataclass(frozen=True)
class Pending:
    """A rollout that was sampled and is being learnt from."""

    rollout: Rollout
    old_logprobs: Tensor | None
    """Of the kept responses; None when no group was kept."""
    gap: float | None
    first_update: int
    seconds: dict[str, float]
    """Wall time by phase so far."""


@dataclass
class RunState:
    """The run itself. The position is true of the rest: nothing below changes without the position's changing next."""

    model: LanguageModel
    initial_weights: str
    """Hash of the weights before the warm start."""
    optimizer: torch.optim.Optimizer | None = None
    anchors: Anchors = NO_ANCHORS
    probe_states: Responses | None = None
    pending: Pending | None = None
    at: Position = field(default_factory=Position)

    @classmethod
    def fresh(cls, model: LanguageModel) -> RunState:
        """Before anything has been done."""
        return cls(model, weights_hash(model))

    def move(self, **changes: Any) -> None:
        """To another position."""
        self.at = self.at.model_copy(update=changes)

    def tensors(self) -> dict[str, Tensors]:
        """Every tensor to remember, by what it belongs to and by name."""
        network = self.model.network
        found = {"model": own_tensors(network)}
        if self.optimizer is not None:
            found["optimizer"] = optimizer_tensors(self.optimizer, network)
        if self.anchors.reference is not None:
            found["reference"] = own_tensors(self.anchors.reference, like=network)
        if self.probe_states is not None:
            found["probes"] = packed(self.probe_states)[0]
        if self.pending is not None:
            found["rollout"] = packed(self.pending)[0]
            if self.anchors.old is not None:
                found["old"] = own_tensors(self.anchors.old, like=network)
        return found

    def facts(self) -> dict[str, Any]:
        """Everything else to remember, as JSON can hold it."""
        pending = None if self.pending is None else packed(self.pending)[1]
        return {"position": json.loads(self.at.model_dump_json()), "pending": pending}

    def restore(self, tensors: Mapping[str, Tensors], facts: Mapping[str, Any], config: TrainConfig) -> None:
        """The inverse of `tensors` and `facts`, on a fresh state of the same model.

        Raises: ValueError when they are not of this model.
        """
        network = self.model.network
        copy_into(network, tensors["model"])
        self.at = Position.model_validate(facts["position"])
        if self.at.phase == "rl":
            self.anchors = Anchors.of(network, config.controls)
        if "optimizer" in tensors:
            self.optimizer = new_optimizer(self.at.phase, network, config)
            load_optimizer(self.optimizer, network, tensors["optimizer"])
        if self.anchors.reference is not None:
            copy_into(self.anchors.reference, tensors["reference"], like=network)
        if "probes" in tensors:
            self.probe_states = unpacked(Responses, tensors["probes"], {}, network.device)
        if facts["pending"] is not None:
            self.pending = unpacked(Pending, tensors["rollout"], facts["pending"], network.device)
            if self.anchors.old is not None:
                copy_into(self.anchors.old, tensors["old"], like=network)


def new_optimizer(phase: str, network: PreTrainedModel, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of a phase before its first step."""
    parameters = list(trained(network).values())
    if phase == "warm start":
        return torch.optim.AdamW(parameters, lr=config.warm_start.lr, betas=(0.9, 0.98), weight_decay=0.0)
    return torch.optim.Adam(parameters, lr=config.optimizer.lr, betas=config.optimizer.betas)


def own_tensors(network: PreTrainedModel, *, like: PreTrainedModel | None = None) -> Tensors:
    """Weights that training can change, and persistent buffers; a weight with two names has one here.

    Args:
      like: the network that is trained, where `network` is a frozen copy of it.
    """
    kept = network.state_dict().keys()
    weights = dict(network.named_parameters())
    found = {name: weights[name].detach() for name in trained(like or network)}
    return found | {name: buffer for name, buffer in network.named_buffers() if name in kept}


@torch.no_grad()
def copy_into(network: PreTrainedModel, tensors: Tensors, *, like: PreTrainedModel | None = None) -> None:
    """The inverse of `own_tensors`. Raises: ValueError when the names or shapes are not those of the network."""
    own = own_tensors(network, like=like)
    for name in sorted(own.keys() ^ tensors.keys()):
        raise ValueError(f"'{name}' is in one of checkpoint and model only")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
            raise ValueError(
                f"'{name}' is {tensor.dtype} {list(tensor.shape)} in the checkpoint and {own[name].dtype}"
                f" {list(own[name].shape)} in the model"
            )
        own[name].copy_(tensor)


def optimizer_tensors(optimizer: torch.optim.Optimizer, network: PreTrainedModel) -> Tensors:
    """What the optimizer remembers of each weight, by `weight/what`."""
    names = {weight: name for name, weight in network.named_parameters()}
    return {
        f"{names[weight]}/{what}": value for weight, memory in optimizer.state.items() for what, value in memory.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, network: PreTrainedModel, tensors: Tensors) -> None:
    """The inverse of `optimizer_tensors`, on an optimizer that has made no step."""
    names = {weight: name for name, weight in network.named_parameters()}
    order = [names[weight] for group in optimizer.param_groups for weight in group["params"]]
    memory: dict[int, Tensors] = {}
    for name, tensor in tensors.items():
        weight, _, what = name.rpartition("/")
        memory.setdefault(order.index(weight), {})[what] = tensor
    optimizer.load_state_dict({"state": memory, "param_groups": optimizer.state_dict()["param_groups"]})


def packed(thing: Any, prefix: str = "") -> tuple[Tensors, dict[str, Any]]:
    """A dataclass as its tensors, by dotted name, and the rest of its fields as JSON can hold them."""
    tensors: Tensors = {}
    facts: dict[str, Any] = {}
    for name, kind in _kinds(type(thing)):
        value = getattr(thing, name)
        if isinstance(value, Tensor):
            tensors[prefix + name] = value
            facts[prefix + name] = value.device.type
        elif isinstance(value, Responses | Rollout):
            inner_tensors, inner_facts = packed(value, f"{prefix}{name}.")
            tensors |= inner_tensors
            facts |= inner_facts
        elif value is None:
            facts[prefix + name] = None
        else:
            facts[prefix + name] = TypeAdapter(kind).dump_python(value, mode="json")
    return tensors, facts


def unpacked(
    kind: type[Thing], tensors: Mapping[str, Tensor], facts: Mapping[str, Any], device: torch.device, prefix: str = ""
) -> Thing:
    """The inverse of `packed`; tensors that were on the model's device come to `device`."""
    found: dict[str, Any] = {}
    for name, each in _kinds(kind):
        full = prefix + name
        inner = next((part for part in (Responses, Rollout) if each in (part, part | None)), None)
        is_none = full in facts and facts[full] is None
        if full in tensors:
            found[name] = tensors[full] if facts.get(full) == "cpu" else tensors[full].to(device)
        elif inner is not None and not is_none:
            found[name] = unpacked(inner, tensors, facts, device, f"{full}.")
        else:
            found[name] = None if is_none else TypeAdapter(each).validate_python(facts[full])
    return kind(**found)


def _kinds(kind: type) -> Iterator[tuple[str, Any]]:
    hints = get_type_hints(kind)
    for each in fields(kind):
        yield each.name, hints[each.name]
