"""One optimizer step: measure the whole optimizer batch → plan → loss, micro-batch by micro-batch, one division."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from covent import stopping
from covent.core.loss import LossTerms, PolicyLoss, surrogate
from covent.core.penalties import PenaltyInputs, exact_divergence
from covent.core.plan import Measured, Plan
from covent.core.reduce import Aggregation, part_of_mean, token_mean
from covent.errors import NonFiniteError
from covent.rollout.batch import Responses, require_finite, response_logits, score, token_scores
from covent.train.anchors import NO_ANCHORS, Anchors
from covent.train.forward_passes import AtOnce, Rows, as_wide, forward_passes, in_order, part_of
from covent.train.model import LanguageModel, trained


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


class LossChoice(NamedTuple):
    """Which loss executes the plan, and how its terms become one number."""

    policy_loss: PolicyLoss = surrogate
    aggregation: Aggregation = token_mean
    max_tokens: int = 1
    """Of the longest response that the run allows; only `seq-mean-token-sum-norm` divides by it."""


VANILLA = LossChoice()


@dataclass(frozen=True)
class Outcome:
    """What one executed plan did."""

    loss: float
    grad_norm: float
    cut_low: int
    """Tokens whose gradient the clip removed at the low side."""
    cut_high: int
    """At the high side, the dual clip included."""


@torch.no_grad()
def learner_scores(
    network: PreTrainedModel, responses: Responses, *, temperature: float, at_once: AtOnce
) -> tuple[Tensor, Tensor]:
    """Log-probs and entropies [B, T] of all responses, without gradient, `at_once` a forward pass."""
    passes, parts = forward_passes(responses, at_once), []
    for rows in passes:
        stopping.poll()
        found = score(network, part_of(responses, rows), temperature=temperature)
        parts.append([as_wide(column, responses) for column in found])
    logprobs, entropies = (in_order(list(column), passes) for column in zip(*parts, strict=True))
    return logprobs.masked_fill(~responses.mask, 0.0), entropies.masked_fill(~responses.mask, 0.0)


def measure(
    model: LanguageModel,
    batch: OptimizerBatch,
    *,
    temperature: float,
    at_once: AtOnce,
    anchors: Anchors = NO_ANCHORS,
) -> Measured:
    """The whole optimizer batch under the current policy, and under the reference policy if there is one."""
    responses = batch.responses
    logprobs, entropies = learner_scores(model.network, responses, temperature=temperature, at_once=at_once)
    reference = None
    if anchors.reference is not None:
        reference, _ = learner_scores(anchors.reference, responses, temperature=temperature, at_once=at_once)
    return Measured(
        logprobs=logprobs,
        old_logprobs=batch.old_logprobs,
        entropies=entropies,
        advantages=batch.advantages[:, None].expand_as(logprobs),
        mask=responses.mask,
        identity=responses.identity,
        sampler_logprobs=responses.logprobs,
        reference_logprobs=reference,
    )


class MicroBatch(NamedTuple):
    """Some responses of an optimizer batch after their forward pass."""

    rows: Rows
    mask: Tensor
    plan: Plan
    """The plan of these rows."""
    terms_of: Callable[[Plan], LossTerms]
    """The loss of these rows under this plan, or another one without terms that it lacks; gradients flow."""


def micro_batches(
    model: LanguageModel,
    batch: OptimizerBatch,
    measured: Measured,
    plan: Plan,
    *,
    temperature: float,
    at_once: AtOnce,
    choice: LossChoice,
    anchors: Anchors,
) -> Iterator[MicroBatch]:
    """The optimizer batch, `at_once` a forward pass."""
    for rows in forward_passes(batch.responses, at_once):
        stopping.poll()
        mask, part_plan = measured.mask[rows], plan.rows(rows)
        logprobs, inputs = _forward(model, part_of(batch.responses, rows), part_plan, temperature, anchors)
        logprobs = as_wide(logprobs, batch.responses)
        inputs = PenaltyInputs(*(None if each is None else as_wide(each, batch.responses) for each in inputs))
        if measured.reference_logprobs is not None:
            inputs = inputs._replace(reference_logprobs=measured.reference_logprobs[rows])
        columns = logprobs, measured.old_logprobs[rows], measured.advantages[rows], mask

        def terms_of(plan: Plan, columns: tuple[Tensor, ...] = columns, inputs: PenaltyInputs = inputs) -> LossTerms:
            return choice.policy_loss(*columns, plan, inputs)

        yield MicroBatch(rows, mask, part_plan, terms_of)


def accumulate(
    model: LanguageModel,
    batch: OptimizerBatch,
    measured: Measured,
    plan: Plan,
    *,
    temperature: float,
    at_once: AtOnce,
    choice: LossChoice = VANILLA,
    anchors: Anchors = NO_ANCHORS,
) -> tuple[float, int, int]:
    """Add the gradient of the plan's loss to the model, micro-batch by micro-batch.

        loss = aggregation of (policy + kl terms) - sum over all tokens of weight H / N

    The default aggregation is the sum over all tokens / N, with N tokens in the whole optimizer batch.

    Returns: (loss, tokens cut low, tokens cut high).
    """
    loss, cut_low, cut_high = 0.0, 0, 0
    counts = measured.counts(choice.max_tokens)
    for micro in micro_batches(
        model, batch, measured, plan, temperature=temperature, at_once=at_once, choice=choice, anchors=anchors
    ):
        terms = micro.terms_of(micro.plan)
        part = choice.aggregation(terms.aggregated, micro.mask, counts)
        if plan.entropy_weight is not None:
            part = part + part_of_mean(terms.bonus, micro.mask, count=counts.num_tokens)
        value = float(part.detach())
        if not math.isfinite(value):
            raise NonFiniteError(f"The loss of {len(micro.mask)} responses is {value}.", tensor="loss")
        part.backward()
        loss += value
        cut_low += int(terms.cut_low.sum())
        cut_high += int((terms.cut_high | terms.cut_dual).sum())
    return loss, cut_low, cut_high


def _forward(
    model: LanguageModel, responses: Responses, plan: Plan, temperature: float, anchors: Anchors
) -> tuple[Tensor, PenaltyInputs]:
    """Log-probs of a micro-batch, and what the plan's other terms need from the same forward pass."""
    if plan.kl_form != "exact" and not (plan.reference_weight is not None and plan.reference_form == "exact"):
        logprobs, entropies = score(model.network, responses, temperature=temperature)
        return logprobs, PenaltyInputs(entropies)
    # A KL over the vocabulary needs all logits.
    logits = response_logits(model.network, responses)
    require_finite(logits, responses.mask)
    logprobs, entropies = token_scores(logits, responses.response_ids, temperature)
    exact_old = exact_reference = None
    if plan.kl_form == "exact":
        assert anchors.old is not None
        exact_old = exact_divergence(
            _frozen_logprobs(anchors.old, responses, temperature), (logits / temperature).log_softmax(dim=-1)
        )
    if plan.reference_weight is not None and plan.reference_form == "exact":
        assert anchors.reference is not None
        exact_reference = exact_divergence(
            (logits / temperature).log_softmax(dim=-1), _frozen_logprobs(anchors.reference, responses, temperature)
        )
    return logprobs, PenaltyInputs(entropies, None, exact_old, exact_reference)


