"""Gradients: those that come in, per token, and the sums over tiles that go out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from covent.core.lm_head.epilogue import Slope
from covent.core.lm_head.sums import TokenStatistics
from covent.core.lm_head.work import Work
from covent.core.shapes import Tensor


@dataclass(frozen=True)
class Upstream:
    """Gradients of the loss with respect to the tokens' own numbers, [n], for tokens with any of them."""

    level: Tensor
    steep: Tensor | None
    own: Tensor
    top: Tensor

    @staticmethod
    def of(work: Work, given: TokenStatistics, g_logprob: Tensor, g_entropy: Tensor | None) -> Upstream:
        """Of exp(d) (level + steep d), and of the token's own entry.

        dz_v = [ g_logprob (1{v = y} - p_v) - g_entropy p_v (d_v - E[d]) ] / T,   p = exp(d) / (1 + s)
        """
        inverse = 1.0 if work.inverse is None else work.inverse
        share = (-given.log_total).exp() * inverse
        level, own = -g_logprob * share, -g_logprob * torch.expm1(given.logprob) * inverse
        steep = None
        if g_entropy is not None:
            level, steep = level + g_entropy * given.mean * share, -g_entropy * share
            p = given.logprob.exp()
            surprise = torch.where(p > 0, given.logprob + given.log_total - given.mean, 0.0)
            own = own - g_entropy * p * surprise * inverse
        if work.softcap is not None:
            capped = ((given.logprob + given.log_total) / inverse + given.top) / work.softcap
            own = own * torch.where(capped == -torch.inf, 0.0, 1 - capped**2)
        return Upstream(level, steep, own, given.top)

    def slope(self, rows: slice, kept_top: Tensor | None) -> Slope:
        steep = None if self.steep is None else self.steep[rows]
        return Slope(self.top[rows], self.level[rows], steep, self.own[rows], kept_top)


class Gradients:
    """Sums of the three gradients over tiles, in the working dtype."""

    def __init__(
        self, work: Work, weight: Tensor, bias: Tensor | None, needs: tuple[bool, bool, bool], num_chunks: int
    ) -> None:
        like, self._work = weight.new_empty((), dtype=work.products.work), work
        self.hidden = like.new_zeros(len(work.tokens), weight.shape[1]) if needs[0] else None
        self.weight = torch.empty_like(weight, memory_format=torch.contiguous_format) if needs[1] else None
        self.bias = torch.empty_like(bias) if needs[2] and bias is not None else None
        self._slice = None
        at_once = num_chunks == 1 and weight.dtype == work.products.operand
        if self.weight is not None and weight.dtype != like.dtype and not at_once:
            self._slice = like.new_empty(min(work.tile[1], len(weight)), weight.shape[1])

    def add(self, rows: slice, columns: slice, dz: Tensor, h: Tensor, w: Tensor, is_first: bool) -> None:
        if self.hidden is not None:
            self._work.products.add(self.hidden[rows], dz, w)
        if self.weight is not None:
            total = self._total(columns)
            if is_first and total.dtype == dz.dtype:
                torch.mm(dz.T, h, out=total)
            else:
                total = total.zero_() if is_first else total
                self._work.products.add(total, dz.T, h)
        if self.bias is not None:
            part = dz.sum(dim=0, dtype=self._work.products.work)
            self._bias_total = part if is_first else self._bias_total + part

    def _total(self, columns: slice) -> Tensor:
        assert self.weight is not None
        return self.weight[columns] if self._slice is None else self._slice[: columns.stop - columns.start]

    def finish(self, columns: slice) -> None:
        """The slice of the vocabulary is complete."""
        if self.weight is not None and self._slice is not None:
            self.weight[columns] = self._total(columns)
        if self.bias is not None:
            self.bias[columns] = self._bias_total.to(self.bias.dtype)

    def hidden_like(self, hidden: Tensor) -> Tensor | None:
        """The gradient of all hidden states; 0 for those that do not count or have none."""
        if self.hidden is None or self._work.index is None:
            return None if self.hidden is None else self.hidden.to(hidden.dtype)
        return torch.zeros_like(hidden).index_copy_(0, self._work.index, self.hidden.to(hidden.dtype))
