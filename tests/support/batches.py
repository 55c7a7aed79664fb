"""Made-up optimizer batches: ragged responses with junk behind the mask, in any order and with any padding."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from covent.core.keys import TokenIdentity
from covent.core.plan import Measured

JUNK = float("nan")
VALUES = ("logprobs", "old_logprobs", "entropies", "advantages", "sampler_logprobs", "reference_logprobs")
"""The columns of a batch that hold numbers, with junk behind the mask."""


def identity_grid(num_prompts: int, num_samples: int, length: int) -> TokenIdentity:
    """The identities of a whole batch, the samples of a prompt together."""
    shape = (num_prompts * num_samples, length)
    prompt = torch.arange(num_prompts).repeat_interleave(num_samples)[:, None].expand(shape)
    sample = torch.arange(num_samples).repeat(num_prompts)[:, None].expand(shape)
    return TokenIdentity(prompt, sample, torch.arange(length).expand(shape))


def optimizer_batch(
    seed: int,
    *,
    num_prompts: int = 8,
    num_samples: int = 4,
    length: int = 16,
    drift: float = 0.3,
    dtype: torch.dtype = torch.float64,
) -> Measured:
    """Log-probs with a heavy tail, one advantage a response, and a policy `drift` nats away from the sampler's."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_prompts * num_samples, length)
    logprobs = -torch.empty(shape, dtype=torch.float64).exponential_(1.0, generator=generator)
    old_logprobs = logprobs + drift * torch.randn(shape, generator=generator, dtype=torch.float64)
    entropies = torch.rand(shape, generator=generator, dtype=torch.float64)
    advantages = torch.randn(shape[0], 1, generator=generator, dtype=torch.float64).expand(shape)
    lengths = torch.randint(1, length + 1, (shape[0], 1), generator=generator)
    mask = torch.arange(length) < lengths
    sampler_logprobs = old_logprobs + 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    reference_logprobs = logprobs + torch.randn(shape, generator=generator, dtype=torch.float64)
    columns = {
        "logprobs": logprobs,
        "old_logprobs": old_logprobs,
        "entropies": entropies,
        "advantages": advantages,
        "sampler_logprobs": sampler_logprobs,
        "reference_logprobs": reference_logprobs,
    }
    values = {name: column.to(dtype).masked_fill(~mask, JUNK) for name, column in columns.items()}
    return Measured(**values, mask=mask, identity=identity_grid(num_prompts, num_samples, length))


def reordered(measured: Measured, rows: Tensor | slice) -> Measured:
    """The batch with these rows, in this order."""
    identity = TokenIdentity(*(column[rows] for column in measured.identity))
    return replace(measured, **{name: getattr(measured, name)[rows] for name in (*VALUES, "mask")}, identity=identity)


def padded(measured: Measured, num_columns: int) -> Measured:
    """The batch with junk appended to every response."""

    def pad(column: Tensor, value: float) -> Tensor:
        return torch.nn.functional.pad(column, (0, num_columns), value=value)

    return replace(
        measured,
        **{name: pad(getattr(measured, name), JUNK) for name in VALUES},
        mask=pad(measured.mask, 0),
        identity=TokenIdentity(*(pad(column, 0) for column in measured.identity)),
    )


def splits(num_rows: int, *cuts: int) -> list[slice]:
    """The batch's rows cut into micro-batches at these places."""
    return [slice(first, last) for first, last in pairwise([0, *cuts, num_rows])]


def tokens(measured: Measured) -> list[tuple[int, int]]:
    """(row, column) of every token that counts, in order."""
    return [(row, column) for row, column in measured.mask.nonzero().tolist()]


def named(chosen: Tensor, identity: TokenIdentity) -> set[tuple[int, ...]]:
    """The chosen tokens by (prompt, sample, position)."""
    return set(zip(*(column[chosen].tolist() for column in identity), strict=True))


def masked_equal(left: Tensor, right: Tensor, mask: Tensor) -> bool:
    """Whether two tensors are the same bit for bit where the mask is True."""
    return bool(torch.equal(left[mask], right[mask]))
