"""covent's own settings in a config of an engine: names of controls, of their settings and of the scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from covent.errors import suggestion
from covent.lint.findings import Finding, Level
from covent.lint.keys import Schema, names, unknown_settings
from covent.lint.settings import Setting, Settings, controls_of

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
CHOOSING = names("clip_cov clip_cov_released kl_cov kl_cov_released")
"""The controls that choose tokens."""
TRAINER = names("control scope name run_folder accuracy right_from law_every samples_kept seed")
"""Those of `covent.integrations.settings.CoventConfig`."""
SCOPES = ("window", "rank", "micro")
_REFUSAL = "covent refuses a name or a value that it does not have, when the trainer is made."
_SOURCE = "covent.controls, covent.integrations.settings"


def own_faults(settings: Settings, control: str, *, section: str = "", scope: str = "") -> Iterator[Finding]:
    """Errors in covent's own part of a config.

    Args:
      settings: as read.
      control: the section of the control, or the list of several.
      section: with covent's other settings, if it has nothing else.
      scope: the setting that says over what tokens are chosen.
    """
    where = settings.text(scope, None) if scope else None
    if section:
        yield from _unknown(settings, section, TRAINER)
    for each in controls_of(settings, control):
        kind = each.text(f"{control}.type", None)
        if kind.value in CONTROLS:
            yield from _unknown(each, control, CONTROLS[kind.value])
        elif kind.value is not None:
            text = f"covent has no control '{kind.value}'. {suggestion(kind.value, list(CONTROLS))}"
            yield _wrong(kind, text, CONTROLS)
        if kind.value == "entropy_bonus":
            yield from adaptive_bonus(each, f"{control}.")
    if where is not None and where.value is not None and where.value not in SCOPES:
        yield _wrong(where, f"covent has no scope '{where.value}'.", SCOPES)


def with_one_control(settings: Settings, key: str) -> Settings:
    """The same settings with the first control at `key` that chooses tokens, or else the first, as a section."""
    each = controls_of(settings, key)
    return next((one for one in each if one.values.get(f"{key}.type") in CHOOSING), each[0])


def own_entropy_coef(settings: Settings, control: str) -> Setting[float] | None:
    """The coefficient of covent's own entropy bonus, alone or in a list of controls; None where there is none."""
    bonus = _bonus(settings, control)
    return None if bonus is None else bonus.number(f"{control}.entropy_coef", 0.0)


def adaptive_bonus(settings: Settings, start: str) -> Iterator[Finding]:
    """How far an adaptive entropy bonus may go; its settings, TRL's and covent's, begin with `start`."""
    if not settings.flag(f"{start}use_adaptive_entropy", False).value:
        return
    most = settings.number(f"{start}entropy_coef_max", 1.0)
    step = settings.number(f"{start}entropy_coef_delta", 0.005)
    target = settings.number(f"{start}entropy_target", 0.2)
    if most.value is not None and most.value > 0.01 and step.value:
        yield Finding(
            level=Level.WARNING,
            rule="entropy-coefficient",
            setting=str(most),
            text=f"The coefficient may grow to {most.value:g}: it gains {step.value:g} in every update whose entropy is"
            " below the target, and it reaches 0.01 after"
            f" {max(1, int(0.01 / step.value))} of them.",
            reason="At 0.01 the entropy of the paper's 7B run exploded.",
            instead=f"{start}entropy_coef_max=0.005 {start}entropy_coef_delta=0.0001",
            source="arXiv 2505.22617, Fig. 9; TRL 1.16, trl/trainer/grpo_trainer.py",
        )
    if target.value is not None:
        yield Finding(
            level=Level.WARNING if target.value > 1 else Level.INFO,
            rule="entropy-target",
            setting=str(target),
            text=f"The bonus acts only while entropy is at or below {target.value:g} nats.",
            reason="Runs of this kind show 0.05 to 0.5 nats once they train; a target above 1 is on nearly all the"
            " time."
            if target.value > 1
            else "Entropy starts above that in most runs, so nothing happens before it has fallen.",
            instead=f"{start}entropy_target= the entropy at which you want to stay" if target.value > 1 else "",
            source="TRL 1.16, trl/trainer/grpo_trainer.py; axolotl docs/training_stability.qmd",
        )


def _bonus(settings: Settings, control: str) -> Settings | None:
    """The settings with covent's entropy bonus as the one control."""
    each = controls_of(settings, control)
    return next((one for one in each if one.values.get(f"{control}.type") == "entropy_bonus"), None)


def _unknown(settings: Settings, section: str, known: frozenset[str]) -> Iterator[Finding]:
    yield from unknown_settings(settings, Schema({section: known}, frozenset({section}), _REFUSAL, _SOURCE))


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
