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

    owns: Callable[[Settings], bool]
    setup: Callable[[Settings, int | None], Setup]
    findings: Callable[[Settings], Iterator[Finding]]


ENGINES: dict[EngineName, Engine] = {
    "verl-fork": Engine(verl.is_fork, verl.fork_setup, verl.fork_findings),
    "verl": Engine(verl.is_verl, verl.setup, verl.findings),
    "skyrl": Engine(skyrl.is_skyrl, skyrl.setup, skyrl.findings),
    "trl": Engine(trl.is_trl, trl.setup, trl.findings),
}
"""In the order in which they are tried."""

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
    chosen = ENGINES[_engine(settings, engine)]
    setup = chosen.setup(settings, ranks)
    counted = counts(setup, assumptions(setup, mean_response))
    rules = (*rules_control.RULES, *rules_choice.RULES, *rules_entropy.RULES)
    found = [*chosen.findings(settings), *_script(settings)]
    found += [finding for rule in rules for finding in rule(setup, counted)]
    return Report(settings.source, setup, counted, tuple(sorted(found, key=lambda each: -each.level)))


def _engine(settings: Settings, told: EngineName | None) -> EngineName:
    found = [name for name, engine in ENGINES.items() if engine.owns(settings)]
    if told is None and not found:
        raise ConfigError(
            f"{settings.source} holds no setting that tells its engine. Settings begin with {_OWN_KEYS}."
            f" Or name it: --engine {', '.join(sorted(ENGINES))}."
        )
    if told is None:
        return found[0]
    if told not in found and not (told == "verl-fork" and "verl" in found):
        raise ConfigError(
            f"{settings.source} holds no setting of {told}. Settings begin with {_OWN_KEYS}."
            + (f" It looks like one of {found[0]}." if found else "")
        )
    return told


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
        if settings.values and name not in settings.used and isinstance(value, int | float):
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
