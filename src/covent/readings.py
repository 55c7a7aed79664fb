"""Numbers that say what they are: means that merge as (sum, count), and entropy with its definition attached.

Everything that measures, stores, reports or reads logs speaks these types, so a mean of means cannot happen and two
entropies of different definition cannot be compared unnoticed. No torch here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covent.errors import ConfigError


class Mean(BaseModel):
    """A mean carried as (sum, count). `value` is None when nothing was counted: unknown is not zero."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sum: float
    count: int = Field(ge=0)

    @property
    def value(self) -> float | None:
        return self.sum / self.count if self.count else None

    def __add__(self, other: Self) -> Self:
        return self.model_copy(update={"sum": self.sum + other.sum, "count": self.count + other.count})


class EntropyReading(Mean):
    """A mean policy entropy in nats, together with everything needed to know which entropy it is.

    The paper's definition (arXiv 2505.22617, Eq. 5) is `estimator="exact"`, `temperature=1`, `weighting="response"`,
    `tokens="all responses"`: the exact full-vocabulary entropy, averaged over the tokens of a response, then over the
    responses. `count` is the number of responses (weighting "response") or of tokens (weighting "token").
    """

    estimator: Literal["exact", "sampled"]
    temperature: float = Field(gt=0)
    policy: Literal["sampler", "learner", "old", "reference"]
    weighting: Literal["response", "token"]
    tokens: Literal["all responses", "kept responses", "probe states", "gradient tokens"]

    @property
    def definition(self) -> str:
        """The definition as one line, for example `exact · T=1 · learner · mean over response · all responses`."""
        return (
            f"{self.estimator} · T={self.temperature:g} · {self.policy} policy · mean over {self.weighting}s"
            f" · {self.tokens}"
        )

    def __add__(self, other: Self) -> Self:
        if self.definition != other.definition:
            raise ConfigError(
                f"Two entropies of different definition cannot be merged: '{self.definition}' and"
                f" '{other.definition}'. Convert one of them first."
            )
        return super().__add__(other)


COVARIANCE_EDGES = (
    *(-(10.0 ** (place / 4)) for place in range(8, -13, -1)),
    *(10.0 ** (place / 4) for place in range(-12, 9)),
)
"""Edges between the bins of `CovarianceTail.histogram`: four a decade from 0.001 to 100, at both signs. Bin i holds
edge[i-1] < c <= edge[i]; the first and the last bin are open, and the middle one holds what is next to 0."""


class CovarianceTail(BaseModel):
    """Distribution of the token covariance c = (log pi - mean)(A - mean) over the tokens of one optimizer batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    """Mean over tokens: the covariance of Theorem 2."""
    std: float
    quantiles: dict[str, float]
    """Keys min, p01, p50, p90, p99, p99.9, max."""
    top_means: dict[str, float | None]
    """Mean covariance within the top share; keys 0.0002, 0.002, 0.02, 0.2, 0.5 (the paper's Table 1); None where the
    share is less than one token."""
    positive_shares: dict[str, float | None]
    """Share of the sum of positive covariances that the top share holds; same keys."""
    histogram: list[int] | None = None
    """Tokens in each bin of `COVARIANCE_EDGES`; None in folders of an older covent."""

    @model_validator(mode="after")
    def _has_every_bin(self) -> Self:
        if self.histogram is not None and len(self.histogram) != len(COVARIANCE_EDGES) + 1:
            raise ValueError(f"histogram has {len(self.histogram)} bins, not {len(COVARIANCE_EDGES) + 1}")
        return self


class PolarityReading(BaseModel):
    """Polarity of the tokens of one optimizer batch, p = -A (log pi + H): the first-order effect of each sampled token
    on the entropy of its own state under a natural-gradient step, in nats for each unit of step size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_tokens: int
    num_raising: int
    """Tokens with p > 0: their update raises entropy."""
    num_lowering: int
    """Tokens with p < 0."""
    raising: float
    """Sum of the positive p."""
    lowering: float
    """Sum of the negative p, at most 0. The mean over tokens is (raising + lowering) / num_tokens."""


class ControlReading(BaseModel):
    """What a control asked for and what it did in one optimizer step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    asked_frac: float | None
    """Share of tokens that the setting asks for; None for a control without selection."""
    num_tokens: int
    """Tokens that carry gradient: the population of the selection."""
    num_candidates: int | None
    """Tokens that were eligible (Clip-Cov: inside the band and not cut by the PPO clip)."""
    num_selected: int
    took_all_candidates: bool
    """True when every candidate was taken, so that the share no longer decides."""
    note: str = ""
    """A sentence when something is out of the ordinary, for example that the KL term has no gradient on-policy."""


class ProbeReading(BaseModel):
    """Entropy change of one optimizer step on the fixed probe states, nats: three numbers side by side."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_states: int
    entropy_before: float
    predicted_theorem1: float
    """Before the step: -lr * coverage * Cov(log pi, pi A) over the tokens of the optimizer batch, where coverage is the
    share of the rollout's tokens that carry gradient: in filtered groups the advantage is 0, and so is the change."""
    predicted_theorem2: float
    """Before the step: -lr * coverage * Cov(log pi, A) over the tokens of the optimizer batch."""
    accounted: float
    """After the step, Lemma 1: mean over states of -Cov_pi(log pi, z_after - z_before)."""
    observed: float
    """After the step: mean over states of H_after - H_before."""
