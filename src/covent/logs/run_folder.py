"""covent's own run folders as a log series, so that every command takes them beside other engines' logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covent.logs.definitions import EntropyDefinition
from covent.logs.rows import LogError
from covent.logs.series import Choice, LogSeries
from covent.store.reader import Run, read_run
from covent.store.series import law_series

_SOURCES = ("validation", "training")
_UNCONTROLLED = ("ppo_clip", "grpo", "none", None)


def is_run_folder(path: Path) -> bool:
    """Whether covent wrote the folder."""
    return (path / "run.json").is_file()


def folder_series(path: Path, choice: Choice | None = None) -> LogSeries:
    """The points of the law of a run folder: blocks of rollout steps, as `covent.store.series.law_series` makes them.

    Args:
        path: the run folder.
        choice: `metric` may be "validation" or "training"; `window` sets the rollout steps of a block.

    Raises:
        LogError: no point, or another metric is asked for.
        StoreError: the folder is damaged.
    """
    choice = choice or Choice()
    run = read_run(path)
    if choice.metric is not None and choice.metric not in _SOURCES:
        raise LogError(f"--metric is '{choice.metric}'; a run folder of covent has validation and training.")
    source = "training" if choice.metric == "training" else "validation"
    points = law_series(run, "validation" if source == "validation" else "training", choice.window)
    warnings = [*run.notes, *_control_warning(run)]
    if not len(points) and choice.metric is None:
        source, points = "training", law_series(run, "training", choice.window)
        warnings.append("No validation accuracy meets a whole block of steps, so R is the training reward.")
    if not len(points):
        raise LogError(f"{path} holds no point of the law: no block of {points.window} rollout steps is complete yet.")
    measured = [(row.step, row.entropy) for row in run.steps if row.entropy.value is not None]
    reading = measured[0][1]
    return LogSeries(
        name=run.name,
        source=path,
        format="covent run folder",
        kind="validation" if source == "validation" else "training",
        accuracy_metric="validation avg@k" if source == "validation" else "training reward",
        entropy_metric="entropy",
        definition=EntropyDefinition(
            estimator=reading.estimator,
            temperature=reading.temperature,
            policy=reading.policy,
            weighting=reading.weighting,
            tokens=reading.tokens,
        ),
        unit="fraction",
        step=points.step,
        entropy=points.entropy,
        accuracy=points.accuracy,
        join=f"Each accuracy meets the mean entropy of its block of {points.window} rollout steps, evaluated in the"
        " middle.",
        window_steps=float(points.window),
        entropy_steps=np.array([step for step, _ in measured], dtype=np.int64),
        entropies=np.array([entropy.value for _, entropy in measured], dtype=np.float64),
        others=_others(run),
        warnings=warnings,
    )


def _others(run: Run) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
    groups = [(row.step, row.num_all_right + row.num_all_wrong, row.num_all_right, row.num_groups) for row in run.steps]
    told = [group for group in groups if group[3]]
    steps = np.array([group[0] for group in told], dtype=np.int64)
    found = {
        "zero_variance": (steps, np.array([equal / total for _, equal, _, total in told])),
        "all_right": (steps, np.array([right / total for _, _, right, total in told])),
    }
    updates = [(row.step, row.covariance.mean) for row in run.updates]
    if updates:
        found["covariance"] = (
            np.array([step for step, _ in updates], dtype=np.int64),
            np.array([mean for _, mean in updates]),
        )
    return {key: value for key, value in found.items() if value[0].size}


def _control_warning(run: Run) -> list[str]:
    control = run.header.config.get("control")
    name = control.get("type", control.get("name")) if isinstance(control, Mapping) else None
    if name in _UNCONTROLLED:
        return []
    return [
        f"Entropy was under control ({name}): the law is stated for runs that spend their entropy freely, so its"
        " ceiling is a description here and no limit."
    ]
