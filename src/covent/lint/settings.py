"""The settings of a config by their full dotted names, whatever file or words they came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from covent.errors import ConfigError

T = TypeVar("T")

_MOST = 20_000
"""Settings; YAML's references can say exponentially many in a few lines."""
_LONGEST = 80
"""Characters of a value that a message shows."""
_REFERENCE = re.compile(r"\$\{([\w.]+)\}")
_DEFERRED = re.compile(r"\$[\w{(]|\?\?\?")


@dataclass(frozen=True)
class Setting(Generic[T]):
    """One setting: its name, its value, and whether the config says it or the engine's default stands."""

    key: str
    value: T | None
    """None: not set, or not known before the run (an environment variable, say)."""
    given: bool = True

    def __str__(self) -> str:
        if self.value is None:
            return self.key
        shown = f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.key} = {shown}" + ("" if self.given else " (default)")


@dataclass(frozen=True)
class Settings:
    """A config as it was read."""

    source: str
    """The file, or `the command line`."""
    values: Mapping[str, Any]
    """By dotted name."""
    assigned: Mapping[str, Any] = field(default_factory=dict)
    """Variables that a shell script assigns."""
    used: frozenset[str] = frozenset()
    """Variables that it uses."""
    missing: frozenset[str] = frozenset()
    """Variables that it uses under `set -u` without assigning them."""
    unread: tuple[str, ...] = ()
    """Configs that it builds on and that do not lie beside it, by their names in Hydra's `defaults` list."""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def under(self, section: str) -> Iterator[str]:
        """The names that are set directly in a section, without it; all at the top for the empty section."""
        start = f"{section}." if section else ""
        yield from dict.fromkeys(key[len(start) :].split(".")[0] for key in self.values if key.startswith(start))

    def starting_with(self, *starts: str) -> tuple[str, ...]:
        """The settings whose names begin with one of these."""
        return tuple(key for key in self.values if key.startswith(starts))

    def text(self, key: str, default: str | None) -> Setting[str]:
        """A setting that is a word."""
        value = self._known(key, default)
        return Setting(key, None if value is None else str(value), key in self.values)

    def flag(self, key: str, default: bool) -> Setting[bool]:
        """A setting that is true or false. Raises: ConfigError where it is neither."""
        value = self._known(key, default)
        words = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}
        if isinstance(value, str):
            value = words.get(value.lower(), value)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{self.source}: '{key}' is {value!r}; it must be true or false.")
        return Setting(key, value, key in self.values)

    def number(self, key: str, default: float | None) -> Setting[float]:
        """A setting that is a number. Raises: ConfigError where it is none."""
        value = self._known(key, default)
        if value is None:
            return Setting(key, None, key in self.values)
        try:
            found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            found = None
        if found is None or not math.isfinite(found):
            shown = repr(value)
            shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
            raise ConfigError(f"{self.source}: '{key}' is {shown}; it must be a number.")
        return Setting(key, found, key in self.values)

    def count(self, key: str, default: int | None) -> Setting[int]:
        """A setting that counts something. Raises: ConfigError unless it is a whole number of at least 1."""
        found = self.number(key, default)
        if found.value is None:
            return Setting(key, None, found.given)
        if found.value < 1 or found.value != int(found.value):
            raise ConfigError(f"{self.source}: '{key}' is {found.value:g}; it must be a whole number of at least 1.")
        return Setting(key, int(found.value), found.given)

    def _known(self, key: str, default: Any) -> Any:
        """The value, through references to other settings; None where only the run will know it."""
        value = self.values.get(key, default)
        for _ in range(8):
            reference = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if reference is None or reference[1] not in self.values:
                break
            value = self.values[reference[1]]
        return None if isinstance(value, str) and _DEFERRED.search(value) else value


def controls_of(settings: Settings, key: str) -> tuple[Settings, ...]:
    """The same settings, once for each control of a list at `key`, with that control as a section; else as they are.

    Args:
      settings: as read; of a script that only assigns variables, those.
      key: where covent's control or controls are.
    """
    values = dict(settings.values or settings.assigned)
    several, names = values.get(key), list(values)
    parts = [name for name in names if name.startswith(f"{key}.")]
    # A list given after a section replaces it, and the other way round.
    if not isinstance(several, list) or (parts and names.index(key) < names.index(parts[-1])):
        return (replace(settings, values=values),)
    rest = {name: value for name, value in values.items() if name not in parts}
    maps = [each for each in several if isinstance(each, dict)] or [{}]
    return tuple(replace(settings, values=rest | flattened({key: each})) for each in maps)


def flattened(nested: Mapping[Any, Any]) -> dict[str, Any]:
    """Nested settings by dotted name; an empty section counts for nothing.

    Example:
      >>> flattened({"actor": {"optim": {"lr": 1e-6}, "clip_ratio": 0.2}})
      {'actor.optim.lr': 1e-06, 'actor.clip_ratio': 0.2}
    """
    flat: dict[str, Any] = {}
    for key, value in _leaves(nested, ""):
        flat[key] = value
        if len(flat) > _MOST:
            raise ConfigError(
                f"A config of more than {_MOST:,} settings is none. Does it refer to itself again and again?"
            )
    return flat


def _leaves(nested: Mapping[Any, Any], start: str) -> Iterator[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value
