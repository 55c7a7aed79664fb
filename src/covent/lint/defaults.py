"""Hydra's `defaults` list: the configs that a config builds on, as far as they lie beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from covent.lint.settings import Settings

_KEY, _SELF = "defaults", "_self_"


def composed(
    values: Mapping[str, Any], path: Path, read: Callable[[Path], Settings]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A config's settings over those of the configs that it names, and the names of those that are not there.

    Later ones replace earlier ones; `_self_` is the place of the config's own settings, without it the last. A config
    of a group (`actor: dp_actor`) and one in another folder is not looked for.

    Args:
      values: of the file, by dotted name.
      path: of the file.
      read: reads a file that lies beside it, with what it builds on in turn.
    """
    own = {key: value for key, value in values.items() if key != _KEY}
    listed = values.get(_KEY)
    if not isinstance(listed, list):
        return dict(values), ()
    if _SELF not in listed:
        listed = [*listed, _SELF]
    found: dict[str, Any] = {}
    unread: list[str] = []
    for entry in listed:
        beside = path.with_name(f"{entry}.yaml") if isinstance(entry, str) and "/" not in entry else None
        if entry == _SELF:
            found |= own
        elif beside is not None and beside.is_file():
            base = read(beside)
            found |= base.values
            unread += base.unread
        else:
            unread.append(entry if isinstance(entry, str) else _shown(entry))
    return found, tuple(dict.fromkeys(unread))


def _shown(entry: Any) -> str:
    if isinstance(entry, Mapping):
        return ", ".join(f"{group}: {option}" for group, option in entry.items())
    return str(entry)
