"""Settings of runs, flat, side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from covent.report import numbers as n

Flat = dict[tuple[str, ...], Any]
"""Settings by path; a path is no text with dots, since a name may hold one."""

OF_NO_MATTER = {
    *("seed", "data_seed", "threads"),
    *("run_folder", "output_dir", "logging_dir", "default_local_dir"),
    *("run_name", "experiment_name", "project_name", "project", "report_to", "logger"),
    *("checkpoint", "samples_kept", "samples_detail", "probe_prompts", "attribute_every"),
}
"""Names of settings and sections in which two runs of one experiment may differ: the seed, places and names, what is
saved or only looked at. None of them is in the distribution that a run is drawn from."""


def flat(config: Mapping[str, Any], above: tuple[str, ...] = ()) -> Flat:
    """Nested settings by path."""
    found: Flat = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, (*above, key))
        else:
            found[(*above, key)] = value
    return found


def nested(settings: Flat) -> dict[str, Any]:
    """The way back."""
    tree: dict[str, Any] = {}
    for (*parents, leaf), value in settings.items():
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree


def experiment(config: Mapping[str, Any]) -> Flat:
    """The settings that make the experiment: without its seed, and without what changes no number of it."""
    return {
        path: value
        for path, value in flat(config).items()
        if not OF_NO_MATTER & set(path) and path not in {("name",), ("covent", "name")}
    }


def differing(settings: Sequence[Flat]) -> list[tuple[str, ...]]:
    """Paths that not all have with the same value, in the order of the first that has them."""
    paths = list(dict.fromkeys(path for each in settings for path in each))
    return [
        path for path in paths if not all(path in each and each[path] == settings[0].get(path) for each in settings)
    ]


def scalar(value: object) -> str:
    """A setting in a cell."""
    return (
        n.MISSING if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    )
