"""One optimizer step of verl as Measure → Plan → Loss: its mini-batch, and the plan that it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from covent import controls
from covent.controls import PPOClip
from covent.core.keys import key
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Measured, Plan
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Tensor
from covent.errors import ConfigError
from covent.integrations.settings import CoventConfig
from covent.integrations.verl.batch import Columns, fitted, measured
from covent.integrations.verl.losses import Cuts


@dataclass
class Passed:
    """A micro-batch whose loss is known."""

    rows: Tensor
    """Of the mini-batch of this rank."""
    plan: Plan | None = None
    cuts: Cuts | None = None
    loss: Tensor | None = None
    """Without gradient."""
    unheard: str = ""
    """verl's loss hears all of a plan."""


@dataclass
class Window:
    """This rank's part of one optimizer step."""

    columns: Columns
    logprobs: Tensor
    """Of the current policy, filled in as micro-batches pass, [B, T]."""
    entropies: Tensor
    """The same: measured before, or filled in as they pass."""
    on_policy: bool
    """No optimizer step since verl scored these responses."""
    update: int
    """Number of the optimizer step in the run."""
    plan: Plan | None = None
    """Of all of it, where it was made before the first micro-batch."""
    num_selections: int = 0
    """How often tokens were chosen for this optimizer step on this rank."""
    passed: list[Passed] = field(default_factory=list)

    @classmethod
    def of(cls, columns: Columns, *, on_policy: bool, update: int) -> Window:
        """One that nothing of has passed."""
        unknown = torch.zeros_like(columns.old_logprobs)
        return cls(columns, unknown, unknown.clone(), on_policy, update)

    def scored(self, rows: Tensor, logprobs: Tensor, entropies: Tensor | None) -> None:
        """Take in what the training forward pass says of some responses, without gradient."""
        width = min(logprobs.shape[1], self.logprobs.shape[1])
        self.logprobs[rows] = fitted(logprobs[:, :width], self.logprobs.shape[1]).to(self.logprobs)
        if entropies is not None:
            self.entropies[rows] = fitted(entropies[:, :width], self.entropies.shape[1]).to(self.entropies)

    def part(self, rows: Tensor, width: int) -> Columns:
        """The columns of some responses, cut or padded to the positions of their micro-batch."""

        def cut(column: Tensor) -> Tensor:
            return fitted(column[rows][:, :width], width)

        own = {name: getattr(self.columns, name) for name in _COLUMNS}
        kept = {name: None if column is None else cut(column) for name, column in own.items()}
        return Columns(identity=type(self.columns.identity)(*map(cut, self.columns.identity)), **kept)  # type: ignore[arg-type]  # any tuple of columns


_COLUMNS = ("mask", "advantages", "old_logprobs", "old_entropies", "sampler_logprobs", "reference_logprobs")


class Steering:
    """The controls of a run, their memory, and the optimizer step they are at."""

    def __init__(self, settings: CoventConfig, clip: PPOClip, group: ProcessGroup | None) -> None:
        """Args:
        settings: of the person.
        clip: verl's own, for controls that say nothing of one.
        group: the ranks that share an optimizer step; None for one.
        """
        self.settings, self.clip, self.group = settings, clip, group
        self.states = controls.first_states(settings.controls)
        self.has_bonus = any(each.type == "entropy_bonus" for each in settings.controls)
        self.num_updates = 0

    def plan_all(self, window: Window, logprobs: Tensor, entropies: Tensor) -> None:
        """Plan the mini-batch before its first micro-batch."""
        window.entropies = entropies.clone()
        group = self.group if self.settings.scope == "window" else None
        batch = measured(window.columns, logprobs, entropies, on_policy=window.on_policy, group=group)
        window.plan = self._plan(window, batch)

    def plan_micro(self, window: Window, rows: Tensor, logprobs: Tensor, entropies: Tensor | None) -> Plan | None:
        """The plan of one micro-batch: its rows of the one made before, or one of its own."""
        if not self.settings.controls:
            return None
        if window.plan is not None:
            return _part_of(window.plan, rows, logprobs.shape[1])
        group = self.group if self.settings.scope == "window" else None
        known = torch.zeros_like(logprobs) if entropies is None else entropies
        part = window.part(rows, logprobs.shape[1])
        return self._plan(window, measured(part, logprobs, known, on_policy=window.on_policy, group=group))

    def _plan(self, window: Window, batch: Measured) -> Plan | None:
        if batch.num_tokens == 0:
            return None
        window.num_selections += 1
        chance = key(self.settings.seed, "plan", window.update)
        return controls.plan(batch, self.settings.controls, chance, self.states, clip=self.clip)

    def stepped(self, whole: Measured) -> None:
        """The optimizer step is made; the controls remember what was measured."""
        if whole.num_tokens:
            self.states = controls.next_states(self.states, self.settings.controls, whole)
        self.num_updates += 1

    def saved(self) -> str:
        """What a checkpoint must hold, as JSON."""
        states = [None if state is None else list(state) for state in self.states]
        return json.dumps({"states": states, "num_updates": self.num_updates})

    def restored(self, text: str) -> None:
        """Go on from a checkpoint.

        Raises: ConfigError when the checkpoint is of other controls.
        """
        held = json.loads(text)
        fits = [(state is None) == (before is None) for state, before in zip(self.states, held["states"], strict=False)]
        if len(fits) != len(self.states) or len(fits) != len(held["states"]) or not all(fits):
            raise ConfigError(
                f"The checkpoint remembers {len(held['states'])} control(s) of other kinds than the"
                f" {len(self.states)} of this run. Go on with the controls that it was made with."
            )
        self.states = tuple(
            None if state is None else type(state)(*before)
            for state, before in zip(self.states, held["states"], strict=True)
        )
        self.num_updates = int(held["num_updates"])


@dataclass
class OnItsWay:
    """A micro-batch between verl's forward pass and its loss; what `losses.policy_loss` asks."""

    steering: Steering
    window: Window
    entry: Passed
    inputs: PenaltyInputs

    def plan_for(self, logprobs: Tensor) -> Plan | None:
        """Its rows of the plan, or a plan of its own."""
        entropies = None if self.inputs.entropies is None else self.inputs.entropies.detach()
        self.entry.plan = self.steering.plan_micro(self.window, self.entry.rows, logprobs, entropies)
        return self.entry.plan

    def executed(self, cuts: Cuts) -> None:
        """Its loss is known."""
        self.entry.cuts = cuts


def _part_of(plan: Plan, rows: Tensor, width: int) -> Plan:
    """The plan of some responses, in their order and with the positions of their micro-batch."""
    per_token = {name: value for name, value in vars(plan).items() if isinstance(value, torch.Tensor)}
    cut: dict[str, Any] = {name: fitted(value[rows][:, :width], width) for name, value in per_token.items()}
    return replace(plan, **cut)
