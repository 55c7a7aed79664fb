"""Settings that cannot do what they say, refused before the first step with the setting to change."""

from __future__ import annotations

from typing import Any

from covent.controls import KLCov, KLCovReleased, ReferenceKL, rehearsed
from covent.errors import ConfigError
from covent.integrations.settings import CoventConfig
from covent.integrations.verl.settings import LOSSES


def updates_per_rollout(config: Any) -> float:
    """Optimizer steps on each rollout."""
    actor = config.actor_rollout_ref.actor
    return float(config.data.train_batch_size / actor.ppo_mini_batch_size * actor.ppo_epochs)


def require_settings(covent: CoventConfig, config: Any) -> None:
    """Refuse settings of covent and verl that do not go together.

    Args:
      config: all of verl's.
    Raises: ConfigError.
    """
    actor = config.actor_rollout_ref.actor
    mode = actor.policy_loss.loss_mode
    if mode not in (*LOSSES, "vanilla"):
        raise ConfigError(
            f"policy_loss.loss_mode = {mode}: covent's trainer knows {', '.join(LOSSES)} and vanilla, which it only"
            " measures. Choose one of these, or trainer.v1.trainer_mode=sync."
        )
    if not covent.controls:
        return
    rehearsed(covent.controls)
    types = {each.type for each in covent.controls}
    if any(isinstance(each, KLCov | KLCovReleased) for each in covent.controls):
        _require_off_policy(config)
    if "exact" in {getattr(each, name, "") for each in covent.controls for name in ("kl_form", "kl_loss_type")}:
        raise ConfigError(
            "A KL of the form 'exact' sums over the vocabulary, and verl hands its loss the log-probs of the sampled"
            " tokens only. Use 'abs', 'k2' or 'k3'."
        )
    if "entropy_bonus" in types and actor.entropy_coeff:
        raise ConfigError(
            f"Both covent's entropy_bonus and actor.entropy_coeff = {actor.entropy_coeff:g} are on: two bonuses would"
            " add up. Set entropy_coeff to 0, or leave the control out."
        )
    if "truncated_importance" in types:
        _require_sampler(config)
    if any(isinstance(each, ReferenceKL) for each in covent.controls) and not (
        actor.use_kl_loss and actor.kl_loss_coef == 0
    ):
        raise ConfigError(
            "reference_kl needs the reference policy's log-probs, which verl computes for its own KL loss, and that"
            " must not be added twice. Set actor.use_kl_loss=true and actor.kl_loss_coef=0."
        )


def _require_off_policy(config: Any) -> None:
    updates = updates_per_rollout(config)
    if updates <= 1:
        actor, prompts = config.actor_rollout_ref.actor, config.data.train_batch_size
        raise ConfigError(
            f"KL-Cov cannot act here: each rollout serves {updates:g} optimizer steps (data.train_batch_size ="
            f" {prompts}, actor.ppo_mini_batch_size = {actor.ppo_mini_batch_size}, actor.ppo_epochs ="
            f" {actor.ppo_epochs}), so the policy is always the one that sampled, the log ratio is 0 and the KL term"
            f" has no gradient. The paper takes 8: set ppo_mini_batch_size = {max(1, prompts // 8)}."
        )


def _require_sampler(config: Any) -> None:
    rollout = config.actor_rollout_ref.rollout
    if not rollout.calculate_log_probs:
        raise ConfigError(
            "truncated_importance corrects for the sampling engine's log-probs, which verl keeps only with"
            " actor_rollout_ref.rollout.calculate_log_probs=true. Set it, or leave the control out."
        )
    correction = config.algorithm.get("rollout_correction") or {}
    if correction.get("rollout_is"):
        raise ConfigError(
            "Both truncated_importance and algorithm.rollout_correction.rollout_is are on: the weights would be"
            " squared. Leave one out."
        )
