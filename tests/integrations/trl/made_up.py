"""Micro-batches as TRL hands them to its loss, with log-probs that are leaves instead of a model's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer, RLOOTrainer

from covent.integrations.trl import CoventMixin
from covent.integrations.trl.batch import PROMPT, SAMPLE
from covent.integrations.trl.window import Window
from tests.support.tiny_trl import trainer

ROWS, LENGTH, GROUP = 8, 12, 4


class _FixedScores:
    """Scores that the test gives, in place of a forward pass."""

    fixed: Any = None

    def _get_per_token_logps_and_entropies(self, model: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        return (self.fixed.logprobs, self.fixed.entropies, torch.zeros(()))


class FixedGRPO(_FixedScores, GRPOTrainer):
    """TRL's GRPO on given scores."""


class FixedRLOO(_FixedScores, RLOOTrainer):
    """TRL's RLOO on given scores."""


class CoventFixedGRPO(CoventMixin, FixedGRPO):
    """covent in it."""


class CoventFixedRLOO(CoventMixin, FixedRLOO):
    """covent in it."""


def micro_batch(seed: int, *, rloo: bool = False) -> tuple[dict[str, Any], SimpleNamespace]:
    """(what TRL's loss reads, leaf log-probs and entropies): ragged responses, a policy that has moved."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, LENGTH)
    logprobs = -torch.empty(shape, dtype=torch.float64).exponential_(1.0, generator=generator)
    old = logprobs + 0.4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    lengths = torch.randint(2, LENGTH + 1, (ROWS, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    inputs = {
        "prompt_ids": torch.ones(ROWS, 2, dtype=torch.int64),
        "prompt_mask": torch.ones(ROWS, 2, dtype=torch.int64),
        "completion_ids": torch.ones(shape, dtype=torch.int64),
        "completion_mask": mask,
        "advantages": torch.randn(ROWS, generator=generator, dtype=torch.float64),
        "num_items_in_batch": 2 * mask.sum(),
        PROMPT: torch.arange(ROWS) // GROUP,
        SAMPLE: torch.arange(ROWS) % GROUP,
    }
    if rloo:
        # The ratio of a whole response: smaller steps, so that it stays near 1.
        old = logprobs + 0.05 * (old - logprobs)
        inputs["old_logps"] = (old * mask).sum(dim=1)
        inputs["covent_old_logprobs"] = old
    else:
        inputs["old_per_token_logps"] = old
    entropies = torch.rand(shape, generator=generator, dtype=torch.float64)
    return inputs, SimpleNamespace(logprobs=logprobs.requires_grad_(), entropies=entropies.requires_grad_())


def made(kind: type, folder: Path, **settings: Any) -> Any:
    """A trainer ready for one micro-batch of the second optimizer step on a generation."""
    wanted = {"gradient_accumulation_steps": 2, "num_iterations": 2, "max_completion_length": 16, **settings}
    made = trainer(kind, folder, **wanted)
    made.model.train()
    made.current_gradient_accumulation_steps = 2
    if isinstance(made, CoventMixin):
        made._covent.window = Window(2, on_policy=False, update=1)
    return made


def loss_and_gradients(made: Any, inputs: dict[str, Any], scores: SimpleNamespace) -> tuple[float, Tensor, Tensor]:
    """The loss of one micro-batch, and its gradient in the log-probs and in the entropies."""
    made.fixed = scores
    loss = made._compute_loss(made.model, inputs)
    gradients = torch.autograd.grad(loss, [scores.logprobs, scores.entropies], allow_unused=True)
    return loss.item(), *(torch.zeros_like(scores.logprobs) if each is None else each for each in gradients)
