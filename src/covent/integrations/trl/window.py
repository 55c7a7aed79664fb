"""One optimizer step of TRL as Measure → Plan → Loss: its micro-batches as they pass, and the plans they are given."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from covent import controls
from covent.core.keys import key
from covent.core.plan import Measured, Plan
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Tensor
from covent.errors import ConfigError
from covent.integrations.settings import CoventConfig
from covent.integrations.trl.batch import Columns, Scores, measured
from covent.integrations.trl.execution import Cuts


@dataclass
class MicroBatch:
    """One micro-batch on its way through TRL's loss."""

    inputs: dict[str, Any]
    """What TRL's loss reads; covent writes into it."""
    columns: Columns
    scores: Scores | None = None
    """Of TRL's own forward pass; gradients flow until the loss is done."""
    plan: Plan | None = None
    cuts: Cuts | None = None
    share: float = 1.0
    """Of the optimizer step's micro-batches, those that its plan was made for together."""
    unheard: str = ""
    """What of the plan's clip TRL's loss has no place for."""
    loss: Tensor | None = None
    """Without gradient."""
    undo: ExitStack = field(default_factory=ExitStack)
    """What puts TRL's own settings back."""


@dataclass
class Window:
    """This rank's part of one optimizer step."""

    num_micro_batches: int
    on_policy: bool
    """No optimizer step since these responses were sampled."""
    update: int
    """Number of the optimizer step in the run."""
    passed: list[MicroBatch] = field(default_factory=list)
    planned: deque[tuple[Plan | None, float]] = field(default_factory=deque)
    """Plans of the micro-batches to come, where they were made for several at once, and for what share of the step."""
    num_selections: int = 0
    """How often tokens were chosen for this optimizer step on this rank; once is exact."""

    @property
    def is_whole(self) -> bool:
        return len(self.passed) == self.num_micro_batches

    @property
    def num_to_come(self) -> int:
        return self.num_micro_batches - len(self.passed)

    def measured(self, group: ProcessGroup | None) -> Measured:
        """All of it, from the forward passes of the loss."""
        scores = [micro.scores for micro in self.passed if micro.scores is not None]
        return measured([micro.columns for micro in self.passed], scores, on_policy=False, group=group)


class Steering:
    """The controls of a run, their memory, and the optimizer step they are at."""

    def __init__(self, settings: CoventConfig, group: ProcessGroup | None) -> None:
        """Args:
        settings: of the person.
        group: the ranks that share an optimizer step; None for one process.
        """
        self.settings = settings
        self.group = group
        self.types = {each.type for each in settings.controls}
        self.states = controls.first_states(settings.controls)
        self.window: Window | None = None
        self.updates_since_sampling = 0

    def begins(self) -> None:
        """Training begins, maybe after one that was broken off in the middle of an optimizer step."""
        self.window, self.updates_since_sampling = None, 0

    def sampled(self) -> None:
        """New responses, from the policy as it is now."""
        self.updates_since_sampling = 0

    def arrives(self, num_micro_batches: int, update: int) -> Window:
        """The window of the micro-batch that TRL is about to score."""
        if self.window is None:
            self.window = Window(num_micro_batches, self.updates_since_sampling == 0, update)
        return self.window

    def wants_all_at_once(self, window: Window) -> bool:
        """Whether the micro-batches to come must be measured before the first of them is trained on."""
        alone = window.num_to_come == 1
        return bool(self.settings.controls) and self.settings.scope != "micro" and not alone and not window.planned

    def plan_all(self, window: Window, columns: Sequence[Columns], scores: Sequence[Scores]) -> None:
        """Plan several micro-batches together."""
        whole, share = self._plan(window, columns, scores), len(columns) / window.num_micro_batches
        first = 0
        for each in columns:
            rows = slice(first, first + len(each.mask))
            window.planned.append((None if whole is None else whole.rows(rows), share))
            first = rows.stop

    def plan(self, window: Window, micro: MicroBatch, scores: Scores) -> Plan | None:
        """The plan of one micro-batch: made before, or now from its own forward pass.

        None without a control, and where no token counts, as when all responses were truncated and are masked.
        """
        if not self.settings.controls:
            return None
        if not window.planned:
            self.plan_all(window, [micro.columns], [scores.detach()])
        micro.plan, micro.share = window.planned.popleft()
        return micro.plan

    def _plan(self, window: Window, columns: Sequence[Columns], scores: Sequence[Scores]) -> Plan | None:
        group = self.group if self.settings.scope == "window" else None
        batch = measured(columns, scores, on_policy=window.on_policy, group=group)
        if batch.num_tokens == 0:
            return None
        window.num_selections += 1
        chance = key(self.settings.seed, "plan", window.update)
        return controls.plan(batch, self.settings.controls, chance, self.states, clip=None)

    def stepped(self, whole: Measured) -> None:
        """The optimizer step is planned and its gradients are there; the controls remember what was measured."""
        if whole.num_tokens:
            self.states = controls.next_states(self.states, self.settings.controls, whole)
        self.updates_since_sampling += 1
        self.window = None

    def saved(self, num_generations: int) -> str:
        """What a checkpoint must hold, as JSON.

        Args:
          num_generations: of the run so far; the responses of the next are numbered from there.
        """
        states = [None if state is None else list(state) for state in self.states]
        return json.dumps({"states": states, "num_generations": num_generations})

    def restored(self, text: str) -> int:
        """Go on from a checkpoint.

        Returns: the number of generations so far.
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
        return int(held["num_generations"])
