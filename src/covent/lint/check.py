"""A config read, counted and held against every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from covent.errors import ConfigError
from covent.lint import rules_choice, rules_control, rules_entropy, skyrl, trl, verl
from covent.lint.counts import Counts, assumptions, counts
from covent.lint.findings import Finding, Level
from covent.lint.published import PERCENT_SHARE
from covent.lint.read import read_settings
from covent.lint.settings import Settings
from covent.lint.setup import Setup
from covent.lint.words import percent

EngineName = Literal["verl", "verl-fork", "skyrl", "trl"]
"""`verl-fork` is the fork of verl in which the paper's authors published their code."""


@dataclass(frozen=True)
class Engine:
    """How one engine's config is told, read and checked."""

    own_settings: Callable[[Settings], tuple[str, ...]]
    """Those that no other engine has."""
    setup: Callable[[Settings, int | None], Setup]
    findings: Callable[[Settings], Iterator[Finding]]


ENGINES: dict[EngineName, Engine] = {
    "verl": Engine(verl.own_settings, verl.setup, verl.findings),
    "verl-fork": Engine(verl.own_settings, verl.fork_setup, verl.fork_findings),
    "skyrl": Engine(skyrl.own_settings, skyrl.setup, skyrl.findings),
    "trl": Engine(trl.own_settings, trl.setup, trl.findings),
}

_SHOWN = 3
_ABSURD = 1e9
"""No share is this large; a whole number may be too large even to be shown as a decimal."""
_OWN_KEYS = "actor_rollout_ref.… (verl), trainer.algorithm.… (SkyRL), num_generations or trl.… (TRL)"


@dataclass(frozen=True)
class Report:
    """What a config will in fact do."""

    source: str
    setup: Setup
    counts: Counts | None
    findings: tuple[Finding, ...]
    """The gravest first."""


def lint(
    path: Path | None,
    words: Sequence[str] = (),
    *,
    engine: EngineName | None = None,
    ranks: int | None = None,
    mean_response: int | None = None,
) -> Report:
    """What the config of a training engine will in fact do to entropy.

    Args:
      path: YAML, JSON, a shell script, or `key=value` lines; None for `words` alone.
      words: `key=value` settings on top.
      engine: whose config it is; told from its settings if None.
      ranks: data-parallel ranks; from the config if None (TRL's does not say: 1).
      mean_response: mean tokens of a response; an eighth of the limit if None.

    Raises:
      MissingPathError: no such file.
      ConfigError: the file cannot be read as what it is, or no engine is told from it.
    """
    settings = read_settings(path, words)
    name = _engine(settings, engine)
    chosen = ENGINES[name]
    setup = chosen.setup(settings, ranks)
    counted = counts(setup, assumptions(setup, mean_response))
    rules = (*rules_control.RULES, *rules_choice.RULES, *rules_entropy.RULES)
    found = [*chosen.findings(settings), *_of_other_engines(settings, name), *_defaults(settings), *_script(settings)]
    found += [finding for rule in rules for finding in rule(setup, counted)]
    return Report(settings.source, setup, counted, tuple(sorted(found, key=lambda each: -each.level)))


def _engine(settings: Settings, told: EngineName | None) -> EngineName:
    own = {name: len(engine.own_settings(settings)) for name, engine in ENGINES.items()}
    found = sorted((name for name in own if own[name]), key=lambda name: -own[name])
    if told is None and not found:
        raise ConfigError(
            f"{settings.source} holds no setting that tells its engine. Settings begin with {_OWN_KEYS}."
            f" Or name it: --engine {', '.join(sorted(ENGINES))}."
        )
    if told is None:
        return "verl-fork" if found[0] == "verl" and verl.is_fork(settings) else found[0]
    if told not in found:
        raise ConfigError(
            f"{settings.source} holds no setting of {told}. Settings begin with {_OWN_KEYS}."
            + (f" It looks like one of {found[0]}." if found else "")
        )
    return told


def _of_other_engines(settings: Settings, name: EngineName) -> Iterator[Finding]:
    """Settings that belong to another engine's config than the one this is read as."""
    own = set(ENGINES[name].own_settings(settings))
    for other in ("verl", "skyrl", "trl"):
        strange = [key for key in ENGINES[other].own_settings(settings) if key not in own]
        if not strange:
            continue
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        yield Finding(
            Level.ERROR,
            "two-engines",
            ", ".join(strange[:_SHOWN]) + more,
            f"{name} has no such setting: {other} has. The config is read as {name}'s, as most of its settings are.",
            "One config is run by one engine, and each has names of its own for the same things.",
            f"the setting of {name}; or --engine {other}, if that is whose config this is",
            "the configs of verl 0.9.1, SkyRL at a956457 and TRL 1.16",
        )


def _defaults(settings: Settings) -> Iterator[Finding]:
    """Configs that this one builds on and that are not here."""
    if settings.unread:
        yield Finding(
            Level.INFO,
            "defaults-unread",
            f"defaults: {', '.join(settings.unread)}",
            "The config builds on these, and they do not lie beside it: the engine's own defaults stand in their"
            " place.",
            "Hydra finds them in the engine's package or on its search path; nothing is imported here.",
            "",
            "Hydra 1.3, the defaults list",
        )


def _script(settings: Settings) -> Iterator[Finding]:
    """What is wrong with a shell script's variables, as far as it bears on the rules."""
    if settings.missing:
        names = ", ".join(sorted(settings.missing))
        yield Finding(
            Level.ERROR,
            "unset-variable",
            names,
            f"The script stops before it trains, unless the environment sets {names}.",
            "It uses the name without assigning it, under 'set -u'.",
            f"an assignment, such as {sorted(settings.missing)[0]}=…",
            "bash manual, section 4.3.1 (set -u)",
        )
    for name in ("kl_cov_ratio", "k_percent", "clip_cov_ratio", "kl_cov_frac"):
        value = settings.assigned.get(name)
        if settings.values and name not in settings.used and isinstance(value, int | float) and abs(value) < _ABSURD:
            fraction = name != "k_percent" and value >= PERCENT_SHARE
            yield Finding(
                Level.WARNING if fraction else Level.INFO,
                "unused-share",
                f"{name} = {value:g}",
                "The script assigns this share and never uses it."
                + (f" Passed on as it is, it would be {percent(value)} of the tokens." if fraction else ""),
                "It is left over from the authors' scripts, which wrote percent."
                if fraction
                else "No setting is given its value.",
                "remove it",
                "verl-recipe at 48ea0a7, entropy/*_clip_cov.sh",
            )
