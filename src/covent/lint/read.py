"""A config from a file of any of its forms, with `key=value` words on top."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from covent import strict_yaml
from covent.errors import ConfigError, MissingPathError
from covent.lint.defaults import composed
from covent.lint.settings import Settings, flattened
from covent.lint.shell import override, shell_settings

_LARGEST_BYTES = 1_000_000


def read_settings(path: Path | None, words: Sequence[str]) -> Settings:
    """The settings of a config.

    Args:
      path: YAML (`.yaml`, `.yml`), JSON (`.json`), or text: a shell script or `key=value` lines. None for words alone.
      words: `key=value`, which replace what the file says.

    Raises:
      MissingPathError: no such file.
      ConfigError: the file is not what its name says, it holds no setting, or a word is not `key=value`.
    """
    base = Settings("the command line", {}) if path is None else _from_file(path)
    added: dict[str, Any] = {}
    for word in words:
        found = override(word)
        if found is None:
            raise ConfigError(f"'{word}' is neither a file nor 'key=value'. Give one file, then settings on top of it.")
        added |= flattened(dict([found]))
    values = {**base.values, **added}
    texts = [value for value in values.values() if isinstance(value, str)]
    missing = frozenset(
        name for name in base.missing if any(f"${name}" in text or f"${{{name}}}" in text for text in texts)
    )
    settings = replace(base, values=values, missing=missing)
    if not settings.values and not settings.assigned:
        raise ConfigError(f"{settings.source} holds no setting. A setting is 'name: value' in YAML or 'a.b=value'.")
    return settings


def _from_file(path: Path, above: tuple[Path, ...] = ()) -> Settings:
    if path in above:
        raise ConfigError(f"'{path}' builds on itself: {' -> '.join(each.name for each in (*above, path))}.")
    if not path.is_file():
        raise MissingPathError(f"No config file at '{path}'. Give a YAML or JSON file or a shell script.")
    if path.stat().st_size > _LARGEST_BYTES:
        raise ConfigError(f"'{path}' has {path.stat().st_size:,} bytes; a config has at most {_LARGEST_BYTES:,}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{path}' is not text in UTF-8: {error}.") from error
    if path.suffix.lower() in (".yaml", ".yml"):
        values, unread = composed(
            _mapping(path, _yaml(path, text)), path, lambda beside: _from_file(beside, (*above, path))
        )
        return Settings(str(path), values, unread=unread)
    if path.suffix.lower() == ".json":
        return Settings(str(path), _mapping(path, _json(path, text)))
    return shell_settings(text, str(path))


def _yaml(path: Path, text: str) -> Any:
    try:
        return strict_yaml.load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not a YAML file: {error}") from error


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        # A plain ValueError: a number of more digits than Python reads.
        raise ConfigError(f"'{path}' is not a JSON file: {error}") from error


def _mapping(path: Path, loaded: Any) -> dict[str, Any]:
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(f"'{path}' must hold settings as 'name: value'; it holds a {type(loaded).__name__}.")
    try:
        return flattened(loaded)
    except RecursionError:
        raise ConfigError(f"'{path}' is nested too deeply.") from None
