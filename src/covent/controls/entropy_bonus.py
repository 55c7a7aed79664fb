"""An entropy bonus in the loss, of fixed strength or steered to a target: TRL's names and semantics."""

from dataclasses import replace
from math import inf
from typing import Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covent.controls.top_entropy import top_entropy_tokens
from covent.core.plan import Measured, Plan, no_selection, unclipped_plan
from covent.core.reduce import weight_of_part
from covent.core.shapes import Tensor


class EntropyBonus(BaseModel):
    """Settings of the bonus, with TRL's names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    type: Literal["entropy_bonus"] = "entropy_bonus"
    entropy_coef: float = 0.0
    """Weight of the mean entropy per token in the loss; with use_adaptive_entropy the weight of the first update."""
    use_adaptive_entropy: bool = False
    """Raise the weight after each optimizer step with entropy at or below entropy_target, lower it after any other."""
    entropy_target: float = Field(default=0.2, ge=0)
    """Nats per token. The bonus is on only after a step at or below it. Reasoning models run at 0.05 to 0.5."""
    entropy_coef_min: float = 0.0
    """The adaptive weight falls no lower."""
    entropy_coef_max: float = 1.0
    """The adaptive weight rises no higher."""
    entropy_coef_delta: float = Field(default=0.005, gt=0)
    """How far the weight moves in one optimizer step."""
    top_entropy_quantile: float = Field(default=1.0, ge=0, le=1)
    """Bonus and target take only this share of the tokens, those of highest entropy. TRL ties it to the 80/20 mask of
    the policy term; set both to the same value for that."""

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Self:
        if self.entropy_coef_min > self.entropy_coef_max:
            raise ValueError(
                f"entropy_coef_min ({self.entropy_coef_min:g}) must not be above entropy_coef_max"
                f" ({self.entropy_coef_max:g})"
            )
        return self


class EntropyCoefState(NamedTuple):
    """What the adaptive bonus remembers between optimizer steps; two numbers to save in a checkpoint."""

    entropy_coef: float
    last_entropy: float = inf
    """Mean entropy of the last optimizer step; infinite before the first, so that the bonus is off there."""


def first_state(settings: EntropyBonus) -> EntropyCoefState:
    """Before the first optimizer step."""
    return EntropyCoefState(settings.entropy_coef)


def next_state(state: EntropyCoefState, settings: EntropyBonus, entropy: float) -> EntropyCoefState:
    """After an optimizer step.

        coef + delta if entropy <= target, else coef - delta, within [min, max]

    Args:
      state: with which the step was made.
      settings: see `EntropyBonus`; without use_adaptive_entropy nothing changes.
      entropy: mean per token of that optimizer batch, nats, as `bonus_entropy` measures it.
    Source: Skywork-OR1, arXiv 2505.22312; TRL's `use_adaptive_entropy`.

    Example:
      >>> settings = EntropyBonus(entropy_coef=0.01, use_adaptive_entropy=True, entropy_target=0.3)
      >>> next_state(first_state(settings), settings, entropy=0.2)
      EntropyCoefState(entropy_coef=0.015, last_entropy=0.2)
    """
    if not settings.use_adaptive_entropy:
        return state
    if entropy <= settings.entropy_target:
        coef = min(state.entropy_coef + settings.entropy_coef_delta, settings.entropy_coef_max)
    else:
        coef = max(state.entropy_coef - settings.entropy_coef_delta, settings.entropy_coef_min)
    return EntropyCoefState(coef, entropy)


def applied_coef(state: EntropyCoefState, settings: EntropyBonus) -> float:
    """Weight of the bonus in this optimizer step; adaptive: 0 while the last entropy was above the target."""
    if settings.use_adaptive_entropy and state.last_entropy > settings.entropy_target:
        return 0.0
    return state.entropy_coef


def bonus_entropy(measured: Measured, settings: EntropyBonus) -> float:
    """Mean entropy per token over the tokens that the bonus takes, nats: what the target is compared with."""
    return measured.mean(measured.entropies, _tokens(measured, settings))


def entropy_bonus(measured: Measured, settings: EntropyBonus, key: int, state: EntropyCoefState | None = None) -> Plan:
    """The plan of the bonus: loss = policy loss - coef x mean entropy over its tokens.

    The mean is over tokens for every aggregation of the policy term, as in TRL.

    Args:
      measured: the whole optimizer batch.
      settings: see `EntropyBonus`.
      key: unused; nothing is drawn at random.
      state: of the adaptive bonus; None for the first optimizer step.
    Source: arXiv 2505.22617, section 4.1 (which finds that it fails); TRL's `entropy_coef`. Differs: TRL averages each
      micro-batch apart; here the mean is over the optimizer batch.
    """
    coef = applied_coef(state or first_state(settings), settings)
    tokens = _tokens(measured, settings)
    weight = coef * weight_of_part(count=measured.num_tokens, num_part=measured.total_of(tokens))
    note = ""
    if settings.use_adaptive_entropy and coef == 0:
        note = "The entropy bonus was off: the entropy of the last step was above its target, or its weight is 0."
    return replace(
        unclipped_plan(measured, no_selection(measured, settings.type, note)),
        entropy_weight=tokens.to(measured.logprobs.dtype) * weight,
    )


def _tokens(measured: Measured, settings: EntropyBonus) -> Tensor:
    if settings.top_entropy_quantile == 1:
        return measured.mask
    return top_entropy_tokens(measured, settings.top_entropy_quantile)
