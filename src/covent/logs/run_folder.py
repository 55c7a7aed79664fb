"""covent's own run folders as a log series, so that every command takes them beside other engines' logs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from covent.logs.definitions import EntropyDefinition
from covent.logs.rows import LogError
from covent.logs.series import Choice, Ends, LogSeries, RunControl
from covent.store.reader import Run, read_run
from covent.store.series import law_series

Source = Literal["validation", "training"]

END_STEPS = 5
"""Rollout steps whose mean is "the end" of a curve: one step alone is noisy."""

END_POINTS = 3
"""Points of the law whose mean is an accuracy "by then"."""

TRAINING_REWARD = "training reward"
"""The accuracy of a run that has no validation."""

_SOURCES = ("validation", "training")
_UNCONTROLLED = {"ppo_clip", "grpo", "none"}


def is_run_folder(path: Path) -> bool:
    """Whether covent wrote the folder."""
    return (path / "run.json").is_file()


def folder_series(path: Path, choice: Choice | None = None) -> LogSeries:
    """The points of the law of a run folder.

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
    if choice.metric == "training":
        return run_series(run, "training", choice.window)
    if choice.metric is None and not len(law_series(run, "validation", choice.window)):
        return run_series(run, "training", choice.window)
    return run_series(run, "validation", choice.window)


def run_series(run: Run, source: Source, window: int | None = None) -> LogSeries:
    """The points of the law of a run that was read: blocks of rollout steps, as `covent.store.series.law_series` makes
    them.

    Args:
        run: a run folder in memory.
        source: which accuracy is R.
        window: rollout steps in a block; by default the run's own `evaluation.every`.

    Raises:
        LogError: no block is complete, or none meets an accuracy.
        StoreError: the settings say no window.
    """
    points = law_series(run, source, window)
    if not len(points):
        raise LogError(f"{run.folder} holds no point of the law: {_why_no_points(run, source, points.window)}")
    warnings = run.remarks
    if source == "training" and not len(law_series(run, "validation", window)):
        warnings.append("No validation accuracy meets a whole block of steps, so R is the training reward.")
    first = next(row.entropy for row in run.steps if row.entropy.value is not None)
    steps, values = entropies(run)
    return LogSeries(
        name=run.name,
        source=run.folder,
        format="covent run folder",
        kind=source,
        accuracy_metric=accuracy_name(run) if source == "validation" else TRAINING_REWARD,
        entropy_metric="entropy",
        definition=EntropyDefinition(
            estimator=first.estimator,
            temperature=first.temperature,
            policy=first.policy,
            weighting=first.weighting,
            tokens=first.tokens,
        ),
        unit="fraction",
        step=points.step,
        entropy=points.entropy,
        accuracy=points.accuracy,
        join=f"Each accuracy meets the mean entropy of its block of {points.window} rollout steps, evaluated in the"
        " middle.",
        window_steps=float(points.window),
        entropy_steps=np.array(steps, dtype=np.int64),
        entropies=np.array(values, dtype=np.float64),
        others=_others(run),
        warnings=warnings,
        ends=Ends(values[0], _accuracy_at_start(run, source), END_STEPS, END_POINTS),
        control=run_control(run),
    )


def entropies(run: Run) -> tuple[list[int], list[float]]:
    """Steps and entropies of a run, without steps in which no entropy was measured."""
    known = [(row.step, row.entropy.value) for row in run.steps if row.entropy.value is not None]
    return [step for step, _ in known], [value for _, value in known]


def control_names(run: Run) -> list[str]:
    """The controls of a run: from its settings, else from its updates, else its name."""
    section = run.header.config.get("control")
    if isinstance(section, list):
        return [str(each.get("type")) for each in section]
    named = section.get("type", section.get("name")) if isinstance(section, dict) else section
    if isinstance(named, str):
        return [named]
    return [run.updates[0].control.name if run.updates else run.name]


def run_control(run: Run) -> RunControl:
    """What the folder says of the run's controls and of its groups."""
    rollout = run.header.config.get("rollout")
    group_filter = rollout.get("group_filter") if isinstance(rollout, dict) else None
    took_all = [row.control.took_all_candidates for row in run.updates]
    return RunControl(
        names=tuple(name for name in control_names(run) if name not in _UNCONTROLLED),
        group_filter=group_filter if isinstance(group_filter, str) else None,
        took_all_frac=sum(took_all) / len(took_all) if took_all else 0.0,
    )


def _why_no_points(run: Run, source: Source, window: int) -> str:
    if len(run.steps) < window:
        return f"{len(run.steps)} rollout steps are less than one block of {window}."
    if source == "validation":
        return f"no validation evaluation falls in the middle of a whole block of {window} rollout steps."
    return f"no block of {window} rollout steps is complete."


def accuracy_name(run: Run) -> str:
    """What the validation of a run measured."""
    sizes = {row.num_samples for row in run.evaluations if row.split == "validation"}
    return f"validation avg@{sizes.pop()}" if len(sizes) == 1 else "validation avg@k"


def _accuracy_at_start(run: Run, source: Source) -> float | None:
    if source == "training":
        return None
    return next((row.avg.value for row in run.evaluations if row.split == "validation" and row.step == 0), None)


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
