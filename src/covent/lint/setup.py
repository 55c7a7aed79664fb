"""What the engines' configs have in common once they are read: one description for every rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from covent.lint.settings import Setting

Control = Literal["clip_cov", "kl_cov"]
Scope = Literal["micro-batch", "rank", "window"]
Scale = Literal["group_std", "centred", "whitened", "unknown"]

CONTROLS: dict[str | None, Control] = {"clip_cov": "clip_cov", "kl_cov": "kl_cov"}
"""The controls of the paper, by the name that verl, SkyRL and covent have for them."""
OWN_SCOPES: dict[str | None, Scope] = {"micro": "micro-batch", "rank": "rank", "window": "window"}
"""Over what tokens is chosen, by covent's names."""


@dataclass(frozen=True)
class Advantage:
    """How large the advantages are that the covariance is taken of."""

    setting: Setting[str]
    scale: Scale
    """Divided by the spread of their group, centred only, or divided by the spread of the batch."""
    divided_by: tuple[float, float | None] | None = None
    """What the engine divides them by before the loss: responses, and tokens of each (None: those it has)."""

    def divisor(self, mean_response: float) -> float:
        """What the engine divides the advantages by, where responses have this many tokens in the mean."""
        if self.divided_by is None:
            return 1.0
        responses, tokens = self.divided_by
        return responses * (mean_response if tokens is None else tokens)


@dataclass(frozen=True)
class Batch:
    """How responses are spread over updates, ranks and micro-batches; None where it is not known."""

    prompts: Setting[int]
    """A rollout's prompts."""
    group_size: Setting[int]
    """Responses to each prompt."""
    responses_per_update: int | None
    updates_per_rollout: int | None
    update_keys: str
    """The settings that decide how many updates a rollout gets."""
    is_stale: bool
    """Whether the old log-probs are the sampling engine's own, so that no update finds a ratio of exactly 1."""
    ranks: Setting[int]
    """Data-parallel ranks: GPUs over those that share one sequence or one model."""
    micro_responses: Setting[int] | None
    """Responses in a micro-batch of one rank, where it is set as such."""
    micro_tokens: Setting[int] | None
    """Tokens, prompts included, that are packed into one instead."""
    max_response: Setting[int]
    max_prompt: Setting[int]


@dataclass(frozen=True)
class EntropyLog:
    """What the engine logs as entropy."""

    metric: str | None
    """Its name; None: it logs none."""
    what: str
    """Its definition; or why there is none."""
    source: str
    instead: str = ""


@dataclass(frozen=True)
class Setup:
    """What a config asks of an engine, as far as entropy and its control go."""

    engine: str
    label: str
    """The engine and its version, for people."""
    loss: Setting[str]
    control: Control | None
    scope: Scope
    floor_of_one: bool
    """Whether each choice takes a token at least."""
    share: Setting[float] | None
    share_unit: float
    """What one unit of `share` is as a fraction: 1, or 0.01 for percent."""
    unread_shares: tuple[Setting[float], ...]
    """Shares of a control that is off."""
    band: tuple[Setting[float], Setting[float]] | None
    kl_coef: Setting[float] | None
    clip: tuple[Setting[float], Setting[float]]
    """The PPO clip: how far below 1 and above 1 the ratio may go."""
    clip_counts: bool
    """Whether this loss reads the PPO clip at all."""
    advantage: Advantage
    batch: Batch
    entropy_coef: Setting[float]
    reference_kl: Setting[float] | None
    """Coefficient of a KL to the reference model, if one is on."""
    entropy: EntropyLog
    temperature: Setting[float]
    selection_source: str
    """Where the engine's selection is written."""

    @property
    def share_frac(self) -> float | None:
        """The share of tokens that the control acts on, as a fraction."""
        if self.share is None or self.share.value is None:
            return None
        return self.share.value * self.share_unit
