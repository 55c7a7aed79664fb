"""The policy losses that covent registers in verl: a plan executed on one micro-batch, divided as verl divides.

verl hands its loss one micro-batch on one rank and no more. Inside covent's trainer the plan was made for the whole
mini-batch before, and the loss takes its rows of it; in verl's own trainers the loss plans its micro-batch by itself,
which is the scope `micro` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from verl.trainer.ppo.core_algos import agg_loss

from covent import controls
from covent.core.keys import TokenIdentity, key
from covent.core.loss import LossTerms, surrogate
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Measured, Plan
from covent.core.reduce import masked_sum
from covent.core.shapes import Tensor
from covent.errors import ConfigError
from covent.integrations.readings import PREFIX
from covent.integrations.verl.settings import clip_of, covent_config


class Cuts(NamedTuple):
    """Tokens without gradient because of the clip in force, [B, T] bool."""

    low: Tensor
    high: Tensor


class MicroBatch(Protocol):
    """A micro-batch of covent's trainer on its way through verl's loss."""

    inputs: PenaltyInputs
    """What the plan's terms beside the policy's need."""

    def plan_for(self, logprobs: Tensor) -> Plan | None:
        """Its rows of the plan; None where no token of the optimizer batch counts."""

    def executed(self, cuts: Cuts) -> None:
        """Its loss is known."""


_on_its_way: MicroBatch | None = None


@contextmanager
def on_its_way(micro: MicroBatch) -> Iterator[None]:
    """Say whose loss verl computes meanwhile."""
    global _on_its_way
    _on_its_way = micro
    try:
        yield
    finally:
        _on_its_way = None


def policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one micro-batch under a plan, in the form in which verl calls its losses.

        L = sum of w (policy + KL terms of the plan) / count - mean over tokens of the bonus,  as verl counts

    Args:
      old_log_prob, log_prob, advantages, response_mask: [B, T]; gradients flow through log_prob.
      loss_agg_mode: verl's.
      config: of verl's actor.
      rollout_is_weights: verl's own correction for the sampling engine; multiplies every term as in verl's losses.
    Returns: the scalar, and what verl's log gets of every micro-batch.
    Raises: ConfigError where the scope asks for more than the micro-batch and covent's trainer is not there.
    """
    mask = response_mask.bool()
    if _on_its_way is None:
        plan: Plan | None = _plan_alone(old_log_prob, log_prob, advantages, mask, config)
        inputs = PenaltyInputs(None, None)
    else:
        plan, inputs = _on_its_way.plan_for(log_prob.detach()), _on_its_way.inputs
    if plan is None:
        return (log_prob * mask).sum() * 0.0, {}
    terms = surrogate(log_prob, old_log_prob.to(log_prob), advantages.to(log_prob), mask, plan, inputs)
    if _on_its_way is not None:
        _on_its_way.executed(Cuts(terms.cut_low, terms.cut_high))
    weighted = terms.aggregated if rollout_is_weights is None else terms.aggregated * rollout_is_weights
    loss = agg_loss(loss_mat=weighted, loss_mask=mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info)
    if plan.entropy_weight is not None:
        loss = loss + agg_loss(
            loss_mat=terms.bonus, loss_mask=mask, loss_agg_mode="token-mean", **config.global_batch_info
        )
    return loss, _metrics(terms, plan, log_prob.detach() - old_log_prob, mask)


def _metrics(terms: LossTerms, plan: Plan, log_ratio: Tensor, mask: Tensor) -> dict[str, float]:
    """verl averages these over micro-batches; exact numbers come from covent's trainer."""
    tokens = mask.sum().clamp(min=1)
    cut = (terms.cut_low | terms.cut_high | terms.cut_dual).sum()
    return {
        "actor/pg_clipfrac": float(cut / tokens),
        "actor/ppo_kl": float(masked_sum(-log_ratio, mask) / tokens),
        f"actor/{PREFIX}num_selected_per_micro_batch": float((plan.chosen & mask).sum()),
    }


@dataclass
class _Calls:
    """How often a loss has planned alone in this process: the key of its draws, as verl says nothing of the step."""

    number: Iterator[int]


_calls = _Calls(count())


def _plan_alone(old_log_prob: Tensor, log_prob: Tensor, advantages: Tensor, mask: Tensor, config: Any) -> Plan | None:
    """The plan of one micro-batch, by what verl's own trainers tell a loss."""
    settings = covent_config(config)
    if settings.scope != "micro":
        raise ConfigError(
            f"policy_loss.scope = '{settings.scope}' chooses among more tokens than one micro-batch, and verl's own"
            " trainers show a loss no others. Set trainer.v1.trainer_mode=covent, or policy_loss.scope=micro."
        )
    blind = {each.type for each in settings.controls} & {
        "top_entropy", "entropy_bonus", "reference_kl", "truncated_importance",
    }  # fmt: skip
    if blind:
        raise ConfigError(
            f"{' and '.join(sorted(blind))} need more than verl's own trainers hand to a policy loss. Set"
            " trainer.v1.trainer_mode=covent."
        )
    if not bool(mask.any()):
        return None
    rank = dist.get_rank() if dist.is_initialized() else 0
    row = torch.arange(len(mask), device=mask.device)[:, None].expand(mask.shape)
    position = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    logprobs = log_prob.detach()
    batch = Measured(
        logprobs=logprobs,
        old_logprobs=old_log_prob.to(logprobs),
        entropies=torch.zeros_like(logprobs),
        advantages=advantages.to(logprobs),
        mask=mask,
        identity=TokenIdentity(row, torch.zeros_like(row), position),
    )
    chance = key(settings.seed, "plan", rank, next(_calls.number))
    return controls.plan(batch, settings.controls, chance, clip=clip_of(config))