@torch.no_grad()
def _frozen_logprobs(network: PreTrainedModel, responses: Responses, temperature: float) -> Tensor:
    """Log-probs of the whole vocabulary, [B, T, V]."""
    return (response_logits(network, responses) / temperature).log_softmax(dim=-1)


def execute(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    batch: OptimizerBatch,
    measured: Measured,
    plan: Plan,
    *,
    temperature: float,
    at_once: AtOnce,
    grad_clip: float,
    choice: LossChoice = VANILLA,
    anchors: Anchors = NO_ANCHORS,
) -> Outcome:
    """Execute a plan: gradient of the whole optimizer batch, finite check, clip, one step of the optimizer.

    Raises: NonFiniteError, before any weight changes, naming the first bad tensor: logits, loss, or a gradient.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, cut_low, cut_high = accumulate(
        model,
        batch,
        measured,
        plan,
        temperature=temperature,
        at_once=at_once,
        choice=choice,
        anchors=anchors,
    )
    weights = trained(model.network)
    gradients = [(name, weight.grad) for name, weight in weights.items() if weight.grad is not None]
    norm = torch.nn.utils.get_total_norm([gradient for _, gradient in gradients])
    if not math.isfinite(float(norm)):
        bad = first_bad(gradients)
        name = f"gradient of {bad}" if bad else "norm of the gradient"
        raise NonFiniteError(f"The {name} is NaN or infinite.", tensor=name)
    # As torch.nn.utils.clip_grad_norm_ does: multiplies all gradients by `grad_clip_factor`.
    torch.nn.utils.clip_grads_with_norm_(weights.values(), grad_clip, norm)
    optimizer.step()
    if bad := first_bad(weights.items()):
        # Too late to leave out: a finite gradient and an absurd learning rate.
        raise NonFiniteError(
            f"The optimizer step made the weight '{bad}' NaN or infinite. Lower optimizer.lr; the last checkpoint is"
            " from before it."
        )
    return Outcome(loss, float(norm), cut_low, cut_high)


def first_bad(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Name of the first tensor with a NaN or an infinite number in it; empty when all are finite."""
    named = list(tensors)
    if not named or math.isfinite(float(torch.nn.utils.get_total_norm([tensor for _, tensor in named]))):
        return ""
    # The norm of finite numbers can overflow.
    return next((name for name, tensor in named if not bool(tensor.isfinite().all())), "")


def grad_clip_factor(norm: float, grad_clip: float) -> float:
    """What the clip of the gradient's norm multiplies all gradients by, as in `torch.nn.utils.clip_grad_norm_`."""
    return min(1.0, grad_clip / (norm + 1e-6))
