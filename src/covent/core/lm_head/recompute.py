"""The passes over all tiles. Forward keeps three numbers a token; backward makes the logits again that were not kept.

Vocabulary outside, tokens inside: a slice of the weight is read once a pass, and in the backward pass its gradient is
finished and rounded once. Tokens without gradient are left out of the backward pass altogether.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from covent.core.lm_head.gradients import Gradients, Upstream
from covent.core.lm_head.sharded import merged_over_ranks
from covent.core.lm_head.sums import (
    NUM_SUMS,
    NUM_SUMS_WITH_EXTRAS,
    TokenStatistics,
    extras,
    of_nothing,
    statistics,
)
from covent.core.lm_head.tiles import Kept, slices
from covent.core.lm_head.work import Work
from covent.core.ranks import total as sum_over_ranks
from covent.core.shapes import Tensor


class Recompute(torch.autograd.Function):
    """(log-prob, entropy, is top, sum of p^2, polarity) of the tokens that count; the last three without gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, work: Work) -> tuple[Tensor, ...]:
        kept = None
        if work.workspace_bytes and any(ctx.needs_input_grad):
            like = torch.empty((), dtype=work.products.work, device=hidden.device)
            kept = Kept.within(
                work.workspace_bytes, len(work.tokens), len(weight), work.tile[1], dtype=work.products.keep, like=like
            )
        # Autocast would turn float32 products back into 16 bits.
        with torch.autocast(hidden.device.type, enabled=False):
            sums = vocabulary_sums(work, hidden, weight, bias, kept)
        if work.group is not None:
            sums = merged_over_ranks(sums, work.temperature, work.group)
        given = statistics(sums, work.temperature)
        more = extras(sums, given) if work.extra else ()
        ctx.save_for_backward(hidden, weight, bias, *given, *((kept.logits, kept.tops) if kept else (None, None)))
        ctx.work, ctx.num_kept = work, kept.num_tokens if kept else 0
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*more)
        return given.logprob.clone(), given.entropy, *more

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_logprob: Tensor | None, g_entropy: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        hidden, weight, bias, *rest, logits, tops = ctx.saved_tensors
        work, given = ctx.work, TokenStatistics(*rest)
        if g_logprob is None and g_entropy is None:
            return None, None, None, None
        g_logprob = torch.zeros_like(given.logprob) if g_logprob is None else g_logprob
        # A token of probability 0 has no gradient, as in `logprob_and_entropy`.
        g_logprob = torch.where(given.logprob == -torch.inf, 0.0, g_logprob)
        live = g_logprob != 0 if g_entropy is None else (g_logprob != 0) | (g_entropy != 0)
        chosen = None if bool(live.all()) else live.nonzero().squeeze(1)
        if chosen is not None:
            work, given = work.some(chosen), TokenStatistics(*(part[chosen] for part in given))
            g_logprob, g_entropy = g_logprob[chosen], None if g_entropy is None else g_entropy[chosen]
        if not work.tokens.numel():
            inputs = zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
            return *(torch.zeros_like(tensor) if needs else None for tensor, needs in inputs), None
        kept = Kept(ctx.num_kept, logits, tops) if ctx.num_kept else None
        with torch.autocast(hidden.device.type, enabled=False):
            upstream = Upstream.of(work, given, g_logprob, g_entropy)
            total = vocabulary_gradients(
                work, hidden, weight, bias, upstream, kept, chosen, needs=tuple(ctx.needs_input_grad[:3])
            )
        if total.hidden is not None:
            # Each rank's part comes from its own rows of the weight.
            total.hidden = sum_over_ranks(total.hidden, work.group)
        return total.hidden_like(hidden), total.weight, total.bias, None


def vocabulary_sums(work: Work, hidden: Tensor, weight: Tensor, bias: Tensor | None, kept: Kept | None) -> Tensor:
    """The sums over all rows of the weight, [num_sums, n]; fills `kept`."""
    like = torch.empty((), dtype=work.products.work, device=hidden.device)
    sums = of_nothing(NUM_SUMS_WITH_EXTRAS if work.extra else NUM_SUMS, len(work.tokens), like)
    buffer, epilogue = work.buffers(weight)[0], work.epilogue(weight)
    num_kept = kept.num_tokens if kept else 0
    for number, columns in enumerate(slices(0, len(weight), work.tile[1])):
        w, shape = weight[columns].to(work.products.operand), work.shape(bias, columns)
        block = kept.block(columns) if kept else None
        for rows in work.chunks(num_kept):
            z = buffer.tile(rows.stop - rows.start, len(w))
            d = None
            if kept and block is not None and rows.start < num_kept:
                d, z = (block[rows], z) if kept.tops is not None else (None, block[rows])
            work.products.logits_of(work.hidden(hidden, rows), w, out=z)
            top = epilogue.fold_into(sums[:, rows], z, shape, work.rows(rows, columns), d)
            if kept and d is not None and kept.tops is not None:
                kept.tops[number, rows] = top
    return sums


def vocabulary_gradients(
    work: Work,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    upstream: Upstream,
    kept: Kept | None,
    chosen: Tensor | None,
    *,
    needs: tuple[bool, bool, bool],
) -> Gradients:
    """The gradients of all three inputs.

    Args:
      work: the tokens with a gradient.
      kept: logits of some of the tokens of the forward pass.
      chosen: position of each of `work`'s tokens among those of the forward pass; None if they are the same.
    """
    num_kept = 0
    if kept:
        num_kept = kept.num_tokens if chosen is None else int((chosen < kept.num_tokens).sum())
    chunks = work.chunks(num_kept)
    total = Gradients(work, weight, bias, needs, len(chunks))
    epilogue, made, gradient = work.epilogue(weight), *work.buffers(weight)
    for number, columns in enumerate(slices(0, len(weight), work.tile[1])):
        w, shape = weight[columns].to(work.products.operand), work.shape(bias, columns)
        for rows in chunks:
            h, kept_top = work.hidden(hidden, rows), None
            dz = gradient.tile(len(h), len(w))
            if kept and rows.start < num_kept:
                which = rows if chosen is None else chosen[rows]
                z = kept.block(columns)[which]
                kept_top = None if kept.tops is None else kept.tops[number, which]
            else:
                z = made.tile(len(h), len(w))
                work.products.logits_of(h, w, out=z)
            epilogue.gradient(z, shape, work.rows(rows, columns), upstream.slope(rows, kept_top), dz)
            total.add(rows, columns, dz, h, w, is_first=rows is chunks[0])
        total.finish(columns)
    return total
