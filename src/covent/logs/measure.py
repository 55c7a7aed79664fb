"""What a token dump says: entropy, covariance and its tail, and whom Clip-Cov and KL-Cov would choose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.errors import ConfigError
from covent.logs.dump import TokenBatch
from covent.logs.token_covariance import (
    clip_cov_candidates,
    clip_cov_micro,
    count_of_share,
    covariance_tail,
    kl_cov_micro,
    kl_cov_tokens,
    token_covariances,
)
from covent.readings import CovarianceTail

KL_COV_RATIOS = (2e-4, 2e-3, 2e-2)
"""The paper's 32B and 7B settings, and one for batches of a few thousand tokens."""

CLIP_COV_RATIOS = (2e-4, 2e-3, 2e-2)
MICRO_BATCHES = (1, 2, 4, 8, 32)
NUM_TOP = 10
_CANDIDATES_WANTED = 10


class Settings(BaseModel):
    """Which settings of the two controls to try, with verl's names. Shares are fractions, never percent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kl_cov_ratio: tuple[float, ...] = KL_COV_RATIOS
    clip_cov_ratio: tuple[float, ...] = CLIP_COV_RATIOS
    clip_cov_lb: float = 1.0
    clip_cov_ub: float = 5.0
    micro: tuple[int, ...] = MICRO_BATCHES
    """Sequences in a micro-batch."""


class MicroChoice(BaseModel):
    """One control at one setting, chosen inside micro-batches as verl does."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sequences: int
    num_micro_batches: int
    num_selected: int
    selected_frac: float
    """Of all tokens: beside the share that was asked, the share that is realised."""
    overlap: float | None
    """KL-Cov: share of the exact choice that is chosen too. Clip-Cov, which draws at random: share of the exact
    candidates
    that are candidates too. None where the exact choice is empty."""


class ControlChoice(BaseModel):
    """One control at one setting, over the whole batch and under micro-batching."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    control: str
    ratio: float
    num_asked: int
    num_candidates: int
    """KL-Cov: all tokens. Clip-Cov: those inside the band."""
    num_selected: int
    lowest_covariance: float | None
    """KL-Cov: the covariance from which a token is chosen."""
    micro: list[MicroChoice]
    note: str = ""


class TopToken(BaseModel):
    """A token of highest covariance."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sequence: int
    position: int
    covariance: float
    logprob: float
    advantage: float
    token: str | None


class Measurement(BaseModel):
    """What the tokens of one step say."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int | None
    num_tokens: int
    num_sequences: int
    num_groups: int
    mean_logprob: float
    sampled_entropy: float
    """Minus the mean log-probability of the sampled tokens: an estimate of entropy that every dump allows, nats."""
    entropy: float | None
    """Mean of the dump's own entropies over the tokens that carry gradient, nats."""
    mean_advantage: float
    correlation: float | None
    """Of log π and A: the covariance without its units; None where one of them is constant."""
    covariance: CovarianceTail
    controls: list[ControlChoice]
    top_tokens: list[TopToken]
    warnings: list[str]


def measurement(batch: TokenBatch, settings: Settings | None = None) -> Measurement:
    """Covariances of one step and what the controls would make of them.

    Args:
        batch: the tokens that carry gradient.
        settings: which settings to try.

    Raises:
        ConfigError: a share outside (0, 1], a band that is not ordered, or a micro-batch without sequences.
    """
    settings = settings or Settings()
    _check(settings)
    covariances = token_covariances(batch.logprob, batch.advantage)
    spread = float(np.std(batch.logprob) * np.std(batch.advantage))
    top = np.argsort(-covariances, kind="stable")[:NUM_TOP].tolist()
    return Measurement(
        step=batch.step,
        num_tokens=len(batch),
        num_sequences=batch.num_sequences,
        num_groups=int(np.unique(batch.group).size),
        mean_logprob=float(np.mean(batch.logprob)),
        sampled_entropy=-float(np.mean(batch.logprob)),
        entropy=None if batch.entropy is None else float(np.mean(batch.entropy)),
        mean_advantage=float(np.mean(batch.advantage)),
        correlation=float(np.mean(covariances)) / spread if spread > 0 else None,
        covariance=covariance_tail(covariances),
        controls=[_kl_cov(batch, ratio, settings) for ratio in settings.kl_cov_ratio]
        + [_clip_cov(batch, ratio, settings) for ratio in settings.clip_cov_ratio],
        top_tokens=[
            TopToken(
                sequence=int(batch.sequence[i]),
                position=int(batch.position[i]),
                covariance=float(covariances[i]),
                logprob=float(batch.logprob[i]),
                advantage=float(batch.advantage[i]),
                token=None if batch.tokens is None else batch.tokens[i],
            )
            for i in top
        ],
        warnings=[*batch.notes, *_doubts(batch)],
    )


