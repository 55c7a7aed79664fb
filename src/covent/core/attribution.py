"""Attribution: the entropy change of one optimizer step, split by cause. The parts add up.

Lemma 1 is linear in the change of the logits, the logits are to first order linear in the change of the weights, and
the change of the weights is linear in the gradient's parts once the optimizer's preconditioner is held at the value it
had in that step:

    dtheta = sum over causes c of P g_c             g_c: part of the gradient; for Adam also P beta1 m, the momentum
    dH(s)  = sum over causes c of -Cov_{a ~ pi}( log pi(a|s), (J P g_c)(s,a) )                    J = dz / dtheta

A cause is a name and a direction in the weights; this module does not ask where it comes from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from covent.core.dynamics import entropy_change, entropy_of_logits
from covent.core.shapes import Float, Tensor

Weights = Mapping[str, Tensor]
"""One tensor for each parameter, by the parameter's name."""

LogitsOf = Callable[[dict[str, Tensor]], Tensor]
"""From all weights to the logits [S, V] of the states, differentiable."""

MOMENTUM = "momentum"
"""The cause that is left of the gradients of earlier steps."""


def state_entropy_changes(
    logits_of: LogitsOf, weights: Weights, directions: Mapping[str, Weights]
) -> dict[str, Float[Tensor, " S"]]:
    """Lemma 1's entropy change of each state by cause, one Jacobian-vector product a cause.

        dH_c(s) = -Cov_{a ~ pi}( log pi(a|s), (J d_c)(s,a) )

    Args:
      logits_of: see `LogitsOf`. Forward-mode differentiation is used where every operation has it, and two backward
        passes elsewhere; attention runs on its plain kernel here, as the fused ones have neither.
      weights: where the derivative is taken; no gradient flows.
      directions: by cause, the change of the weights. A parameter that a direction leaves out does not move.
    Returns: nats, by cause, in the order of `directions`. Linear: the changes of parts of a direction add up to the
      change of the whole one.
    Source: arXiv 2505.22617, Lemma 1, with the logit change linearised in the weights.

    Example:
      >>> weights = {"z": torch.tensor([[1.0, 0.0]], dtype=torch.float64)}
      >>> causes = {"up": {"z": torch.tensor([[0.1, 0.0]])}, "down": {"z": torch.tensor([[-0.2, 0.0]])}}
      >>> changes = state_entropy_changes(lambda weights: 2 * weights["z"], weights, causes)
      >>> {cause: round(change.item(), 4) for cause, change in changes.items()}
      {'up': -0.042, 'down': 0.084}
    """
    changes = {}
    with sdpa_kernel(SDPBackend.MATH):
        for cause, direction in directions.items():
            tangent = {
                name: direction[name].to(weight) if name in direction else torch.zeros_like(weight)
                for name, weight in weights.items()
            }
            logits, change = _with_derivative(logits_of, weights, tangent)
            changes[cause] = entropy_change(logits.detach(), change.detach())
    return changes


def entropy_gradient(logits_of: LogitsOf, weights: Weights) -> dict[str, Tensor]:
    """Gradient of the mean entropy of the states, by parameter: all causes at once, for one backward pass.

        g_H = d/dtheta mean_s H(s)          <g_H, d_c> = mean over s of dH_c(s), see `state_entropy_changes`

    Args:
      logits_of, weights: as there; reverse mode only, so that any attention kernel will do.
    Returns: nats per unit of each weight.
    """
    leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    entropy = entropy_of_logits(logits_of(leaves)).mean()
    gradients = torch.autograd.grad(entropy, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(leaves, gradients, strict=True))


def mean_entropy_changes(gradient: Weights, directions: Mapping[str, Weights]) -> dict[str, float]:
    """Lemma 1's mean entropy change by cause: the inner products of the entropy's gradient with the directions.

    Args:
      gradient: from `entropy_gradient`, at the weights before the step.
      directions: by cause, the change of the weights; a parameter that is left out does not move.
    Returns: nats, by cause. Summed in float64.
    """
    return {
        cause: sum(float((gradient[name].double() * change.double()).sum()) for name, change in direction.items())
        for cause, direction in directions.items()
    }


def sgd_directions(
    gradients: Mapping[str, Tensor], momentum_buffer: Tensor | None, *, lr: float, momentum: float = 0.0
) -> dict[str, Tensor]:
    """How SGD moves one parameter, by cause.

        -lr g_c for each part of the gradient          -lr momentum b for the buffer b of earlier gradients

    Args:
      gradients: by cause, the parts of this parameter's gradient as the optimizer sees it (after a gradient clip).
      momentum_buffer: b before the step; None where there is none yet.
      lr, momentum: of the optimizer.
    Returns: float64, by cause; the sum is the step.
    """
    parts = {cause: -lr * gradient.double() for cause, gradient in gradients.items()}
    if momentum_buffer is not None and momentum:
        parts[MOMENTUM] = -lr * momentum * momentum_buffer.double()
    return parts


def adam_directions(
    gradients: Mapping[str, Tensor],
    first_moment: Tensor | None,
    second_moment: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    num_steps: int,
) -> dict[str, Tensor]:
    """How Adam moves one parameter, by cause, with its preconditioner held at the value it had in this step.

        P = lr / (1 - beta1^t) / (sqrt(v_t / (1 - beta2^t)) + eps)
        -P (1 - beta1) g_c for each part of the gradient          -P beta1 m_{t-1} for the momentum

    The second moment v_t contains this step's own gradient. Holding it fixed is what makes the causes additive; the
    price is that a part is not what the step would have been with that cause alone, as Adam would have rescaled it.

    Args:
      gradients: by cause, the parts of this parameter's gradient as the optimizer sees it (after a gradient clip).
      first_moment: m_{t-1}, before the step; None before the first.
      second_moment: v_t, after the step.
      lr, betas, eps: of the optimizer.
      num_steps: t, the steps taken, this one included.
    Returns: float64, by cause; the sum is the step.
    Source: Adam, arXiv 1412.6980, Algorithm 1.
    """
    beta1, beta2 = betas
    scale = lr / (1 - beta1**num_steps) / ((second_moment.double() / (1 - beta2**num_steps)).sqrt() + eps)
    parts = {cause: -scale * (1 - beta1) * gradient.double() for cause, gradient in gradients.items()}
    if first_moment is not None and beta1:
        parts[MOMENTUM] = -scale * beta1 * first_moment.double()
    return parts


def _with_derivative(logits_of: LogitsOf, weights: Weights, tangent: Weights) -> tuple[Tensor, Tensor]:
    """The logits, and their derivative along a direction of the weights."""
    try:
        with warnings.catch_warnings():
            # torch's own forward derivatives are written with a compiler that torch itself calls deprecated.
            warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
            return torch.func.jvp(lambda moved: logits_of(moved), (dict(weights),), (dict(tangent),))
    except RuntimeError:
        # An operation without a forward derivative. What fails for another reason fails in the same way below.
        names = list(weights)
        return torch.autograd.functional.jvp(
            lambda *moved: logits_of(dict(zip(names, moved, strict=True))),
            tuple(weights[name] for name in names),
            tuple(tangent[name] for name in names),
        )
