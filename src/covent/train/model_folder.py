"""What a model folder from elsewhere may not ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def reaches_out(folder: Path) -> str:
    """Why a model folder would read or run what is not in it; empty if it would not."""
    for name in ("config.json", "generation_config.json"):
        for key, value in _settings_in(_json(folder / name)):
            # transformers takes the name of a repository there for a kernel to download and run.
            if "_implementation" in key and "/" in str(value):
                return f"{name} asks for {key} = {value!r}, which is code from elsewhere"
    for index in folder.glob("*.index.json"):
        shards = _json(index).get("weight_map")
        for shard in shards.values() if isinstance(shards, dict) else ():
            if Path(str(shard)).name != shard:
                return f"{index.name} lists the file {shard!r}, which is not in the folder"
    return ""


def _json(path: Path) -> dict[str, Any]:
    """Settings in a file; none if it is missing or is something else, which transformers says better."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _settings_in(given: Any) -> Iterator[tuple[str, Any]]:
    """Every name with its value, at any depth."""
    if isinstance(given, dict):
        for name, value in given.items():
            yield name, value
            yield from _settings_in(value)
    elif isinstance(given, list):
        for value in given:
            yield from _settings_in(value)
