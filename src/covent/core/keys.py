"""Random numbers without a generator: a counter-based hash of a key and of each token's identity.

The same token of the same run draws the same number whatever its row, its micro-batch, its rank, or what was drawn
before. So choices are reproducible, resumable and independent of how a batch is split. Not for cryptography.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from covent.core.shapes import Float, Int64, Tensor

# splitmix64's constants (Steele, Lea and Flood 2014), written as signed 64-bit integers because torch has no uint64
# multiplication; wrap-around multiplication is the same for both.
_GAMMA = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


class TokenIdentity(NamedTuple):
    """Which token it is, independent of where it stands in a batch. All three int64 of shape [B, T]."""

    prompt: Tensor
    """Number of the prompt's group in the run."""
    sample: Tensor
    """Number of the response in its group."""
    position: Tensor
    """Position in the response, from 0."""


def key(*parts: int | str) -> int:
    """A 63-bit key from a seed, a purpose and counters; different parts give unrelated keys.

    Example:
      >>> key(0, "rollout", 3) == key(0, "rollout", 3), key(0, "rollout", 3) == key(0, "rollout", 4)
      (True, False)
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


def token_hash(key: int, identity: TokenIdentity) -> Int64[Tensor, "*shape"]:
    """A 64-bit hash of (key, prompt, sample, position) for each token.

    Source: splitmix64's finaliser, applied once per part.
    """
    state = _mix(identity.prompt + key)
    state = _mix(state + identity.sample)
    return _mix(state + identity.position)


def token_uniform(key: int, identity: TokenIdentity) -> Float[Tensor, "*shape"]:
    """A number in [0, 1) for each token, float64: the top 53 bits of `token_hash`."""
    return ((token_hash(key, identity) >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def _mix(state: Tensor) -> Tensor:
    state = state + _GAMMA
    state = (state ^ _shift_right(state, 30)) * _MIX_1
    state = (state ^ _shift_right(state, 27)) * _MIX_2
    return state ^ _shift_right(state, 31)


def _shift_right(state: Tensor, bits: int) -> Tensor:
    """Logical shift; torch shifts signed integers arithmetically."""
    return (state >> bits) & ((1 << (64 - bits)) - 1)
