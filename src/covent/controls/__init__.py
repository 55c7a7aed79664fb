"""Entropy controls: one file each, a pure function `(Measured, settings, key) → Plan`.

To add a published control: a settings model with a new `type`, a function that returns a plan, and one line in
`Control` and `_PLANS` below. Nothing else changes, in the embedded trainer or in an integration. A control whose
strength changes over a run has a state machine too, with one line in `_STATES`: pure functions of the state before, so
that an integration can save the state and go on.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Discriminator, Field, Tag

from covent.controls.clip_cov import ClipCov, clip_cov
from covent.controls.clip_cov_released import ClipCovReleased, clip_cov_released
from covent.controls.entropy_bonus import (
    EntropyBonus,
    EntropyCoefState,
    bonus_entropy,
    entropy_bonus,
    first_state,
    next_state,
)
from covent.controls.kl_cov import KLCov, kl_cov
from covent.controls.kl_cov_released import KLCovReleased, kl_cov_released
from covent.controls.ppo_clip import PPOClip, ppo_clip
from covent.controls.reference_kl import ReferenceKL, reference_kl
from covent.controls.top_entropy import TopEntropy, top_entropy
from covent.controls.truncated_importance import TruncatedImportance, truncated_importance
from covent.core.keys import TokenIdentity
from covent.core.plan import Measured, Plan, compose

AnyControl = (
    PPOClip
    | ClipCov
    | KLCov
    | TopEntropy
    | EntropyBonus
    | ReferenceKL
    | TruncatedImportance
    | ClipCovReleased
    | KLCovReleased
)

Control = Annotated[AnyControl, Field(discriminator="type")]
"""The settings of any control, told apart by `type`."""

ONE, SEVERAL = "one control", "several controls"
"""The branches of the setting below, as pydantic names them in the place of an error."""

OneOrSeveralControls = Annotated[
    Annotated[Control, Tag(ONE)] | Annotated[tuple[Control, ...], Field(min_length=1), Tag(SEVERAL)],
    Discriminator(lambda given: SEVERAL if isinstance(given, list | tuple) else ONE),
]
"""A setting: one control, or a list of them that act together."""

States = tuple[EntropyCoefState | None, ...]
"""What the controls of a run remember between optimizer steps, one entry a control; None for one without memory."""

_PLANS: dict[type, Callable[..., Plan]] = {
    PPOClip: ppo_clip,
    ClipCov: clip_cov,
    KLCov: kl_cov,
    TopEntropy: top_entropy,
    EntropyBonus: entropy_bonus,
    ReferenceKL: reference_kl,
    TruncatedImportance: truncated_importance,
    ClipCovReleased: clip_cov_released,
    KLCovReleased: kl_cov_released,
}


class _StateMachine(NamedTuple):
    """How a control's state begins, and how it goes on from what an optimizer batch measured."""

    first: Callable[[Any], Any]
    next: Callable[[Any, Any, Measured], Any]


_STATES: dict[type, _StateMachine] = {
    EntropyBonus: _StateMachine(
        first_state, lambda state, settings, measured: next_state(state, settings, bonus_entropy(measured, settings))
    ),
}


