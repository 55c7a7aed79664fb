"""What each engine means by entropy, so that two logs are compared only where they speak of one quantity.

The table was read from the engines' sources in the summer of 2026. A name that two engines share carries the doubt in
its caution.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from covent.errors import ConfigError
from covent.readings import EntropyReading

PARTS = ("estimator", "temperature", "policy", "weighting", "tokens")
"""The parts of a definition, as in `EntropyReading`."""


class EntropyDefinition(BaseModel):
    """The definition of a logged entropy as far as the log and its engine give it; None is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: Literal["exact", "sampled"] | None = None
    temperature: float | None = Field(default=None, gt=0)
    policy: Literal["sampler", "learner", "old", "reference"] | None = None
    weighting: Literal["response", "token"] | None = None
    tokens: Literal["all responses", "kept responses", "probe states", "gradient tokens"] | None = None

    @property
    def unknown(self) -> list[str]:
        """Names of the parts that are not known."""
        return [part for part in PARTS if getattr(self, part) is None]

    @property
    def text(self) -> str:
        """One line in the form of `EntropyReading.definition`, with `?` for what is not known.

        Example:
            >>> EntropyDefinition(estimator="exact", policy="learner", weighting="token").text
            'exact · T=? · learner policy · mean over tokens · token set ?'
        """
        temperature = "?" if self.temperature is None else f"{self.temperature:g}"
        weighting = "weighting ?" if self.weighting is None else f"mean over {self.weighting}s"
        return (
            f"{self.estimator or 'estimator ?'} · T={temperature} · {self.policy or '?'} policy · {weighting}"
            f" · {self.tokens or 'token set ?'}"
        )

    def reading(self, value: float) -> EntropyReading:
        """A logged mean as an `EntropyReading`. Its count is 1: a log gives the mean and not how many it is over.

        Args:
            value: logged entropy, nats.

        Raises:
            ConfigError: a part of the definition is unknown.
        """
        if self.unknown:
            raise ConfigError(
                f"The log does not say the {', '.join(self.unknown)} of its entropy ({self.text}), so it is no"
                " EntropyReading. Declare what you know, for example --temperature 1."
            )
        return EntropyReading.model_validate(
            {"sum": value, "count": 1, **{part: getattr(self, part) for part in PARTS}}
        )

    def conflicts(self, other: EntropyDefinition) -> list[str]:
        """What two definitions are known to disagree in, as phrases such as `weighting token / response`."""
        pairs = ((part, getattr(self, part), getattr(other, part)) for part in PARTS)
        return [
            f"{part} {mine} / {theirs}"
            for part, mine, theirs in pairs
            if mine is not None and theirs is not None and mine != theirs
        ]


class EntropyMetric(BaseModel):
    """A name under which an engine logs its entropy, and what it means there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: str
    pattern: str
    """Regular expression over the whole metric name."""
    definition: EntropyDefinition
    caution: str = ""
    """What a reader of the number should know."""

    def matches(self, name: str) -> bool:
        """Whether a metric of this name is meant."""
        return re.fullmatch(self.pattern, name) is not None


def _exact(
    policy: str, weighting: str, tokens: str = "all responses", temperature: float | None = None
) -> EntropyDefinition:
    return EntropyDefinition.model_validate(
        {
            "estimator": "exact",
            "temperature": temperature,
            "policy": policy,
            "weighting": weighting,
            "tokens": tokens,
        }
    )


_SAMPLING_T = "It is taken at the sampling temperature, which the log does not give: declare it with --temperature."

ENTROPY_METRICS = (
    EntropyMetric(
        engine="verl",
        pattern=r"actor/entropy",
        definition=_exact("old", "token"),
        caution="verl reduces it with loss_agg_mode: a mean over tokens only for token-mean, the default. "
        + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="verl",
        pattern=r"actor/entropy_loss",
        definition=_exact("learner", "token", "gradient tokens"),
        caution="It is taken inside the update, while the policy moves. " + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="paper",
        pattern=r"train_entropy/all",
        definition=_exact("old", "response", "kept responses", 1.0),
        caution="Groups that are all right or all wrong were filtered out before it was taken.",
    ),
    EntropyMetric(
        engine="SkyRL",
        pattern=r"(policy/)?policy_entropy",
        definition=_exact("learner", "token", "gradient tokens"),
        caution="SkyRL averages the means of micro-batches, so short ones weigh too much. " + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="ROLL",
        pattern=r"critic/entropy/mean",
        definition=_exact("old", "token", temperature=1.0),
        caution="ROLL writes 0 where old log-probabilities are skipped.",
    ),
    EntropyMetric(
        engine="prime-rl",
        pattern=r"entropy/all/mean",
        definition=_exact("learner", "token", "gradient tokens"),
        caution=_SAMPLING_T,
    ),
    EntropyMetric(
        engine="open-instruct",
        pattern=r"policy/entropy_avg",
        definition=_exact("learner", "response"),
        caution=_SAMPLING_T,
    ),
    EntropyMetric(
        engine="ms-swift",
        pattern=r"(train/)?entropy/mean",
        definition=_exact("learner", "response"),
        caution=_SAMPLING_T,
    ),
    EntropyMetric(
        engine="NeMo-RL",
        pattern=r"(train/)?approx_entropy",
        definition=EntropyDefinition(
            estimator="sampled", policy="learner", weighting="token", tokens="gradient tokens"
        ),
        caution="An estimate with importance weights and a high variance. " + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="tinker",
        pattern=r"optim/entropy",
        definition=EntropyDefinition(estimator="sampled", policy="sampler", weighting="token", tokens="all responses"),
        caution="Minus the mean log-probability of the sampled tokens: an estimate. " + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="slime",
        pattern=r"train/entropy_loss",
        definition=_exact("learner", "response", "gradient tokens"),
        caution="OpenRLHF may log the same name with another meaning: before temperature, a mean over tokens. "
        + _SAMPLING_T,
    ),
    EntropyMetric(
        engine="TRL",
        pattern=r"(train/)?entropy",
        definition=_exact("learner", "token"),
        caution=_SAMPLING_T,
    ),
    EntropyMetric(
        engine="prime-rl", pattern=r"entropy/[^/]+/mean", definition=_exact("learner", "token", "gradient tokens")
    ),
    EntropyMetric(
        engine="",
        pattern=r"(mean_|policy_|token_)?(entropy|H)(_nats)?",
        definition=EntropyDefinition(),
        caution="The log does not say which entropy this is.",
    ),
)
"""In order of preference: where a log holds several, the first is meant and the choice is said."""

SIGNATURES = {
    "TRL": r"(train/)?(frac_reward_zero_std|completions/mean_length|reward_std)|eval[_/]rewards/.+/mean",
    "verl": r"(actor/(pg_loss|ppo_kl|pg_clipfrac)|critic/score/mean|val-core/.*)",
}
"""Metrics that only one engine logs. They decide whether the bare name `entropy` is TRL's."""


def engine_of(names: list[str]) -> str:
    """The engine that a log's metric names give away; empty if none does."""
    for engine, pattern in SIGNATURES.items():
        if any(re.fullmatch(pattern, name) for name in names):
            return engine
    return ""
