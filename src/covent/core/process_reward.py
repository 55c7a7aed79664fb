"""PRIME: a reward for every token from two language models, combined with the reward of the outcome."""

from __future__ import annotations

from covent.core.advantages import leave_one_out, returns_to_go
from covent.core.reduce import response_means
from covent.core.shapes import Bool, Float, Tensor
from covent.errors import ShapeError


def implicit_process_rewards(
    prm_logprobs: Float[Tensor, "B T"],
    reference_logprobs: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    beta: float,
) -> Float[Tensor, "B T"]:
    """The process reward that a model trained on outcomes implies at each token.

        r[t] = beta (log pi_prm(y_t) - log pi_ref(y_t))

    Args:
      prm_logprobs: of the response's tokens under the reward model, nats; gradients flow, for its own loss.
      reference_logprobs: under the reference model, nats; no gradient.
      mask: True where the token counts.
      beta: reward units a nat; PRIME trains with 0.05.
    Returns: reward units; exactly 0 where the mask is False. Their sum is the model's outcome reward.
    Source: PRIME, arXiv 2502.01456, Eq. 3.
    """
    return beta * (prm_logprobs - reference_logprobs.detach()).masked_fill(~mask, 0.0)


def prime_advantages(
    process_rewards: Float[Tensor, "B T"],
    outcome_rewards: Float[Tensor, "G K"],
    mask: Bool[Tensor, "B T"],
    *,
    discount: float = 1.0,
) -> Float[Tensor, "B T"]:
    """Process and outcome returns, each against a leave-one-out baseline of the group.

        A_i[t] = sum over s >= t of discount^(s-t) ( r_i[s] - mean over j != i of r̄_j )
                 + o_i - mean over j != i of o_j,          r̄_j = mean over the tokens of response j

    Args:
      process_rewards: from `implicit_process_rewards`; the K responses to a prompt in consecutive rows; no gradient.
      outcome_rewards: verdicts, one row a prompt.
      mask: True where the token counts.
      discount: of the process rewards, in [0, 1].
    Returns: reward units; exactly 0 where the mask is False. Not whitened: follow with
      `covent.core.advantages.whitened` for the released code's scale.
    Raises: ShapeError for K = 1 or when B is not G x K; EmptyMaskError for a response without token; ConfigError for a
      discount outside [0, 1].
    Source: PRIME, arXiv 2502.01456, Eq. 5. Differs: its released code multiplies each process reward by K/(K-1) and
      subtracts the mean of the whole group times K/(K-1), which agrees with the equation only on average over the
      response's tokens, and whitens the sum.

    Example:
      >>> import torch
      >>> both, mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.ones(2, 2, dtype=torch.bool)
      >>> prime_advantages(both, torch.tensor([[1.0, 0.0]]), mask)
      tensor([[ 2.0000,  1.0000],
              [-2.0000, -1.5000]])
    """
    if len(mask) != outcome_rewards.numel():
        shape = "x".join(map(str, outcome_rewards.shape))
        raise ShapeError(f"{len(mask)} responses do not make {shape} groups.")
    process_rewards = process_rewards.detach()
    own = response_means(process_rewards, mask)
    # leave_one_out is own minus the others' mean, so the difference of the two is the others' mean.
    others = own - leave_one_out(own.view(outcome_rewards.shape)).flatten()
    process = returns_to_go(process_rewards - others[:, None], mask, discount=discount)
    outcome = leave_one_out(outcome_rewards).flatten()
    return (process + outcome[:, None]).masked_fill(~mask, 0.0)
