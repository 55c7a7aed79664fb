"""verl's settings of an actor, read as covent's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from covent.controls import PPOClip
from covent.errors import ConfigError
from covent.integrations.settings import CoventConfig, settings_of

CLIP_COV, KL_COV, ANY = "covent_clip_cov", "covent_kl_cov", "covent"
"""The losses that covent registers in verl."""

LOSSES = (CLIP_COV, KL_COV, ANY)

_ALL_RESPONSES = 2**31 - 1
"""Responses of a micro-batch for a control that takes what it is given as one."""


def covent_config(actor: Any) -> CoventConfig:
    """What `actor_rollout_ref.actor` says to covent.

    Args:
      actor: verl's settings, as its dataclass or as Hydra's.
    Returns: no control where the loss is verl's own.
    Raises: ConfigError that lists every problem with its place.
    """
    loss = actor.policy_loss
    names = CoventConfig.model_fields.keys()
    given = {name: _plain(loss.get(name)) for name in names if loss.get(name) is not None}
    mode = loss.get("loss_mode", "vanilla")
    control = given.pop("control", None)
    if mode == ANY:
        if control is None:
            raise ConfigError(
                f"policy_loss.loss_mode = {ANY} executes policy_loss.control, and there is none. Set"
                " +actor_rollout_ref.actor.policy_loss.control={type: kl_cov} or a list of controls."
            )
        return settings_of(given | {"control": control})
    if control is not None:
        raise ConfigError(
            f"policy_loss.control is set, and policy_loss.loss_mode = {mode} does not read it. Set loss_mode = {ANY},"
            " or leave the control out."
        )
    if mode not in LOSSES:
        return settings_of(given)
    released = given.get("scope", "window") == "micro"
    own = _clip_cov(actor, released) if mode == CLIP_COV else _kl_cov(actor, released)
    return settings_of(given | {"control": own})


def clip_of(actor: Any) -> PPOClip:
    """verl's own clip, for controls that say nothing of one; its dual clip is always on."""
    low, high = _range(actor)
    return PPOClip(clip_ratio_low=low, clip_ratio_high=high, clip_ratio_c=float(actor.clip_ratio_c))


def _range(actor: Any) -> tuple[float, float]:
    low, high = (getattr(actor, name) for name in ("clip_ratio_low", "clip_ratio_high"))
    return tuple(float(actor.clip_ratio if each is None else each) for each in (low, high))  # type: ignore[return-value]  # a pair


def _clip_cov(actor: Any, released: bool) -> dict[str, Any]:
    low, high = _range(actor)
    own = {name: actor.policy_loss.get(name) for name in ("clip_cov_ratio", "clip_cov_lb", "clip_cov_ub")}
    return _control("clip_cov", own | {"clip_ratio_low": low, "clip_ratio_high": high}, released)


def _kl_cov(actor: Any, released: bool) -> dict[str, Any]:
    own = {name: actor.policy_loss.get(name) for name in ("kl_cov_ratio", "ppo_kl_coef")}
    return _control("kl_cov", own, released)


def _control(name: str, settings: Mapping[str, Any], released: bool) -> dict[str, Any]:
    """In the scope `micro`, what verl and the paper's code do: at least one token of each micro-batch."""
    if not released:
        return {"type": name, **settings}
    return {"type": f"{name}_released", **settings, "responses_per_micro_batch": _ALL_RESPONSES}


def _plain(value: Any) -> Any:
    """Hydra's lists and dictionaries as Python's."""
    if hasattr(value, "items"):
        return {str(name): _plain(each) for name, each in value.items()}
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return [_plain(each) for each in value]
    return value
