"""Token log-probability and exact entropy from logits, stable down to entropies near zero."""

from __future__ import annotations

import torch

from covent.core.shapes import Float, Int64, Tensor
from covent.errors import ConfigError


def logprob_and_entropy(
    logits: Float[Tensor, "*states V"],
    tokens: Int64[Tensor, "*states"],
    *,
    temperature: float | Float[Tensor, "*states"] = 1.0,
) -> tuple[Float[Tensor, "*states"], Float[Tensor, "*states"]]:
    """Log-probability of the given tokens and exact entropy of softmax(logits / temperature).

        d_v = z_v - z_max,   s = sum over v other than the maximum of exp(d_v),   u = the same sum of exp(d_v) d_v
        log pi(y) = d_y - log(1 + s)          H = log(1 + s) - u / (1 + s)

    Leaving the maximum's own term out of both sums keeps the relative error small when H is near zero, where
    log-sum-exp minus mean logit cancels. Entries of -inf have probability 0 and are inert, in the gradient too. NaN
    stays NaN, and so does a state without any finite logit.

    Args:
      logits: raw scores; reduced in float32 at least. Gradients of both outputs flow to them.
      tokens: index of one entry per state.
      temperature: divides the logits; > 0, one for all or one per state; no gradient.
    Returns: (log-prob, entropy), nats; entropy lies in [0, log V].
    Raises: ConfigError for a temperature that is not positive.
    Source: the definition H = -sum p log p; arXiv 2505.22617, Eq. 5 has T = 1.

    Example:
      >>> logp, entropy = logprob_and_entropy(torch.zeros(1, 4), torch.tensor([2]))
      >>> round(logp.item(), 4), round(entropy.item(), 4)
      (-1.3863, 1.3863)
    """
    z = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
    top = z.argmax(dim=-1, keepdim=True)
    # Not detached: the maximum's own gradient travels through d, since its term is the constant 1.
    d = z - z.gather(-1, top)
    divisor = checked_temperature(temperature)
    # After the shift: dividing logits with a large common offset would round away their differences.
    if isinstance(divisor, Tensor):
        d = d / divisor.to(d.dtype).unsqueeze(-1)
    elif divisor != 1.0:
        d = d / divisor
    # NaN counts as live, so that a broken logit is seen and not taken for certainty.
    live = d != -torch.inf
    d = torch.where(live, d, torch.zeros_like(d))
    is_top = torch.zeros_like(live).scatter(-1, top, True)
    e = torch.where(live & ~is_top, d.exp(), torch.zeros_like(d))
    s = e.sum(dim=-1)
    log_total = torch.log1p(s)
    entropy = log_total - (e * d).sum(dim=-1) / (1.0 + s)
    token_d = d.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    token_live = live.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    logprob = torch.where(token_live, token_d - log_total, torch.full_like(token_d, -torch.inf))
    return logprob, entropy


def checked_temperature(temperature: float | Tensor) -> float | Tensor:
    """The temperature itself, without gradient, once it is known to be positive. NaN passes, so that it is seen.

    Raises: ConfigError for a temperature that is not positive.
    """
    if isinstance(temperature, Tensor):
        temperature = temperature.detach()
        if bool((temperature <= 0).any()):
            lowest = float(temperature[temperature <= 0].min())
            raise ConfigError(f"A temperature per state holds {lowest:g}; each must be above 0, behind a mask too.")
    elif temperature <= 0:
        raise ConfigError(f"The temperature is {temperature:g}; it must be above 0.")
    return temperature
