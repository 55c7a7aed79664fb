"""Every way to log-prob and entropy from hidden states that the benchmark compares: ours, torch's and the peers'.

Each is a function (hidden, weight, tokens) → (log-prob, entropy); entropy is None where a peer has none. A peer that is
not installed is left out, and the result says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from covent.core.lm_head import logprob_and_entropy_from_hidden

Pair = tuple[Tensor, Tensor | None]
BUDGET = 512 << 20
EVERY = 10**12


@dataclass(frozen=True)
class Variant:
    """One way, and what it needs."""

    function: Callable[[Tensor, Tensor, Tensor], Pair]
    package: str = "torch"
    compiled: bool = False
    """Whether the epilogue in C may be used."""
    turns: int = 3
    """How often it is timed at most; ours are timed every turn."""
    largest: int = EVERY
    """Logits beyond which it is left out, for minutes a call."""
    only: tuple[torch.dtype, ...] = field(default=(torch.float32, torch.bfloat16))

    @property
    def is_there(self) -> bool:
        return find_spec(self.package) is not None

    def step(self, hidden: Tensor, weight: Tensor, tokens: Tensor, upstream: Tensor) -> Pair:
        """Forward and backward of sum(w1 logp + w2 H); gradients are left in `hidden` and `weight`."""
        os.environ["COVENT_COMPILE"] = "1" if self.compiled else "0"
        hidden.grad = weight.grad = None
        logprob, entropy = self.function(hidden, weight, tokens)
        loss = (upstream[0] * logprob.float()).sum()
        if entropy is not None:
            loss = loss + (upstream[1] * entropy.float()).sum()
        loss.backward()
        return logprob.detach(), None if entropy is None else entropy.detach()


def ours(**settings: Any) -> Callable[[Tensor, Tensor, Tensor], Pair]:
    """`covent.core.lm_head`; unless `exact`, logits of bfloat16 inputs are rounded to bfloat16, as all peers do."""
    exact = settings.pop("exact", False)

    def function(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
        rounded = torch.bfloat16 if hidden.dtype == torch.bfloat16 and not exact else None
        return logprob_and_entropy_from_hidden(hidden, weight, tokens, logits_dtype=rounded, **settings)

    return function


def naive(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """All logits at once, reduced in float32."""
    logp = (hidden @ weight.T).float().log_softmax(dim=-1)
    return logp.gather(1, tokens[:, None]).squeeze(1), -(logp.exp() * logp).sum(dim=1)


def trl(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """TRL's GRPO path: its chunked autograd function, with the entropy's gradient."""
    from trl.kernels import ChunkedLogProbFunction
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    outputs = ChunkedLogProbFunction.apply(
        hidden, weight, None, tokens, 1.0, _CHUNKED_LOGPROB_CHUNK_SIZE, None, 1.0, ("entropy",)
    )
    return outputs[0], outputs[1]


def verl_eager(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """verl without fused kernels: all logits, row by row."""
    from verl.utils.torch_functional import entropy_from_logits, logprobs_from_logits_v2

    logits = hidden @ weight.T
    return logprobs_from_logits_v2(logits, tokens), entropy_from_logits(logits)


def verl_fused(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """verl's FusedLinearForPPO, its torch backend."""
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    return FusedLinearForPPO(impl_backend="torch")(hidden, weight, tokens)


def liger(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """Liger's scaled cross-entropy; on a CPU its torch fallback."""
    from liger_kernel.ops import LigerFusedLinearScaledCrossEntropyFunction

    loss, entropy = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, weight, tokens, 1.0, -100, 1, True)
    return -loss, entropy


def torch_linear_cross_entropy(hidden: Tensor, weight: Tensor, tokens: Tensor) -> Pair:
    """torch's own, without logits: log-prob only."""
    options = torch.nn.LinearCrossEntropyOptions()
    return -torch.nn.functional.linear_cross_entropy(hidden, weight, tokens, reduction="none", options=options), None


VARIANTS: dict[str, Variant] = {
    "covent, low memory": Variant(ours(), turns=EVERY),
    "covent, low memory, C": Variant(ours(), compiled=True, turns=EVERY),
    "covent, 512 MiB budget": Variant(ours(workspace_bytes=BUDGET), turns=EVERY),
    "covent, 512 MiB budget, C": Variant(ours(workspace_bytes=BUDGET), compiled=True, turns=EVERY),
    "covent, float32 logits, C": Variant(ours(exact=True), compiled=True, only=(torch.bfloat16,)),
    "naive": Variant(naive),
    "TRL chunked": Variant(trl, "trl"),
    "verl eager": Variant(verl_eager, "verl"),
    "verl FusedLinearForPPO": Variant(verl_fused, "verl"),
    "Liger scaled CE": Variant(liger, "liger_kernel"),
    "torch linear_cross_entropy": Variant(torch_linear_cross_entropy, turns=1, largest=1 << 26),
}
