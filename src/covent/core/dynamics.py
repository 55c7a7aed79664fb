"""First-order entropy change: predicted from the covariance, and accounted for by the change of the logits."""

from __future__ import annotations

from covent.core.covariance import batch_center, token_covariance
from covent.core.reduce import masked_mean
from covent.core.shapes import Bool, Float, Tensor


def entropy_change_from_logits(
    logits_before: Float[Tensor, "S V"], logits_after: Float[Tensor, "S V"]
) -> Float[Tensor, " S"]:
    """Lemma 1: the first-order entropy change of each state, from its logits before and after a step.

        dH(s) = -Cov_{a ~ pi}( log pi(a|s), z_after(s,a) - z_before(s,a) )          pi = softmax(z_before)

    Args:
      logits_before, logits_after: raw logits of the same states, finite.
    Returns: nats; the error against the true change is of second order in the logit change.
    Source: arXiv 2505.22617, Lemma 1.

    Example:
      >>> import torch
      >>> before = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> step = 1e-3 * torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> round(entropy_change_from_logits(before, before + step).item() * 1e6)
      -197
    """
    logp = logits_before.log_softmax(dim=-1)
    p = logp.exp()
    change = logits_after - logits_before
    mean_logp = (p * logp).sum(dim=-1, keepdim=True)
    mean_change = (p * change).sum(dim=-1, keepdim=True)
    return -(p * (logp - mean_logp) * (change - mean_change)).sum(dim=-1)


def entropy_of_logits(logits: Float[Tensor, "S V"]) -> Float[Tensor, " S"]:
    """Exact entropy of softmax(logits) of each state, nats; logits must be finite."""
    logp = logits.log_softmax(dim=-1)
    return -(logp.exp() * logp).sum(dim=-1)


def predicted_entropy_changes(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    *,
    step_size: float,
    coverage: float = 1.0,
) -> tuple[float, float]:
    """Theorems 1 and 2, with the tokens of a batch as the sample of states and actions.

        Theorem 1 (vanilla policy gradient):   dH = -eta coverage Cov(log pi, pi A)
        Theorem 2 (natural policy gradient):   dH = -eta coverage Cov(log pi, A)

    Args:
      logprobs: of the current policy, nats.
      advantages: one value a token.
      mask: True where the token counts.
      step_size: eta, the learning rate.
      coverage: share of the rollout's states that the batch stands for. In a group of equal rewards every advantage
        is 0, so the theorems predict no change there; such states count in the mean although they carry no gradient.
    Returns: (Theorem 1, Theorem 2), nats. Both hold for a tabular softmax policy with exact gradients. A network
      trained by Adam is neither, so only sign and shape can be expected to agree, not size.
    Source: arXiv 2505.22617, Theorems 1 and 2. Differs: one covariance over all tokens of the batch stands for the
      mean over states of the covariance over actions.
    """
    changes = []
    for slot in (logprobs.exp() * advantages, advantages):
        center = batch_center(logprobs, slot, mask)
        covariance = masked_mean(token_covariance(logprobs, slot, mask, center=center), mask)
        changes.append(-step_size * coverage * float(covariance))
    return changes[0], changes[1]
