"""What is kept of the vocabulary seen so far: four numbers a token, six with the extra readings.

    m = max z     s = sum exp(d)     u = sum exp(d) d     z_y     q = sum exp(2d)     r = sum exp(2d) d

with d = (z - m) / T, and the maximum's own term left out of every sum: it is 1, and would round the others away where
one entry is nearly certain. Two parts of the vocabulary, tiles or ranks, merge exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from covent.core.shapes import Float, Tensor

TOP, REST, WEIGHTED, TOKEN, SQUARED, SQUARED_WEIGHTED = range(6)
NUM_SUMS, NUM_SUMS_WITH_EXTRAS = 4, 6


class TokenStatistics(NamedTuple):
    """Of the whole vocabulary, per token: what the backward pass needs, in float32 at least. All [N]."""

    logprob: Tensor
    top: Tensor
    """m; NaN where a logit is NaN or +inf, or none is finite."""
    log_total: Tensor
    """log(1 + s)."""
    mean: Tensor
    """E[d] = u / (1 + s)."""

    @property
    def entropy(self) -> Tensor:
        """H = log(1 + s) - u / (1 + s): both terms are >= 0, so nothing cancels."""
        return self.log_total - self.mean + (self.top - self.top)


def of_nothing(num_sums: int, num_tokens: int, like: Tensor) -> Tensor:
    """The sums of an empty part of the vocabulary, [num_sums, N]."""
    sums = like.new_zeros(num_sums, num_tokens)
    sums[[TOP, TOKEN]] = -torch.inf
    return sums


def merged(
    left: Float[Tensor, "sums N"], right: Float[Tensor, "sums N"], temperature: Float[Tensor, " N"] | float
) -> Float[Tensor, "sums N"]:
    """The sums of two parts of the vocabulary together.

    With maxima m1 >= m2, x = (m2 - m1) / T and c = exp(x), the lower part's terms are scaled and shifted:
        s = s1 + c (1 + s2)                       q = q1 + c^2 (1 + q2)
        u = u1 + c (u2 + x (1 + s2))              r = r1 + c^2 (r2 + x (1 + q2))
    """
    left_is_top = left[TOP] >= right[TOP]
    high, low = torch.where(left_is_top, left, right), torch.where(left_is_top, right, left)
    empty = low[TOP] == -torch.inf
    x = torch.where(empty, 0.0, (low[TOP] - high[TOP]) / temperature)
    scale = torch.where(empty, 0.0, x.exp())
    parts = [high[TOP], *_added(high, low, x, scale, REST), torch.maximum(left[TOKEN], right[TOKEN])]
    if len(left) == NUM_SUMS_WITH_EXTRAS:
        parts += _added(high, low, x, scale * scale, SQUARED)
    return torch.stack(parts)


def _added(high: Tensor, low: Tensor, x: Tensor, scale: Tensor, row: int) -> list[Tensor]:
    # The lower maximum's own term, left out of its sums until now, is an ordinary one from here on.
    total = 1 + low[row]
    return [high[row] + scale * total, high[row + 1] + scale * (low[row + 1] + x * total)]


def statistics(sums: Float[Tensor, "sums N"], temperature: Tensor | float) -> TokenStatistics:
    """Log-prob, maximum, log-sum and mean of d from the sums over the whole vocabulary."""
    # A maximum of NaN, of +inf, or of no finite logit at all must be seen and not taken for certainty.
    top = torch.where(sums[TOP].isfinite(), sums[TOP], torch.nan)
    log_total = torch.log1p(sums[REST])
    logprob = (sums[TOKEN] - top) / temperature - log_total
    return TokenStatistics(logprob, top, log_total, sums[WEIGHTED] / (1 + sums[REST]))


def extras(sums: Float[Tensor, "sums N"], given: TokenStatistics) -> tuple[Tensor, Tensor, Tensor]:
    """(is top, sum of p^2, polarity term): `HeadReadings` has their definitions.

    polarity = - p_y (d_y - E[d]) + sum p^2 (d - E[d])          log p + H = d - E[d]
    """
    is_top = sums[TOKEN] == sums[TOP]
    norm = (1 + sums[REST]) ** -2
    p = given.logprob.exp()
    others = norm * (sums[SQUARED_WEIGHTED] - sums[SQUARED] * given.mean)
    # The token's own terms are joined where it is the maximum, -p + p^2 = p (p - 1): apart they would cancel.
    certain = -p * torch.expm1(given.logprob) * given.mean
    surprise = torch.where(p > 0, given.logprob + given.entropy, 0.0)
    same_draw = norm * (1 + sums[SQUARED]) + (given.top - given.top)
    return is_top, same_draw, others + torch.where(is_top, certain, -p * surprise - norm * given.mean)