def plan(
    measured: Measured,
    settings: AnyControl | Sequence[AnyControl],
    key: int,
    states: States = (),
    *,
    clip: PPOClip | None = PPOClip(),  # noqa: B008 - frozen
) -> Plan:
    """The plan of one control, or the composed plan of several.

    Args:
      measured: the whole optimizer batch.
      settings: of any control, or of several.
      key: from `covent.core.keys.key(seed, purpose, optimizer step)`; decides every random choice.
      states: from `first_states` or `next_states`; may be left out for controls without memory.
      clip: of controls none of which says anything of the PPO clip, such as an entropy bonus alone. None: the plan
        then says nothing of it either, for an engine that has a clip of its own.
    Raises: ConfigError when the controls conflict.

    Example:
      >>> import torch
      >>> from covent.core.keys import TokenIdentity, key
      >>> logprobs = torch.tensor([[-0.1, -3.0, -0.2], [-2.0, -0.1, -0.1]])
      >>> sample, position = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
      >>> measured = Measured(
      ...     logprobs=logprobs,
      ...     old_logprobs=logprobs - 0.1,
      ...     entropies=torch.ones(2, 3),
      ...     advantages=torch.tensor([[1.0], [-1.0]]).expand(2, 3),
      ...     mask=torch.ones(2, 3, dtype=torch.bool),
      ...     identity=TokenIdentity(torch.zeros_like(sample), sample, position),
      ... )
      >>> made = plan(measured, KLCov(kl_cov_ratio=0.34), key(0, "control", 0))
      >>> made.chosen
      tensor([[ True, False, False],
              [ True, False, False]])
      >>> made.reading.num_selected
      2
    """
    several = _several(settings)
    made = [_plan(measured, each, key, state) for each, state in zip(several, states or _none(several), strict=True)]
    if clip is not None and not any(each.sets_clip for each in made):
        made.append(ppo_clip(measured, clip, key))
    return compose(measured, made)


def rehearsed(settings: AnyControl | Sequence[AnyControl]) -> Plan:
    """The plan for a made-up batch of two responses, so that controls that conflict are refused before any work.

    Raises: ConfigError when the controls conflict.

    Example:
      >>> rehearsed(KLCov()).kl_form
      'abs'
    """
    column = torch.tensor([[-0.5, -1.0], [-2.0, -0.1]])
    rows = torch.tensor([[0, 0], [1, 1]])
    measured = Measured(
        logprobs=column,
        old_logprobs=column - 0.1,
        entropies=-column,
        advantages=torch.tensor([[1.0, 1.0], [-1.0, -1.0]]),
        mask=torch.ones_like(column, dtype=torch.bool),
        identity=TokenIdentity(rows, torch.zeros_like(rows), rows.T),
        sampler_logprobs=column - 0.1,
        reference_logprobs=column - 0.2,
    )
    return plan(measured, settings, 0, first_states(settings))


def first_states(settings: AnyControl | Sequence[AnyControl]) -> States:
    """The states before the first optimizer step."""
    return tuple(_STATES[type(each)].first(each) if type(each) in _STATES else None for each in _several(settings))


def next_states(states: States, settings: AnyControl | Sequence[AnyControl], measured: Measured) -> States:
    """The states after an optimizer step on this batch."""
    return tuple(
        _STATES[type(each)].next(state, each, measured) if type(each) in _STATES else None
        for each, state in zip(_several(settings), states, strict=True)
    )


def _plan(measured: Measured, settings: AnyControl, key: int, state: EntropyCoefState | None) -> Plan:
    function = _PLANS[type(settings)]
    return function(measured, settings, key) if state is None else function(measured, settings, key, state)


def _several(settings: AnyControl | Sequence[AnyControl]) -> Sequence[AnyControl]:
    return settings if isinstance(settings, Sequence) else [settings]


def _none(settings: Sequence[AnyControl]) -> States:
    return (None,) * len(settings)


__all__ = [
    "ONE",
    "SEVERAL",
    "AnyControl",
    "ClipCov",
    "ClipCovReleased",
    "Control",
    "EntropyBonus",
    "EntropyCoefState",
    "KLCov",
    "KLCovReleased",
    "OneOrSeveralControls",
    "PPOClip",
    "ReferenceKL",
    "States",
    "TopEntropy",
    "TruncatedImportance",
    "clip_cov",
    "clip_cov_released",
    "entropy_bonus",
    "first_states",
    "kl_cov",
    "kl_cov_released",
    "next_states",
    "plan",
    "ppo_clip",
    "reference_kl",
    "rehearsed",
    "top_entropy",
    "truncated_importance",
]
