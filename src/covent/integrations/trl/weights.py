"""The weight that TRL's loss gives to each token's term, asked of TRL itself.

TRL divides by other counts for each loss type, and its releases differ in them. So the counts are not written down a
second time: TRL's own loss is called once more on made-up log-probs, without any model, and its gradient there is the
weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from covent.core.shapes import Float, Tensor


class _Alone:
    """An accelerator that exchanges nothing: what TRL reduces here only goes into metrics that are thrown away."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._accelerator, name)

    def gather(self, values: Any) -> Any:
        return values

    def gather_for_metrics(self, values: Any) -> Any:
        return values

    def reduce(self, values: Any, **_: Any) -> Any:
        return values


_PLAIN = {
    "beta": 0.0,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "use_vllm": False,
    "aux_loss_enabled": False,
    "use_adaptive_entropy": False,
    "_entropy_bonus_enabled": False,
    "epsilon_low": float("inf"),
    "epsilon_high": float("inf"),
}
"""The settings of TRL's loss under which it is the weighted sum of ratio times advantage, and nothing else."""


def token_weights(
    trainer: Any, loss: Callable[[Any, dict[str, Any]], Tensor], inputs: dict[str, Any], like: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """What each token's term is multiplied by before TRL adds them up.

        L = -sum over tokens of w ratio A,      so that at ratio 1 and A = -1      w = dL / d log pi

    Every ratio of TRL, that of a token or of a response, clipped or soft, has slope 1 there.

    Args:
      trainer: of TRL; a twin of it is used, so that nothing about it changes.
      loss: calls TRL's `_compute_loss` on a trainer and a micro-batch.
      inputs: the micro-batch.
      like: its log-probs; only their shape, dtype and device matter.
    Returns: 0 at tokens that do not count.
    """
    made_up = torch.zeros_like(like, requires_grad=True)
    fixed = made_up.detach()
    twin = object.__new__(type(trainer))
    vars(twin).update(vars(trainer))
    for name, value in _PLAIN.items():
        if name in vars(trainer):
            setattr(twin, name, value)
    twin.accelerator = _Alone(trainer.accelerator)
    twin._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    twin._get_per_token_logps_and_entropies = lambda *_, **__: (made_up, fixed, fixed.sum())
    known = {"old_per_token_logps": fixed, "old_logps": fixed.sum(dim=1)}
    inputs = {name: value for name, value in inputs.items() if name != "importance_sampling_ratio"}
    inputs |= {name: value for name, value in known.items() if name in inputs}
    inputs["advantages"] = torch.full_like(inputs["advantages"], -1.0)
    (weights,) = torch.autograd.grad(loss(twin, inputs), made_up)
    return weights
