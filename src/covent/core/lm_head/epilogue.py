"""From a tile of logits to its sums, and to its gradient: plain torch, a few rows at a time, which stay cached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from covent.core.lm_head.sums import NUM_SUMS, NUM_SUMS_WITH_EXTRAS, TOKEN, TOP, merged
from covent.core.lm_head.tiles import Buffer
from covent.core.shapes import Tensor

# Values of one block of rows: with the scratch space of the same size it fits a second-level cache.
_BLOCK = 1 << 18
# exp of it is 0 in float64 too, and 0 times it is 0, where minus infinity would be NaN.
_FAR = -1e4


class Shape(NamedTuple):
    """What turns a product into logits: z = cap tanh((h W + bias) / cap)."""

    bias: Tensor | None
    """Of these columns, in the working dtype."""
    softcap: float | None


class Rows(NamedTuple):
    """Per token of a tile, [n]."""

    place: Tensor
    """Column of the token's own entry; another slice of the vocabulary holds it if this is outside of the tile."""
    inverse: Tensor | None
    """1 / T; None where T = 1."""

    def here(self, width: int) -> Tensor:
        """Rows whose own entry lies in this tile."""
        return ((self.place >= 0) & (self.place < width)).nonzero().squeeze(1)


class Slope(NamedTuple):
    """Per token of a tile, [n]: the gradient of an entry is exp(d) (level + steep d), and `own` is the token's own."""

    top: Tensor
    level: Tensor
    steep: Tensor | None
    """None without a gradient of the entropy."""
    own: Tensor
    kept_top: Tensor | None
    """Where the tile holds d instead of logits: the maximum that d was taken from."""


class TorchEpilogue:
    """Two functions of a tile of at most this shape; they reuse the scratch space of a few rows."""

    def __init__(self, work: torch.dtype, shape: tuple[int, int], device: torch.device) -> None:
        num_rows, width = shape
        self._num_rows = max(1, min(num_rows, _BLOCK // max(1, width)))
        self._scratch = [Buffer((self._num_rows, width), work, device) for _ in range(3)]
        self._work = work

    def fold_into(self, sums: Tensor, z: Tensor, shape: Shape, rows: Rows, keep: Tensor | None) -> Tensor:
        """Merge the sums of a tile into those of these tokens so far; returns the maximum of each row of the tile.

        `keep` [n, width] in float16 is filled with d, taken from that maximum.
        """
        tile = self.fold(z, shape, rows, extra=len(sums) == NUM_SUMS_WITH_EXTRAS, keep=keep)
        sums.copy_(merged(sums, tile, 1.0 if rows.inverse is None else 1.0 / rows.inverse))
        return tile[TOP]

    def fold(self, z: Tensor, shape: Shape, rows: Rows, *, extra: bool, keep: Tensor | None) -> Tensor:
        """The sums of a tile, [num_sums, n]."""
        sums = torch.empty(NUM_SUMS_WITH_EXTRAS if extra else NUM_SUMS, len(z), dtype=self._work, device=z.device)
        for block in self._blocks(z):
            x, d, e = self._views(z[block])
            inverse = _column(rows.inverse, block)
            logits = self._logits(z[block], shape, x)
            top = logits.amax(dim=1)
            place = rows.place[block].clamp(0, z.shape[1] - 1)[:, None]
            token = logits.gather(1, place).squeeze(1)
            _shifted(logits, torch.where(top == -torch.inf, 0.0, top)[:, None], inverse, d)
            if keep is not None:
                keep[block] = d
            d.clamp_(min=_FAR)
            torch.exp(d, out=e)
            # One maximum is left out of the sums; others of the same value count. The index of one would cost more.
            is_top = torch.eq(d, 0.0, out=x)
            more = is_top.sum(dim=1).sub_(1.0).clamp_(min=0.0)
            e.sub_(is_top)
            parts = [top, e.sum(dim=1).add_(more), torch.mul(e, d, out=d).sum(dim=1), token]
            if extra:
                parts += [torch.mul(e, e, out=x).sum(dim=1).add_(more), torch.mul(e, d, out=x).sum(dim=1)]
            torch.stack(parts, out=sums[:, block])
        elsewhere = (rows.place < 0) | (rows.place >= z.shape[1])
        sums[TOKEN].masked_fill_(elsewhere, -torch.inf)
        return sums

    def gradient(self, z: Tensor, shape: Shape, rows: Rows, slope: Slope, out: Tensor) -> None:
        """out = the gradient of the tile's logits before bias and cap; `out` may be `z` itself."""
        here = rows.here(z.shape[1])
        for block in self._blocks(z):
            x, d, e = self._views(z[block])
            inverse = _column(rows.inverse, block)
            if slope.kept_top is None:
                _shifted(self._logits(z[block], shape, x), slope.top[block, None], inverse, d)
            else:
                _shifted(slope.kept_top[block, None], slope.top[block, None], inverse, x[:, :1])
                torch.add(z[block], x[:, :1], out=d)
            d.clamp_(min=_FAR)
            torch.exp(d, out=e)
            if shape.softcap is not None:
                raw = d if inverse is None else torch.div(d, inverse, out=x)
                capped = torch.add(raw, slope.top[block, None], out=x).div_(shape.softcap)
                # tanh' = 1 - tanh^2
                e.addcmul_(e, capped.square_(), value=-1.0)
            level = slope.level[block, None]
            if slope.steep is not None:
                level = d.mul_(slope.steep[block, None]).add_(level)
            torch.mul(e, level, out=out[block])
        out[here, rows.place[here]] = slope.own[here].to(out.dtype)

    def _blocks(self, z: Tensor) -> Iterator[slice]:
        return (slice(first, first + self._num_rows) for first in range(0, len(z), self._num_rows))

    def _views(self, z: Tensor) -> list[Tensor]:
        return [buffer.tile(*z.shape) for buffer in self._scratch]

    def _logits(self, z: Tensor, shape: Shape, out: Tensor) -> Tensor:
        if shape.bias is None and shape.softcap is None:
            return z if z.dtype == self._work else out.copy_(z)
        out.copy_(z) if shape.bias is None else torch.add(z, shape.bias, out=out)
        if shape.softcap is not None:
            off = out == -torch.inf
            out.div_(shape.softcap).tanh_().mul_(shape.softcap).masked_fill_(off, -torch.inf)
        return out


def _shifted(logits: Tensor, top: Tensor, inverse: Tensor | None, out: Tensor) -> None:
    torch.sub(logits, top, out=out)
    if inverse is not None:
        out.mul_(inverse)


def _column(values: Tensor | None, block: slice) -> Tensor | None:
    return None if values is None else values[block, None]
