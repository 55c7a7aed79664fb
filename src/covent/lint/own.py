"""covent's own settings in a config of an engine: names of controls, of their settings and of the scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from covent.errors import suggestion
from covent.lint.findings import Finding, Level
from covent.lint.keys import Schema, names, unknown_settings
from covent.lint.settings import Setting, Settings

# The linter needs no torch, and the controls do; tests/lint/test_own.py holds the table to them.
CONTROLS = {
    "ppo_clip": names("type clip_ratio_low clip_ratio_high clip_ratio_c"),
    "clip_cov": names("type clip_cov_ratio clip_cov_lb clip_cov_ub clip_ratio_low clip_ratio_high"),
    "kl_cov": names("type kl_cov_ratio ppo_kl_coef kl_form"),
    "top_entropy": names("type top_entropy_quantile"),
    "entropy_bonus": names("""
        type entropy_coef use_adaptive_entropy entropy_target entropy_coef_delta entropy_coef_min entropy_coef_max
        top_entropy_quantile
    """),
    "reference_kl": names("type kl_loss_coef kl_loss_type"),
    "truncated_importance": names("type rollout_is rollout_is_threshold"),
    "clip_cov_released": names("""
        type clip_cov_ratio clip_cov_lb clip_cov_ub clip_ratio_low clip_ratio_high responses_per_micro_batch
    """),
    "kl_cov_released": names("type kl_cov_ratio ppo_kl_coef responses_per_micro_batch"),
}
"""The settings of each control."""
TRAINER = names("control scope name run_folder accuracy right_from law_every samples_kept seed")
"""Those of `covent.integrations.settings.CoventConfig`."""
SCOPES = ("window", "rank", "micro")
_REFUSAL = "covent refuses a name or a value that it does not have, when the trainer is made."
_SOURCE = "covent.controls, covent.integrations.settings"


def own_faults(settings: Settings, control: str, *, section: str = "", scope: str = "") -> Iterator[Finding]:
    """Errors in covent's own part of a config.

    Args:
      settings: with one control, not a list.
      control: the section of the control.
      section: with covent's other settings, if it has nothing else.
      scope: the setting that says over what tokens are chosen.
    """
    kind, where = settings.text(f"{control}.type", None), settings.text(scope, None) if scope else None
    sections = {section: TRAINER} if section else {}
    if kind.value in CONTROLS:
        sections[control] = CONTROLS[kind.value]
    elif kind.value is not None:
        yield _wrong(kind, f"covent has no control '{kind.value}'. {suggestion(kind.value, list(CONTROLS))}", CONTROLS)
    yield from unknown_settings(settings, Schema(sections, frozenset(sections), _REFUSAL, _SOURCE))
    if where is not None and where.value is not None and where.value not in SCOPES:
        yield _wrong(where, f"covent has no scope '{where.value}'.", SCOPES)


def _wrong(setting: Setting[str], text: str, known: Iterable[str]) -> Finding:
    return Finding(
        level=Level.ERROR,
        rule="unknown-setting",
        setting=str(setting),
        text=text,
        reason=_REFUSAL,
        instead=f"one of {', '.join(known)}",
        source=_SOURCE,
    )
