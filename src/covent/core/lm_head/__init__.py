"""Token log-probability and exact entropy from hidden states and the LM head, without the [N, V] logits.

This file is the contract: what goes in and what comes out. Beside it:

    given       the settings of a call, and what of them and of the tensors is refused
    tiles       how large a tile is, and the logits that a budget allows to keep for the backward pass
    products    the three matrix products and the dtype of each
    sums        what is kept of the vocabulary seen so far, and how two parts of it are merged
    epilogue    from a tile of logits to its sums, and to its gradient: in plain torch
    compiled    the same in C, for large calls on a CPU that has a compiler
    gpu         the same by the Triton kernels of kernels.py
    sharded     rows of the LM head on several ranks
    work        one call: the tokens that count, and how the work on them is cut
    gradients   those that come in, per token, and the sums over tiles that go out
    recompute   the forward and the backward pass over all tiles
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from covent.core.lm_head.given import Settings, inverse_temperature, require_tensors
from covent.core.lm_head.products import products
from covent.core.lm_head.recompute import Recompute
from covent.core.lm_head.sharded import first_row
from covent.core.lm_head.tiles import tile_size
from covent.core.lm_head.work import Work
from covent.core.ranks import ProcessGroup
from covent.core.shapes import Bool, Float, Int64, Tensor
from covent.errors import ShapeError

__all__ = ["HeadReadings", "logprob_and_entropy_from_hidden", "token_readings_from_hidden"]


class HeadReadings(NamedTuple):
    """What one pass over the vocabulary says about each token; nats. 0 and False where the mask is False."""

    logprob: Float[Tensor, "*states"]
    entropy: Float[Tensor, "*states"]
    is_top: Bool[Tensor, "*states"]
    """Whether no entry of the vocabulary is likelier than the token. No gradient."""
    sum_p_squared: Float[Tensor, "*states"]
    """Sum of p^2 over the vocabulary: the chance that two draws agree. No gradient."""
    polarity: Float[Tensor, "*states"]
    """`covent.core.dynamics.polarity` of the token for advantage 1, at this temperature. No gradient."""


def logprob_and_entropy_from_hidden(
    hidden: Float[Tensor, "*states D"],
    weight: Float[Tensor, "V D"],
    tokens: Int64[Tensor, "*states"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    softcap: float | None = None,
    mask: Bool[Tensor, "*states"] | None = None,
    temperature: float | Float[Tensor, "*states"] = 1.0,
    logits_dtype: torch.dtype | None = None,
    workspace_bytes: int = 0,
    token_chunk: int | None = None,
    vocab_chunk: int | None = None,
    group: ProcessGroup | None = None,
) -> tuple[Float[Tensor, "*states"], Float[Tensor, "*states"]]:
    """Log-probability of the given tokens and exact entropy of softmax((W h + bias) / temperature).

        d_v = (z_v - z_max) / T,  s and u the sums of exp(d) and exp(d) d without the maximum's own term
        log pi(y) = d_y - log(1 + s)          H = log(1 + s) - u / (1 + s)
        gradient of the logits: [ g_logprob (1{v = y} - p_v) - g_entropy p_v (d_v - E[d]) ] / T

    The same quantity and the same stable form as `covent.core.entropy.logprob_and_entropy`, tile by tile. States whose
    upstream gradients are both 0 are left out of the backward pass. The same call gives the same bits.

    Args:
      hidden: last hidden states; gradients of both outputs flow to them.
      weight: the LM head; gradients of both outputs flow to it.
      tokens: index of one vocabulary entry per state.
      bias: added to the logits; gradients flow. -inf switches an entry off: probability 0, no gradient.
      softcap: c > 0 replaces each logit z by c tanh(z / c), before the temperature.
      mask: True where a state counts. The others cost nothing, may hold anything, and give 0 without gradient.
      temperature: > 0, behind a mask too; one for all or one per state; no gradient.
      logits_dtype: None keeps logits in float32 (float64 if an input is). torch.bfloat16 rounds them, as a model with
        bfloat16 weights does: on a CPU several times faster for bfloat16 inputs, and by far the largest error.
      workspace_bytes: how much memory may hold logits from the forward to the backward pass. The logits of the states
        that do not fit are computed twice. 16-bit inputs with float32 logits are kept in float16, after a shift by a
        maximum; all others as they are. float16 costs precision in states with one nearly certain entry: if the next
        lies 8 to 16 nats below it, their gradients may be off by 2^-8, at 16 to 32 nats by 2^-7.
      token_chunk, vocab_chunk: size of a tile, >= 1; None for what suits the device. They set memory and speed;
        results agree to rounding.
      group: ranks that each hold some rows of the LM head and of its bias, in order of rank. All ranks call with the
        same hidden states, tokens and upstream gradients, and all get the same bits. 16 bytes a token are gathered.
    Returns: (log-prob, entropy), nats, float32 (float64 if an input is).
    Raises: ConfigError for a setting out of range, or numbers of the wrong type; ShapeError for shapes that do not
      belong together, and for a token outside the vocabulary.
    Source: arXiv 2505.22617, Eq. 5, has T = 1.

    Example:
      >>> hidden, head = torch.ones(1, 2), torch.zeros(4, 2)
      >>> logp, entropy = logprob_and_entropy_from_hidden(hidden, head, torch.tensor([2]), vocab_chunk=3)
      >>> round(logp.item(), 4), round(entropy.item(), 4)
      (-1.3863, 1.3863)
    """
    settings = Settings(softcap, temperature, logits_dtype, workspace_bytes, token_chunk, vocab_chunk, group)
    logprob, entropy = _readings(hidden, weight, bias, tokens, mask, settings, extra=False)
    return logprob, entropy


def token_readings_from_hidden(
    hidden: Float[Tensor, "*states D"],
    weight: Float[Tensor, "V D"],
    tokens: Int64[Tensor, "*states"],
    *,
    bias: Float[Tensor, " V"] | None = None,
    softcap: float | None = None,
    mask: Bool[Tensor, "*states"] | None = None,
    temperature: float | Float[Tensor, "*states"] = 1.0,
    logits_dtype: torch.dtype | None = None,
    workspace_bytes: int = 0,
    token_chunk: int | None = None,
    vocab_chunk: int | None = None,
    group: ProcessGroup | None = None,
) -> HeadReadings:
    """Log-probability and entropy with three more readings from the same pass.

        sum of p^2          polarity = - p_y (log p_y + H) + sum p^2 (log p + H)

    Args, Raises: as for `logprob_and_entropy_from_hidden`.
    Returns: `HeadReadings`; gradients flow from the log-prob and the entropy only.
    Source: as there, and `covent.core.dynamics.polarity`.

    Example:
      >>> hidden, head = torch.ones(1, 1), torch.tensor([[2.0], [0.0]])
      >>> found = token_readings_from_hidden(hidden, head, torch.tensor([1]))
      >>> bool(found.is_top), round(found.sum_p_squared.item(), 4), round(found.polarity.item(), 4)
      (False, 0.79, 0.3699)
    """
    settings = Settings(softcap, temperature, logits_dtype, workspace_bytes, token_chunk, vocab_chunk, group)
    return HeadReadings(*_readings(hidden, weight, bias, tokens, mask, settings, extra=True))


def _readings(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    mask: Tensor | None,
    settings: Settings,
    *,
    extra: bool,
) -> list[Tensor]:
    settings.check()
    require_tensors(hidden, weight, bias, tokens, mask, settings.temperature)
    work = _work(hidden, weight, bias, tokens, mask, settings, extra)
    flat = hidden.reshape(tokens.numel(), hidden.shape[-1])
    parts = Recompute.apply(flat, weight, bias, work)
    if work.index is not None:
        index = work.index
        parts = [part.new_zeros(tokens.numel()).index_put((index,), part) for part in parts]
    return [part.view(tokens.shape) for part in parts]


def _work(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    mask: Tensor | None,
    settings: Settings,
    extra: bool,
) -> Work:
    index = None if mask is None or bool(mask.all()) else mask.flatten().nonzero().squeeze(1)

    def counted(values: Tensor) -> Tensor:
        return values.flatten() if index is None else values.flatten()[index]

    chosen = counted(tokens)
    first, num_rows = 0, len(weight)
    if settings.group is not None:
        first, num_rows = first_row(num_rows, weight.device, settings.group)
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < num_rows:
        raise ShapeError(
            f"Tokens from {int(chosen.min())} to {int(chosen.max())} for an LM head of {num_rows} rows; "
            "replace padding ids first, or mask them."
        )
    dtypes = products(hidden, weight, bias, settings.logits_dtype)
    temperature = settings.temperature
    if isinstance(temperature, Tensor):
        temperature = counted(temperature.expand(tokens.shape))
    inverse = inverse_temperature(temperature, torch.empty(chosen.shape, dtype=dtypes.work, device=hidden.device))
    tile = tile_size(hidden.device, dtypes.logits, settings.token_chunk, settings.vocab_chunk)
    return Work(
        chosen - first, inverse, index, dtypes, settings.softcap, tile, settings.workspace_bytes, extra, settings.group
    )
