"""First-order entropy change: of any logit change, of both policy gradients, and of one sampled token.

Everything here is one covariance under the policy, Lemma 1, with another change of the logits in its second slot:

    z_after - z_before    what a step did           `entropy_change_from_logits`
    eta pi A              vanilla policy gradient   `vanilla_entropy_change`, Theorem 1
    eta A                 natural policy gradient   `natural_entropy_change`, Theorem 2
    A (1_y - pi)          one sampled token y       `polarity`, whose mean over y ~ pi is Theorem 1 at eta = 1
    A 1_y / pi(y)         the same, natural         `natural_polarity`, whose mean over y ~ pi is Theorem 2 at eta = 1
"""

from __future__ import annotations

import torch

from covent.core.covariance import batch_center, token_covariance
from covent.core.reduce import masked_mean
from covent.core.shapes import Bool, Float, Int64, Tensor
from covent.readings import PolarityReading


def entropy_change(logits: Float[Tensor, "S V"], logit_change: Float[Tensor, "S V"]) -> Float[Tensor, " S"]:
    """Lemma 1: the first-order entropy change of each state whose logits change.

        dH(s) = -Cov_{a ~ pi}( log pi(a|s), dz(s,a) )          pi = softmax(logits)

    It is linear in dz: the parts of a logit change have entropy changes that add up.

    Args:
      logits: raw logits at which the change is made; an entry of -inf has probability 0 and is inert.
      logit_change: dz, of the same states. A constant added to a state's dz changes nothing.
    Returns: nats; the error against the true change is of second order in dz.
    Source: arXiv 2505.22617, Lemma 1.

    Example:
      >>> logits = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> more = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> [round(entropy_change(logits, size * more).item(), 4) for size in (0.1, 0.2)]
      [-0.0197, -0.0393]
    """
    logp = logits.log_softmax(dim=-1)
    p = logp.exp()
    impossible = logits == -torch.inf
    logp, change = logp.masked_fill(impossible, 0.0), logit_change.masked_fill(impossible, 0.0)
    mean_logp = (p * logp).sum(dim=-1, keepdim=True)
    mean_change = (p * change).sum(dim=-1, keepdim=True)
    return -(p * (logp - mean_logp) * (change - mean_change)).sum(dim=-1)


def entropy_change_from_logits(
    logits_before: Float[Tensor, "S V"], logits_after: Float[Tensor, "S V"]
) -> Float[Tensor, " S"]:
    """Lemma 1 for a step that was taken: each state's first-order entropy change, from its logits before and after.

        dH(s) = -Cov_{a ~ pi}( log pi(a|s), z_after(s,a) - z_before(s,a) )          pi = softmax(z_before)

    Args:
      logits_before, logits_after: raw logits of the same states.
    Returns: nats; the error against the true change is of second order in the logit change.
    Source: arXiv 2505.22617, Lemma 1.

    Example:
      >>> before = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> step = 1e-3 * torch.tensor([[1.0, 0.0]], dtype=torch.float64)
      >>> round(entropy_change_from_logits(before, before + step).item() * 1e6)
      -197
    """
    return entropy_change(logits_before, logits_after - logits_before)


def vanilla_entropy_change(
    logits: Float[Tensor, "S V"], advantages: Float[Tensor, "S V"], *, step_size: float
) -> Float[Tensor, " S"]:
    """Theorem 1: the entropy change of a vanilla policy-gradient step on a tabular softmax policy, state by state.

        dH(s) = -eta Cov_{a ~ pi}( log pi(a|s), pi(a|s) A(s,a) )

    Args:
      logits: raw logits, one a state and action.
      advantages: A(s,a) of every action; centred under the policy in each state, as the theorem needs it.
      step_size: eta.
    Returns: nats, first order in eta.
    Source: arXiv 2505.22617, Theorem 1 with Proposition 1.
    """
    return entropy_change(logits, step_size * logits.softmax(dim=-1) * advantages)


def natural_entropy_change(
    logits: Float[Tensor, "S V"], advantages: Float[Tensor, "S V"], *, step_size: float
) -> Float[Tensor, " S"]:
    """Theorem 2: the entropy change of a natural policy-gradient step on a tabular softmax policy, state by state.

        dH(s) = -eta Cov_{a ~ pi}( log pi(a|s), A(s,a) )

    Args: as for `vanilla_entropy_change`; the advantages need no centre here.
    Returns: nats, first order in eta.
    Source: arXiv 2505.22617, Theorem 2.
    """
    return entropy_change(logits, step_size * advantages)


