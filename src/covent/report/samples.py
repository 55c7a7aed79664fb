"""Sample rollouts for the page: tokens shaded by the entropy of the policy where each was drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from covent.report import numbers as n
from covent.store.reader import Run
from covent.store.schema import SampleRow

PER_STEP = 3
"""Samples of one rollout step that are shown."""

FULL_SHADE_NATS = 1.0
"""Entropy of the darkest shade. The scale is the same for all samples, so that a collapse can be seen."""


@dataclass(frozen=True)
class ShadedToken:
    """A token, how dark it is in [0, 1], and its numbers as text."""

    text: str
    shade: float
    title: str
    selected: bool


@dataclass(frozen=True)
class ShownSample:
    """One response as the page shows it."""

    step: int
    prompt: str
    answer: str
    verdict: str
    reward: str
    advantage: str
    mean_entropy: str
    filtered: bool
    """Whether the group was left out of the updates, so that its tokens have no covariance."""
    tokens: list[ShadedToken]


def shown_samples(run: Run) -> list[ShownSample]:
    """The first samples of the first and of the last rollout step that recorded any."""
    if not run.samples:
        return []
    steps = sorted({row.step for row in run.samples})
    wanted = [steps[0]] if len(steps) == 1 else [steps[0], steps[-1]]
    rows = [row for step in wanted for row in [row for row in run.samples if row.step == step][:PER_STEP]]
    return [_shown(row) for row in rows]


def shade(entropy: float) -> float:
    """Darkness of a token: the square root of its entropy over 1 nat, at most 1, so that small entropies still show."""
    return math.sqrt(min(1.0, max(0.0, entropy) / FULL_SHADE_NATS))


def _shown(row: SampleRow) -> ShownSample:
    covariances = row.covariances if row.covariances is not None else [None] * len(row.tokens)
    selected = row.selected if row.selected is not None else [False] * len(row.tokens)
    columns = zip(row.tokens, row.logprobs, row.entropies, covariances, selected, strict=False)
    tokens = []
    for text, logprob, entropy, covariance, chosen in columns:
        title = f"log-prob {n.plain(logprob)} · entropy {n.nats(entropy)} · covariance {n.plain(covariance)}"
        tokens.append(ShadedToken(text, shade(entropy), title + (" · chosen by the control" if chosen else ""), chosen))
    return ShownSample(
        step=row.step,
        prompt=row.prompt,
        answer=row.answer,
        verdict=row.verdict,
        reward=n.plain(row.reward, 2),
        advantage=n.signed(row.advantage),
        mean_entropy=n.nats(sum(row.entropies) / len(row.entropies) if row.entropies else None),
        filtered=row.covariances is None,
        tokens=tokens,
    )
