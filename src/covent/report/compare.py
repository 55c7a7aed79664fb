"""Two runs side by side: same seed, same problems, another control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.logs.run_folder import END_STEPS, entropies
from covent.report.accuracy import Difference, last_test, measures, paired_difference, same_test_problems
from covent.report.experiments import experiments, unlike
from covent.report.names import short
from covent.report.summary import method
from covent.store.reader import Run


class Comparison(BaseModel):
    """One run against the baseline run of its seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: str
    baseline: str
    seed: int
    num_steps: int
    """Rollout steps that both runs have: entropy is compared over these."""
    end_entropy: tuple[float, float]
    """Mean entropy over the last 5 common steps: this run, baseline; nats."""
    mean_entropy: tuple[float, float]
    """Mean entropy over all common steps: the areas under the two curves."""
    common_start: bool | None
    """Whether both runs started from the same weights; None when one of them does not say."""
    other_settings: list[str]
    """Settings besides the control in which the two runs differ."""
    differences: dict[str, Difference]
    """Accuracy on test problems at the end, this run minus the baseline, paired by problem; avg@k and pass@k."""


def labels(runs: Sequence[Run]) -> list[str]:
    """One label for each run, unique and the same everywhere: the name alone where it is, else that of the experiment.

    Runs of one experiment are told apart by the seed, else by the folder. Long names are cut.
    """
    names = [short(name) for name in experiments(runs)]
    folders = [short(run.folder.name) for run in runs]
    ways = [
        [short(run.name) for run in runs],
        names,
        [name if run.seed is None else f"{name} · seed {run.seed}" for name, run in zip(names, runs, strict=True)],
        [f"{name} · {folder}" for name, folder in zip(names, folders, strict=True)],
        [f"{name} · {folder} ({place})" for place, (name, folder) in enumerate(zip(names, folders, strict=True), 1)],
    ]
    return [next(way[place] for way in ways if way.count(way[place]) == 1) for place in range(len(runs))]


def baseline_method(runs: Sequence[Run]) -> str:
    """The control that the others are held against: one without selection if there is one, else the first."""
    without = [method(run) for run in runs if run.updates and run.updates[0].control.asked_frac is None]
    return (without or [method(run) for run in runs])[0]


def comparisons(runs: Sequence[Run], names: Sequence[str] | None = None) -> list[Comparison]:
    """Each run against the run of the baseline method with the same seed, where there is one.

    Args:
        runs: of any methods.
        names: what to call them; if not given, their `labels`.
    """
    if len(runs) < 2:
        return []
    wanted = baseline_method(runs)
    named = list(zip(labels(runs) if names is None else names, runs, strict=True))
    bases: dict[int, list[tuple[str, Run]]] = {}
    for label, run in named:
        if method(run) == wanted and run.seed is not None:
            bases.setdefault(run.seed, []).append((label, run))
    found = []
    for label, run in named:
        if method(run) != wanted and run.seed in bases:
            closest = min(bases[run.seed], key=lambda base: len(unlike(run, base[1])))
            comparison = _comparison(label, run, *closest)
            if comparison is not None:
                found.append(comparison)
    return found


def _comparison(label: str, run: Run, base_label: str, base: Run) -> Comparison | None:
    mine = dict(zip(*entropies(run), strict=True))
    theirs = dict(zip(*entropies(base), strict=True))
    common = sorted(mine.keys() & theirs.keys())
    if not common:
        return None
    end = common[-END_STEPS:]
    starts = (run.header.start_model, base.header.start_model)
    return Comparison(
        label=label,
        baseline=base_label,
        seed=run.header.seed,
        num_steps=len(common),
        end_entropy=(float(np.mean([mine[s] for s in end])), float(np.mean([theirs[s] for s in end]))),
        mean_entropy=(float(np.mean([mine[s] for s in common])), float(np.mean([theirs[s] for s in common]))),
        common_start=None if None in starts else starts[0] == starts[1],
        other_settings=unlike(run, base),
        differences=_differences(run, base),
    )


def _differences(run: Run, base: Run) -> dict[str, Difference]:
    """Only where the same problems were asked, and after the same number of steps."""
    mine, theirs = last_test(run), last_test(base)
    if mine is None or theirs is None or mine.step != theirs.step or mine.step == 0:
        return {}
    if not same_test_problems([run, base]):
        return {}
    found = {measure: paired_difference(mine, theirs, measure) for measure in measures(mine)}
    return {measure: value for measure, value in found.items() if value is not None}
