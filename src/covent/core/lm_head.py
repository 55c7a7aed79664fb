"""Token log-probability and exact entropy from hidden states and the LM head, without the [N, V] logits.

The reference path: plain torch, tiles of tokens × vocabulary, everything reduced in float32 at least. Logits are
recomputed in the backward pass, so the extra memory is a few tiles whatever the vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from covent.core.entropy import checked_temperature
from covent.core.shapes import Float, Int64, Tensor
from covent.errors import ConfigError, ShapeError


def logprob_and_entropy_from_hidden(
    hidden: Float[Tensor, "*states D"],
    weight: Float[Tensor, "V D"],
    tokens: Int64[Tensor, "*states"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    temperature: float | Float[Tensor, "*states"] = 1.0,
    token_chunk: int = 1024,
    vocab_chunk: int = 8192,
) -> tuple[Float[Tensor, "*states"], Float[Tensor, "*states"]]:
    """Log-probability of the given tokens and exact entropy of softmax((W h + bias) / temperature).

        merging two tiles with maxima m1 >= m2, d = (m2 - m1) / T, s and u without the maximum's own term:
        s = s1 + exp(d) (1 + s2)          u = u1 + exp(d) (u2 + d (1 + s2))
        gradient of the logits: [ g_logprob (1{v = y} - p_v) - g_entropy p_v (d_v - E[d]) ] / T

    The same quantity and the same stable form as `covent.core.entropy.logprob_and_entropy`.

    Args:
      hidden: last hidden states; gradients of both outputs flow to them.
      weight: the LM head; gradients of both outputs flow to it.
      tokens: index of one vocabulary entry per state.
      bias: added to the logits; gradients flow. -inf switches an entry off: probability 0, no gradient.
      temperature: > 0, one for all or one per state; no gradient.
      token_chunk, vocab_chunk: size of a tile, >= 1. They set memory and speed; results agree to rounding.
    Returns: (log-prob, entropy), nats, float32 (float64 if an input is).
    Raises: ConfigError for a temperature or chunk that is not positive; ShapeError for a token outside the vocabulary.
    Source: arXiv 2505.22617, Eq. 5, has T = 1. Differs: logits of 16-bit inputs are made and kept in float32; rounding
      them to bfloat16 would be the largest error of all.

    Example:
      >>> hidden, head = torch.ones(1, 2), torch.zeros(4, 2)
      >>> logp, entropy = logprob_and_entropy_from_hidden(hidden, head, torch.tensor([2]), vocab_chunk=3)
      >>> round(logp.item(), 4), round(entropy.item(), 4)
      (-1.3863, 1.3863)
    """
    if token_chunk < 1 or vocab_chunk < 1:
        raise ConfigError(f"token_chunk is {token_chunk} and vocab_chunk is {vocab_chunk}; both must be at least 1.")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < len(weight):
        low, high = int(tokens.min()), int(tokens.max())
        raise ShapeError(
            f"Tokens from {low} to {high} for an LM head of {len(weight)} rows; replace padding ids first."
        )
    flat = hidden.reshape(-1, hidden.shape[-1])
    work = _work_dtype(flat, weight)
    divisor = torch.as_tensor(checked_temperature(temperature), dtype=work, device=hidden.device)
    head = _LMHead.apply(
        flat, weight, bias, tokens.reshape(-1), divisor.expand(tokens.shape).reshape(-1), (token_chunk, vocab_chunk)
    )
    return head[0].view(tokens.shape), head[1].view(tokens.shape)


def _work_dtype(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


class _Sums(NamedTuple):
    """Of the vocabulary seen so far, per token: the maximum m and, without its own term, s and u. All [N]."""

    top: Tensor
    rest: Tensor
    """s = sum of exp(d), d = (z - m) / T."""
    weighted: Tensor
    """u = sum of exp(d) d."""


def _tile_sums(z: Tensor, temperature: Tensor) -> _Sums:
    top, index = z.max(dim=1)
    live = z != -torch.inf
    d = torch.where(live, (z - top[:, None]) / temperature[:, None], 0.0)
    e = torch.where(live, d.exp(), 0.0).scatter(1, index[:, None], 0.0)
    return _Sums(top, e.sum(dim=1), (e * d).sum(dim=1))


def _merged(left: _Sums, right: _Sums, temperature: Tensor) -> _Sums:
    left_is_top = left.top >= right.top
    high = _Sums(*(torch.where(left_is_top, a, b) for a, b in zip(left, right, strict=True)))
    low = _Sums(*(torch.where(left_is_top, b, a) for a, b in zip(left, right, strict=True)))
    empty = low.top == -torch.inf
    d = torch.where(empty, 0.0, (low.top - high.top) / temperature)
    scale = torch.where(empty, 0.0, d.exp())
    # The lower maximum's own term, left out of its sums until now, is an ordinary one from here on.
    return _Sums(
        high.top,
        high.rest + scale * (1 + low.rest),
        high.weighted + scale * (low.weighted + d * (1 + low.rest)),
    )


def _tile(rows: Tensor, weight: Tensor, bias: Tensor | None, columns: slice) -> Tensor:
    z = rows @ weight.T
    return z if bias is None else z + bias[columns].to(z.dtype)


def _slices(size: int, chunk: int) -> list[slice]:
    return [slice(first, min(first + chunk, size)) for first in range(0, size, chunk)]


class _LMHead(torch.autograd.Function):
    """Forward keeps three numbers a token; backward makes each tile of logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        temperature: Tensor,
        chunks: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:
        work = temperature.dtype
        outputs = hidden.new_empty((4, len(hidden)), dtype=work)
        # Autocast would turn the float32 products back into 16 bits.
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in _slices(len(hidden), chunks[0]):
                h, y, t = hidden[rows].to(work), tokens[rows], temperature[rows]
                sums = _Sums(torch.full_like(t, -torch.inf), torch.zeros_like(t), torch.zeros_like(t))
                token_z = torch.full_like(t, -torch.inf)
                for columns in _slices(len(weight), chunks[1]):
                    z = _tile(h, weight[columns].to(work), bias, columns)
                    sums = _merged(sums, _tile_sums(z, t), t)
                    here = (y >= columns.start) & (y < columns.stop)
                    place = (y - columns.start).clamp(0, z.shape[1] - 1)
                    token_z = torch.where(here, z.gather(1, place[:, None]).squeeze(1), token_z)
                log_total, mean_d = torch.log1p(sums.rest), sums.weighted / (1 + sums.rest)
                # A maximum of NaN, of +inf, or of no finite logit at all must be seen and not taken for certainty.
                top = torch.where(sums.top.isfinite(), sums.top, torch.nan)
                outputs[:, rows] = torch.stack([(token_z - top) / t - log_total, top, log_total, mean_d])
        logprob, top, log_total, mean_d = outputs
        ctx.save_for_backward(hidden, weight, bias, tokens, temperature, logprob, top, log_total, mean_d)
        ctx.chunks = chunks
        ctx.set_materialize_grads(False)
        return logprob.clone(), log_total - mean_d + (top - top)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_logprob: Tensor | None, of_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, temperature, logprob, top, log_total, mean_d = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        if of_logprob is None and of_entropy is None:
            return None, None, None, None, None, None
        nothing = torch.zeros_like(logprob)
        # A token of probability 0 has no gradient, as in `logprob_and_entropy`.
        g_logprob = nothing if of_logprob is None else torch.where(logprob == -torch.inf, nothing, of_logprob)
        g_entropy = nothing if of_entropy is None else of_entropy
        work = temperature.dtype
        grad_hidden = torch.zeros_like(hidden, dtype=work) if needs_hidden else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        # Vocabulary outside, tokens inside: each row of the weight's gradient is summed in `work` and rounded once.
        with torch.autocast(hidden.device.type, enabled=False):
            for columns in _slices(len(weight), ctx.chunks[1]):
                w = weight[columns].to(work)
                tile_weight, tile_bias = torch.zeros_like(w), w.new_zeros(len(w))
                for rows in _slices(len(hidden), ctx.chunks[0]):
                    h, t = hidden[rows].to(work), temperature[rows, None]
                    z = _tile(h, w, bias, columns)
                    live = z != -torch.inf
                    d = torch.where(live, (z - top[rows, None]) / t, 0.0)
                    p = torch.where(live, (d - log_total[rows, None]).exp(), 0.0)
                    dz = -p * (g_logprob[rows, None] + g_entropy[rows, None] * (d - mean_d[rows, None]))
                    y = tokens[rows]
                    here = ((y >= columns.start) & (y < columns.stop)).nonzero().squeeze(1)
                    dz[here, y[here] - columns.start] += g_logprob[rows][here]
                    dz /= t
                    if grad_hidden is not None:
                        grad_hidden[rows] += dz @ w
                    tile_weight += dz.T @ h
                    tile_bias += dz.sum(dim=0)
                if grad_weight is not None:
                    grad_weight[columns] = tile_weight.to(weight.dtype)
                if grad_bias is not None:
                    grad_bias[columns] = tile_bias.to(grad_bias.dtype)
        to_hidden = None if grad_hidden is None else grad_hidden.to(hidden.dtype)
        return to_hidden, grad_weight, grad_bias, None, None, None
