"""Settings that cannot do what they say, refused before the first step with the setting to change."""

from __future__ import annotations

from typing import Any

import torch

from covent.controls import KLCov, KLCovReleased, ReferenceKL, rehearsed
from covent.errors import ConfigError
from covent.integrations.settings import CoventConfig

_REMOVE_OR_SCALE = {"clip_cov", "clip_cov_released", "top_entropy", "truncated_importance"}


def updates_per_generation(args: Any, num_iterations: int) -> float:
    """Optimizer steps on each generation batch; below 1 where an optimizer step takes in several."""
    return float(args.steps_per_generation * num_iterations / args.gradient_accumulation_steps)


def require_device(device: torch.device) -> None:
    """Refuse a device on which the exact choice cannot be made.

    Raises: ConfigError.
    """
    if device.type == "mps":
        raise ConfigError(
            "covent chooses tokens in float64, which Apple's MPS does not have. Train on the CPU: use_cpu=True."
        )


def require_settings(covent: CoventConfig, args: Any, *, num_iterations: int, is_rloo: bool) -> None:
    """Refuse settings of covent and TRL that do not go together.

    Args:
      args: TRL's config.
    Raises: ConfigError.
    """
    if not covent.controls:
        return
    rehearsed(covent.controls)
    _require_whole_window(covent, args)
    types = {each.type for each in covent.controls}
    if any(isinstance(each, KLCov | KLCovReleased) for each in covent.controls):
        _require_off_policy(args, num_iterations)
    if "exact" in {getattr(each, name, "") for each in covent.controls for name in ("kl_form", "kl_loss_type")}:
        raise ConfigError(
            "A KL of the form 'exact' sums over the vocabulary, and TRL keeps the log-probs of the sampled tokens only."
            " Use 'abs', 'k2' or 'k3'."
        )
    if "entropy_bonus" in types and (getattr(args, "entropy_coef", 0) or getattr(args, "use_adaptive_entropy", False)):
        raise ConfigError(
            "Both covent's entropy_bonus and TRL's entropy_coef or use_adaptive_entropy are on: two bonuses would add"
            " up. Switch TRL's off, or leave the control out."
        )
    if "top_entropy" in types and getattr(args, "top_entropy_quantile", 1.0) < 1:
        raise ConfigError(
            f"Both covent's top_entropy and TRL's top_entropy_quantile = {args.top_entropy_quantile:g} are on. Set"
            f" TRL's to 1.0: covent's is exact over the optimizer batch, TRL's over one micro-batch of all ranks."
        )
    _require_importance(types, args)
    for each in covent.controls:
        if isinstance(each, ReferenceKL):
            _require_reference(each, args, is_rloo=is_rloo)
    sequence = getattr(args, "importance_sampling_level", "token") == "sequence"
    if sequence and types & _REMOVE_OR_SCALE and getattr(args, "beta", 0.0):
        raise ConfigError(
            f"importance_sampling_level = 'sequence' with beta = {args.beta:g}: what {sorted(types & _REMOVE_OR_SCALE)}"
            f" takes from a token's policy term would be taken from its KL to the reference too. Set beta to 0, or"
            f" importance_sampling_level to 'token'."
        )


def _require_whole_window(covent: CoventConfig, args: Any) -> None:
    steps, accumulation = args.steps_per_generation, args.gradient_accumulation_steps
    if covent.scope != "micro" and steps % accumulation:
        raise ConfigError(
            f"scope = '{covent.scope}' needs the whole optimizer batch before its first micro-batch, and with"
            f" steps_per_generation = {steps} and gradient_accumulation_steps = {accumulation} part of it has not been"
            f" sampled then. Make steps_per_generation a multiple of gradient_accumulation_steps, or use scope='micro'."
        )


def _require_off_policy(args: Any, num_iterations: int) -> None:
    updates = updates_per_generation(args, num_iterations)
    if updates <= 1:
        raise ConfigError(
            f"KL-Cov cannot act here: each generation serves {updates:g} optimizer steps (steps_per_generation ="
            f" {args.steps_per_generation}, num_iterations = {num_iterations}, gradient_accumulation_steps ="
            f" {args.gradient_accumulation_steps}), so the policy is always the one that sampled, the log ratio is 0"
            f" and the KL term has no gradient. The paper takes 8 optimizer steps: set steps_per_generation ="
            f" {8 * args.gradient_accumulation_steps}, or num_iterations to 2 or more."
        )


def _require_importance(types: set[str], args: Any) -> None:
    if "truncated_importance" not in types:
        return
    if not getattr(args, "use_vllm", False):
        raise ConfigError(
            "truncated_importance corrects for another engine's log-probs, and without use_vllm the model samples"
            " itself. Leave the control out."
        )
    if getattr(args, "vllm_importance_sampling_correction", True):
        raise ConfigError(
            "Both truncated_importance and TRL's vllm_importance_sampling_correction are on: the weights would be"
            " squared. Set vllm_importance_sampling_correction=False, or leave the control out."
        )


def _require_reference(control: ReferenceKL, args: Any, *, is_rloo: bool) -> None:
    if is_rloo:
        raise ConfigError(
            "RLOO in TRL takes the KL to the reference policy off the reward (beta), and its loss never sees the"
            " reference. Set beta in RLOOConfig instead of the control reference_kl."
        )
    if args.beta != control.kl_loss_coef:
        raise ConfigError(
            f"reference_kl has kl_loss_coef = {control.kl_loss_coef:g} and GRPOConfig has beta = {args.beta:g}. TRL"
            f" loads and scores the reference policy only for a beta: set both to the same number."
        )
