"""Token covariance, its tail, and what Clip-Cov and KL-Cov choose by it, in numpy: the twin of `covent.core` without
torch.

Tests hold the two against each other. Exact means over the whole batch, as covent chooses; micro-batched means as
verl, SkyRL and the paper's code choose: centre, count and choice inside each micro-batch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from covent.errors import EmptyMaskError
from covent.logs.dump import TokenBatch
from covent.readings import COVARIANCE_EDGES, CovarianceTail

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

TOP_SHARES = (0.0002, 0.002, 0.02, 0.2, 0.5)
"""The shares of the paper's Table 1."""

_QUANTILES = {"min": 0.0, "p01": 0.01, "p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
_TIE_GRID = 2.0**-18
_ROUNDINGS = 64


def token_covariances(logprob: FloatArray, advantage: FloatArray) -> FloatArray:
    """Each token's contribution to Cov(log pi, A).

        c = (log pi - mean log pi) (A - mean A)

    Args:
        logprob: nats, shape (n,).
        advantage: shape (n,).

    Returns:
        Nats times advantage units, shape (n,); their mean is the covariance.

    Source:
        arXiv 2505.22617, Eq. 10.

    Example:
        >>> token_covariances(np.array([-1.0, -3.0]), np.array([1.0, -1.0]))
        array([1., 1.])
    """
    product: FloatArray = (logprob - np.mean(logprob)) * (advantage - np.mean(advantage))
    return product


def covariance_tail(covariances: FloatArray) -> CovarianceTail:
    """Mean, spread, quantiles and tail of the token covariances of a batch.

    Raises:
        EmptyMaskError: there is no token.

    Source:
        arXiv 2505.22617, Table 1.
    """
    n = covariances.size
    if n == 0:
        raise EmptyMaskError("No token, so no covariance.")
    ascending = np.sort(covariances)
    descending = ascending[::-1]
    positive = float(np.clip(covariances, 0, None).sum())
    counts = {share: count_of_share(share, n) for share in TOP_SHARES}
    positions = np.round(np.array(list(_QUANTILES.values())) * (n - 1)).astype(np.int64)
    return CovarianceTail(
        mean=float(np.mean(covariances)),
        std=float(np.std(covariances)),
        quantiles=dict(zip(_QUANTILES, ascending[positions].tolist(), strict=True)),
        top_means={str(share): float(descending[:k].mean()) if k else None for share, k in counts.items()},
        positive_shares={
            str(share): float(np.clip(descending[:k], 0, None).sum()) / positive if k and positive else None
            for share, k in counts.items()
        },
        histogram=np.bincount(
            np.searchsorted(np.array(COVARIANCE_EDGES), covariances), minlength=len(COVARIANCE_EDGES) + 1
        ).tolist(),
    )


def count_of_share(share: float, num_tokens: int) -> int:
    """floor(share · n), with products that only rounding puts below a whole number counted as that number."""
    return int(share * num_tokens * (1 + 1e-12))


def kl_cov_tokens(batch: TokenBatch, ratio: float) -> BoolArray:
    """The tokens that KL-Cov holds: the floor(ratio · n) of highest covariance over the whole batch.

    Covariances are compared on the tie grid of `covent.core.selection`; those that tie go by (group, sequence,
    position), the lower first.
    Where all covariances are equal up to rounding no token is highest, and none is chosen.

    Source:
        arXiv 2505.22617, Eq. 13.
    """
    scores = token_covariances(batch.logprob, batch.advantage)
    chosen = np.zeros(len(batch), dtype=bool)
    noise = _ROUNDINGS * np.finfo(np.float64).eps * np.max(np.abs(batch.logprob)) * np.max(np.abs(batch.advantage))
    if float(np.ptp(scores)) <= noise:
        return chosen
    order = np.lexsort((batch.position, batch.sequence, batch.group, -np.round(scores / _tie_grid(scores))))
    chosen[order[: count_of_share(ratio, len(batch))]] = True
    return chosen


def clip_cov_candidates(batch: TokenBatch, lower: float, upper: float) -> BoolArray:
    """The tokens among which Clip-Cov draws: covariance in [lower, upper], and not cut by the paper's PPO range [0, 2].

    Source:
        arXiv 2505.22617, Eq. 11, and its released code.
    """
    covariances = token_covariances(batch.logprob, batch.advantage)
    grid = _tie_grid(covariances)
    multiples = np.round(covariances / grid)
    inside: BoolArray = ~_cut(batch) & (multiples >= np.round(lower / grid)) & (multiples <= np.round(upper / grid))
    return inside


def _tie_grid(covariances: FloatArray) -> float:
    largest = float(np.max(np.abs(covariances)))
    power = 2.0 ** np.floor(np.log2(largest) + 1e-6) if largest else 0.0
    return max(power * _TIE_GRID, sys.float_info.min)


def micro_batches(batch: TokenBatch, size: int) -> Iterator[NDArray[np.int64]]:
    """Rows of the tokens of each micro-batch of `size` sequences, in the order of the dump."""
    numbers = np.unique(batch.sequence, return_inverse=True)[1] // size
    for number in range(int(numbers.max()) + 1):
        yield np.flatnonzero(numbers == number)


def kl_cov_micro(batch: TokenBatch, ratio: float, size: int) -> BoolArray:
    """What verl's kl_cov chooses: in each micro-batch the max(1, int(ratio · n)) of highest covariance about its own
    means.

    Where covariances tie, as they all do in a micro-batch of one response, the first tokens are taken here; verl's
    choice among them is arbitrary.
    """
    chosen = np.zeros(len(batch), dtype=bool)
    for rows in micro_batches(batch, size):
        scores = token_covariances(batch.logprob[rows], batch.advantage[rows])
        chosen[rows[np.argsort(-scores, kind="stable")[: max(1, int(ratio * rows.size))]]] = True
    return chosen


def clip_cov_micro(batch: TokenBatch, ratio: float, lower: float, upper: float, size: int) -> tuple[BoolArray, int]:
    """Verl's clip_cov: the candidates about each micro-batch's own means, and how many are drawn in all.

    In each micro-batch min(max(1, int(ratio · n)), candidates) are drawn.
    """
    candidates = np.zeros(len(batch), dtype=bool)
    cut, drawn = _cut(batch), 0
    for rows in micro_batches(batch, size):
        scores = token_covariances(batch.logprob[rows], batch.advantage[rows])
        inside = ~cut[rows] & (scores > lower) & (scores < upper)
        candidates[rows[inside]] = True
        drawn += min(max(1, int(ratio * rows.size)), int(inside.sum()))
    return candidates, drawn


def _cut(batch: TokenBatch) -> BoolArray:
    """Tokens that the PPO clip of the paper's scripts (1 and 1) cuts: ratio above 2 with A > 0."""
    if batch.old_logprob is None:
        return np.zeros(len(batch), dtype=bool)
    cut: BoolArray = (batch.logprob - batch.old_logprob > np.log(2.0)) & (batch.advantage > 0)
    return cut