def _kl_cov(batch: TokenBatch, ratio: float, settings: Settings) -> ControlChoice:
    exact = kl_cov_tokens(batch, ratio)
    covariances = token_covariances(batch.logprob, batch.advantage)
    count = int(exact.sum())
    micro = []
    for size in _sizes(batch, settings.micro):
        chosen = kl_cov_micro(batch, ratio, size)
        micro.append(_micro(batch, size, int(chosen.sum()), int((chosen & exact).sum()), count))
    return ControlChoice(
        control="kl_cov",
        ratio=ratio,
        num_asked=count_of_share(ratio, len(batch)),
        num_candidates=len(batch),
        num_selected=count,
        lowest_covariance=float(covariances[exact].min()) if count else None,
        micro=micro,
        note=_top_note(batch, ratio, count),
    )


def _clip_cov(batch: TokenBatch, ratio: float, settings: Settings) -> ControlChoice:
    lower, upper = settings.clip_cov_lb, settings.clip_cov_ub
    exact = clip_cov_candidates(batch, lower, upper)
    asked, inside = count_of_share(ratio, len(batch)), int(exact.sum())
    micro = []
    for size in _sizes(batch, settings.micro):
        candidates, drawn = clip_cov_micro(batch, ratio, lower, upper, size)
        micro.append(_micro(batch, size, drawn, int((candidates & exact).sum()), inside))
    return ControlChoice(
        control="clip_cov",
        ratio=ratio,
        num_asked=asked,
        num_candidates=inside,
        num_selected=min(asked, inside),
        lowest_covariance=None,
        micro=micro,
        note=_band_note(batch, asked, inside, settings),
    )


def _top_note(batch: TokenBatch, ratio: float, count: int) -> str:
    if count:
        return ""
    if count_of_share(ratio, len(batch)) == 0:
        return f"{ratio:g} of {len(batch)} tokens is less than one token."
    return "All tokens have the same covariance, so none is highest."


def _band_note(batch: TokenBatch, asked: int, inside: int, settings: Settings) -> str:
    band = f"[{settings.clip_cov_lb:g}, {settings.clip_cov_ub:g}]"
    if asked == 0:
        return f"{len(batch)} tokens are too few for this share: it is less than one token."
    if inside > asked:
        return ""
    wanted = min(_CANDIDATES_WANTED * asked, len(batch))
    lower = np.sort(token_covariances(batch.logprob, batch.advantage))[-wanted]
    hint = f" A clip_cov_lb of {lower:.3g} would leave about {wanted} candidates to draw from." if lower > 0 else ""
    if inside == 0:
        return f"No token lies in {band}: the control does nothing.{hint}"
    return f"Every candidate is taken ({inside} in {band}, {asked} asked), so the share does not decide.{hint}"


def _micro(batch: TokenBatch, size: int, selected: int, shared: int, exact: int) -> MicroChoice:
    return MicroChoice(
        sequences=size,
        num_micro_batches=-(-batch.num_sequences // size),
        num_selected=selected,
        selected_frac=selected / len(batch),
        overlap=shared / exact if exact else None,
    )


def _sizes(batch: TokenBatch, sizes: Sequence[int]) -> list[int]:
    """Micro-batches of the whole dump or more are the whole batch, and told once."""
    below = [size for size in sizes if size < batch.num_sequences]
    return [*below, batch.num_sequences]


def _doubts(batch: TokenBatch) -> list[str]:
    doubts = []
    if float(np.ptp(batch.advantage)) == 0:
        doubts.append(
            f"Every token has the advantage {batch.advantage[0]:g}, so every covariance is 0: a step of one response,"
            " or of groups with equal rewards."
        )
    if bool(np.any(batch.logprob > 0)):
        doubts.append(f"{int(np.sum(batch.logprob > 0))} log-probabilities are above 0, which no probability has.")
    if batch.entropy is not None and bool(np.any(batch.entropy < 0)):
        doubts.append(f"{int(np.sum(batch.entropy < 0))} entropies are negative.")
    scale = float(np.max(np.abs(batch.advantage)))
    if 0 < scale < 1e-2:
        doubts.append(
            f"The largest advantage is {scale:.2g}: if the trainer divides advantages by the number of tokens before"
            " the loss, the bounds 1 and 5 of Clip-Cov are out of reach."
        )
    return doubts


def _check(settings: Settings) -> None:
    for name in ("kl_cov_ratio", "clip_cov_ratio"):
        for ratio in getattr(settings, name):
            if not 0 < ratio <= 1:
                raise ConfigError(
                    f"{name} is {ratio:g}; a fraction above 0 and up to 1 is needed (the paper's 0.2 % is 2e-3)."
                )
    if not settings.clip_cov_lb < settings.clip_cov_ub:
        raise ConfigError(
            f"clip_cov_lb ({settings.clip_cov_lb:g}) must be below clip_cov_ub ({settings.clip_cov_ub:g})."
        )
    if any(size < 1 for size in settings.micro):
        raise ConfigError(f"micro is {', '.join(map(str, settings.micro))}; a micro-batch has at least 1 sequence.")