def polarity(
    logits: Float[Tensor, "S V"], tokens: Int64[Tensor, " S"], advantages: Float[Tensor, " S"]
) -> Float[Tensor, " S"]:
    """Signed effect of each sampled token on the entropy of its own state: > 0 expands it, < 0 contracts it.

        P = A T,   T = -Cov(log pi, 1_y - pi) = -pi(y) (log pi(y) + H) + sum_v pi(v)^2 (log pi(v) + H)

    eta P is the first-order entropy change of the logit step eta A (1_y - pi), the policy gradient of this one token.
    Averaged over y ~ pi it is the paper's covariance: E[P] = -Cov(log pi, pi (A - E[A])), Theorem 1 at eta = 1.

    Args:
      logits: raw logits of the states, T = 1, reduced in float32 at least; no gradient flows. -inf is inert.
      tokens: the sampled token y of each state.
      advantages: A of that token.
    Returns: nats per unit of eta. Evaluated in a form that does not cancel near zero entropy.
    Source: entropy polarity, arXiv 2605.11775, as restated by readers of it. Differs: the paper's own notation was not
      at hand; the formula is Lemma 1 of arXiv 2505.22617 for the token's logit step.

    Example:
      >>> likely, rare = torch.tensor([0]), torch.tensor([1])
      >>> logits, advantage = torch.tensor([[2.0, 0.0]]), torch.ones(1)
      >>> [round(polarity(logits, token, advantage).item(), 4) for token in (likely, rare)]
      [-0.0501, 0.3699]
    """
    logp, entropy = _log_policy(logits)
    surprise = logp + entropy.unsqueeze(-1)
    p, own = logp.exp(), tokens.unsqueeze(-1)
    # The token's own terms are joined, -p + p^2 = p (p - 1): apart they cancel where the policy is nearly certain.
    others = (p**2 * surprise.masked_fill(p == 0, 0.0)).scatter(-1, own, 0.0).sum(dim=-1)
    token_logp = logp.gather(-1, own).squeeze(-1)
    token = token_logp.exp() * torch.expm1(token_logp) * surprise.gather(-1, own).squeeze(-1)
    return advantages * (token + others)


def natural_polarity(
    logits: Float[Tensor, "S V"], tokens: Int64[Tensor, " S"], advantages: Float[Tensor, " S"]
) -> Float[Tensor, " S"]:
    """The same effect under the natural gradient: minus the token's share of the covariance, centred in its state.

        P = -A (log pi(y) + H)          E over y ~ pi: -Cov(log pi, A), Theorem 2 at eta = 1

    Args, Returns: as for `polarity`.
    Source: arXiv 2505.22617, Theorem 2 and Eq. 10. Differs from Eq. 10: each state has its own centre, the exact
      -H = E[log pi], where Eq. 10 takes the mean log pi over all tokens of the batch.
    """
    logp, entropy = _log_policy(logits)
    return -advantages * (logp.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) + entropy)


def polarity_sums(
    logprobs: Float[Tensor, "B T"],
    entropies: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, " sums"]:
    """How many tokens raise and lower the entropy of their own states, and by how much, from what a batch measures.

        p = -A (log pi + H)         num p > 0, num p < 0, sum of p > 0, sum of p < 0          see `natural_polarity`

    Args:
      logprobs, entropies: of the current policy at one temperature, nats; no gradient flows.
      advantages: one value a token.
      mask: True where the token counts.
    Returns: the four sums in float64, which add up over ranks: `polarity_reading` makes a reading of them.

    Example:
      >>> logp, entropy, advantage = torch.tensor([[-2.0, -0.5]]), torch.ones(1, 2), torch.ones(1, 2)
      >>> polarity_sums(logp, entropy, advantage, torch.ones(1, 2, dtype=torch.bool)).tolist()
      [1.0, 1.0, 1.0, -0.5]
    """
    found = (-advantages * (logprobs + entropies)).detach().double()[mask]
    up, down = found.clamp(min=0), found.clamp(max=0)
    return torch.stack([(found > 0).sum().double(), (found < 0).sum().double(), up.sum(), down.sum()])


def polarity_reading(sums: Float[Tensor, " sums"], num_tokens: int) -> PolarityReading:
    """The polarity of a whole optimizer batch.

    Args:
      sums: of `polarity_sums`, over all ranks.
      num_tokens: of the whole batch.
    """
    num_raising, num_lowering, raising, lowering = sums.tolist()
    return PolarityReading(
        num_tokens=num_tokens,
        num_raising=round(num_raising),
        num_lowering=round(num_lowering),
        raising=raising,
        lowering=lowering,
    )


def _log_policy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax [S, V] and entropy [S]; both keep their relative precision where one action is nearly certain."""
    z = (logits if logits.dtype in (torch.float32, torch.float64) else logits.float()).detach()
    top = z.argmax(dim=-1, keepdim=True)
    d = z - z.gather(-1, top)
    # Sums without the maximum's own term, which is 1 and would round the others away.
    rest = d.exp().scatter(-1, top, 0.0)
    total = rest.sum(dim=-1, keepdim=True)
    log_total = torch.log1p(total)
    weighted = (rest * d.masked_fill(d == -torch.inf, 0.0)).sum(dim=-1, keepdim=True)
    return d - log_total, (log_total - weighted / (1.0 + total)).squeeze(-1)


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
