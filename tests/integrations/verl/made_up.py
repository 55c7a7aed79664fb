"""Micro-batches as verl hands them to a policy loss, and actors with covent's settings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from verl.workers.config import FSDPActorConfig

from covent.integrations.verl import CoventPolicyLossConfig

ROWS, LENGTH = 6, 40
AGGREGATIONS = ["token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"]


def micro_batch(seed: int) -> dict[str, Tensor]:
    """Ragged responses with holes, one advantage a response, a policy that has moved; float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, LENGTH)
    logprobs = -2 * torch.empty(shape, dtype=torch.float64).exponential_(1.0, generator=generator)
    lengths = torch.randint(2, LENGTH + 1, (ROWS, 1), generator=generator)
    written = torch.arange(LENGTH) < lengths
    holes = torch.rand(shape, generator=generator) < 0.1
    holes[:, 0] = False
    return {
        "log_prob": logprobs,
        "old_log_prob": logprobs + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64),
        "advantages": torch.randn(ROWS, 1, generator=generator, dtype=torch.float64).expand(shape).contiguous(),
        "response_mask": (written & ~holes).long(),
    }


def actor(mode: str, *, aggregation: str = "token-mean", clip: tuple[float, float] = (0.2, 0.2), **loss: Any) -> Any:
    """verl's settings of an actor with covent's in them."""
    return FSDPActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=ROWS,
        clip_ratio_low=clip[0],
        clip_ratio_high=clip[1],
        loss_agg_mode=aggregation,
        policy_loss=CoventPolicyLossConfig(loss_mode=mode, **loss),
    )


def loss_and_gradient(loss: Any, batch: dict[str, Tensor], config: Any, **more: Any) -> tuple[float, Tensor]:
    """The loss of a micro-batch as verl calls it, and its gradient in the log-probs."""
    logprobs = batch["log_prob"].clone().requires_grad_()
    value, _ = loss(**batch | {"log_prob": logprobs}, loss_agg_mode=config.loss_agg_mode, config=config, **more)
    (gradient,) = torch.autograd.grad(value, logprobs)
    return value.item(), gradient
