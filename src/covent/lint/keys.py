"""Settings that no engine reads: slips of the pen, and settings in the wrong section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from covent.lint.findings import Finding, Level
from covent.lint.settings import Setting, Settings

_CLOSE = 0.78
"""Of difflib; `entropy_coef` for `entropy_coeff` is 0.96, `kl_cov_frac` for `kl_cov_ratio` 0.78."""


@dataclass(frozen=True)
class Schema:
    """The settings of an engine's config, section by section."""

    sections: Mapping[str, frozenset[str]]
    """Names by section; the empty section is the top."""
    closed: frozenset[str]
    """Sections in which every other name is wrong; elsewhere only one that is close to a known name is."""
    refusal: str
    """What the engine does with a name it does not know."""
    source: str


def names(text: str) -> frozenset[str]:
    """Words between blanks, as names of settings."""
    return frozenset(text.split())


def unknown_settings(settings: Settings, schema: Schema) -> Iterator[Finding]:
    """An error for each setting that a section of the engine does not have, with the one that was probably meant."""
    for section, known in schema.sections.items():
        for name in settings.under(section):
            if name in known:
                continue
            meant = _meant(name, section, schema)
            if meant is None and section not in schema.closed:
                continue
            full = f"{section}.{name}" if section else name
            where = f"'{section}'" if section else "The config"
            yield Finding(
                level=Level.ERROR,
                rule="unknown-setting",
                setting=str(Setting(full, settings.values.get(full))),
                text=f"{where} has no setting '{name}'.",
                reason=schema.refusal,
                instead=f"{meant}, if that was meant" if meant else f"one of {', '.join(sorted(known))}",
                source=schema.source,
            )


def _meant(name: str, section: str, schema: Schema) -> str | None:
    """The full name of the setting that was probably meant."""
    elsewhere = [f"{other}.{name}" for other, known in schema.sections.items() if name in known and other]
    beside = [
        full for full in elsewhere if full.startswith(f"{section}.") or section.startswith(full.rpartition(".")[0])
    ]
    close = get_close_matches(name, sorted(schema.sections[section]), n=1, cutoff=_CLOSE)
    if beside:
        return beside[0]
    return (f"{section}.{close[0]}" if section else close[0]) if close else None
