"""One optimizer step: measure the whole optimizer batch → plan → loss, micro-batch by micro-batch, one division."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from covent.core.loss import LossTerms, surrogate
from covent.core.plan import Measured, Plan
from covent.core.reduce import part_of_mean
from covent.errors import NonFiniteError
from covent.rollout.batch import Responses, score
from covent.train.model import LanguageModel


@dataclass(frozen=True)
class OptimizerBatch:
    """The responses of one optimizer step, with what the rollout knows of them."""

    responses: Responses
    advantages: Tensor
    """[B] one a response."""
    old_logprobs: Tensor
    """[B, T] of the sampling policy, evaluated by the learner, nats."""
    coverage: float
    """Share of the rollout's tokens that carry gradient, over all its optimizer batches."""
    right: Tensor
    """[B] bool: responses whose answer is right."""

    def __len__(self) -> int:
        return len(self.responses)


@dataclass(frozen=True)
class Outcome:
    """What one executed plan did."""

    loss: float
    grad_norm: float
    cut_low: int
    """Tokens whose gradient the clip removed at the low side."""
    cut_high: int


@torch.no_grad()
def learner_scores(
    model: LanguageModel, responses: Responses, *, temperature: float, at_once: int
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [B, T] of all responses, without gradient, `at_once` responses a forward pass."""
    parts = [
        score(model.network, responses.rows(slice(first, first + at_once)), temperature=temperature)
        for first in range(0, len(responses), at_once)
    ]
    logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs.masked_fill(~responses.mask, 0.0), entropies.masked_fill(~responses.mask, 0.0)


def measure(model: LanguageModel, batch: OptimizerBatch, *, temperature: float, at_once: int) -> Measured:
    """The whole optimizer batch under the current policy."""
    responses = batch.responses
    logprobs, entropies = learner_scores(model, responses, temperature=temperature, at_once=at_once)
    return Measured(
        logprobs=logprobs,
        old_logprobs=batch.old_logprobs,
        entropies=entropies,
        advantages=batch.advantages[:, None].expand_as(logprobs),
        mask=responses.mask,
        identity=responses.identity,
    )


def accumulate(
    model: LanguageModel, batch: OptimizerBatch, measured: Measured, plan: Plan, *, temperature: float, at_once: int
) -> tuple[float, int, int]:
    """Add the gradient of the plan's loss to the model, micro-batch by micro-batch.

        loss = sum over all tokens of (policy + kl) / N          N tokens in the whole optimizer batch

    Returns: (loss, tokens cut low, tokens cut high).
    """
    loss, cut_low, cut_high = 0.0, 0, 0
    for first in range(0, len(batch), at_once):
        rows = slice(first, first + at_once)
        logprobs, _ = score(model.network, batch.responses.rows(rows), temperature=temperature)
        terms: LossTerms = surrogate(
            logprobs, measured.old_logprobs[rows], measured.advantages[rows], measured.mask[rows], plan.rows(rows)
        )
        part = part_of_mean(terms.policy + terms.kl, measured.mask[rows], count=measured.num_tokens)
        part.backward()
        loss += float(part.detach())
        cut_low += int(terms.cut_low.sum())
        cut_high += int(terms.cut_high.sum())
    return loss, cut_low, cut_high


def execute(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch: OptimizerBatch,
    measured: Measured,
    plan: Plan,
    *,
    temperature: float,
    at_once: int,
    grad_clip: float,
) -> Outcome:
    """Execute a plan: gradient of the whole optimizer batch, finite check, clip, one step of the optimizer.

    Raises: NonFiniteError, before any weight changes, naming the first parameter with a bad gradient.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, cut_low, cut_high = accumulate(model, batch, measured, plan, temperature=temperature, at_once=at_once)
    for name, parameter in model.network.named_parameters():
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            raise NonFiniteError(f"The gradient of '{name}' is not finite (loss {loss:g}); the step was not applied.")
    # clip_grad_norm_ multiplies all gradients by `grad_clip_factor`.
    norm = torch.nn.utils.clip_grad_norm_(model.network.parameters(), grad_clip)
    optimizer.step()
    return Outcome(loss, float(norm), cut_low, cut_high)


def grad_clip_factor(norm: float, grad_clip: float) -> float:
    """What the clip of the gradient's norm multiplies all gradients by, as in `torch.nn.utils.clip_grad_norm_`."""
    return min(1.0, grad_clip / (norm + 1e-6))
