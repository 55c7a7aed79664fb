"""Points of one metric brought into the order of time, and accuracies joined to entropies."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from covent.law.series import counted
from covent.logs.rows import LogError, LoggedRun

DEFAULT_WINDOW = 4
"""Most entropies that an accuracy meets if nothing is asked: the paper validates every 4 rollout steps. A longer mean
would lag behind the policy that was evaluated."""

MOST_RESTARTS = 0.25
"""With more steps going back than this share of the rows, a log is a mixture and no run that was restarted."""

_FEW_RESTARTS = 3
_LISTED = 5


@dataclass(frozen=True)
class Point:
    """One logged number."""

    step: int
    value: float
    order: int
    """Place in the log, from 0: tells a repeated step's earlier row from its later one."""
    line: int


@dataclass(frozen=True)
class Joined:
    """Accuracies with the entropies that they meet."""

    points: list[Point]
    """The accuracies that meet one."""
    entropies: list[float]
    """Of each, the mean that it meets."""
    sentence: str
    """How they met."""
    window_steps: float
    """Steps over which the entropy of a point is averaged."""
    lost_after: int | None
    """Last step with an entropy, where accuracies go on without one."""
    notes: list[str] = field(default_factory=list)


def in_time(
    run: LoggedRun, points: list[Point], known: list[tuple[int, int]] | None = None
) -> tuple[list[Point], list[tuple[int, int]], list[str]]:
    """The points by step, one a step: after a restart the last run of it counts, rows out of order are sorted.

    Args:
        run: for messages.
        points: in the order of the log.
        known: restarts that another metric of the log showed.

    Returns:
        The points, the restarts as (place in the log, step), and what was done, in sentences.

    Raises:
        LogError: steps go back so often, and repeat, that the log can be no single run.
    """
    restarts = _restarts(points)
    if restarts and len({point.step for point in points}) == len(points):
        kept, _ = _after_restarts(points, known or [])
        return kept, [], ["Rows are not in the order of steps, and no step is there twice: they were sorted by step."]
    if len(restarts) > max(_FEW_RESTARTS, MOST_RESTARTS * len(points)):
        raise LogError(
            f"{run.place(points[0].line)}: steps go back {len(restarts)} times in {len(points)} rows and repeat (to"
            f" step {listed([step for _, step in restarts])}), so this is not one run in the order of time. Sort the"
            " rows by step, or tell the runs in it apart with --by COLUMN."
        )
    kept, dropped = _after_restarts(points, [*(known or []), *restarts])
    return kept, restarts, _restart_note(restarts, dropped)


def _restarts(points: list[Point]) -> list[tuple[int, int]]:
    """(place in the log, step) of each row whose step lies before the last one's: there the run was restarted."""
    return [(now.order, now.step) for before, now in itertools.pairwise(points) if now.step < before.step]


def _after_restarts(points: list[Point], restarts: list[tuple[int, int]]) -> tuple[list[Point], int]:
    """The points without those that a later restart did again or abandoned, the last of a step; and how many went."""
    kept: list[Point] = []
    ahead = sorted(restarts)
    lowest: float = math.inf
    for point in reversed(points):
        while ahead and ahead[-1][0] > point.order:
            lowest = min(lowest, ahead.pop()[1])
        if point.step < lowest:
            kept.append(point)
    last = {point.step: point for point in reversed(kept)}
    return [last[step] for step in sorted(last)], len(points) - len(last)


def _restart_note(restarts: list[tuple[int, int]], dropped: int) -> list[str]:
    rows = counted(dropped, "row")
    if restarts:
        steps = listed([step for _, step in restarts])
        return [
            f"The log goes back to step {steps}: taken as {counted(len(restarts), 'restart')}; {rows} from before that"
            " were done again or abandoned were left out, and the last of a step was kept. If these are several runs in"
            " one log, tell them apart with --by COLUMN."
        ]
    return [f"Some steps were logged more than once; the last of each was kept, {rows} left out."] if dropped else []


def join(entropies: list[Point], values: list[Point], window: int | None) -> Joined:
    """Each accuracy with the mean of the entropies that were logged at its step or just before it.

    Nothing that was logged later enters, so that a point is known at its own step and a forecast cannot look ahead. And
    nothing stale enters: an accuracy meets entropies logged since the accuracy before it, or the last one if the next
    was not due yet; and the newest of them is no older than the window is long.

    Args:
        entropies, values: one a step, by step.
        window: entropies that an accuracy meets; None: those since the accuracy before it, at most 4.
    """
    steps = [point.step for point in entropies]
    spacing = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    ends = np.searchsorted(steps, [point.step for point in values], side="right").tolist()
    width = window or DEFAULT_WINDOW
    met, means, used = [], [], set()
    early, stale, before = [], [], 0
    for point, end in zip(values, ends, strict=True):
        if end == 0:
            early.append(point.step)
            continue
        age = point.step - steps[end - 1]
        is_fresh = end > before and age <= width * spacing
        start = max(0, end - width) if window else max(0, end - width, min(before, end - 1))
        before = end
        if not is_fresh and age >= spacing:
            stale.append(point.step)
            continue
        met.append(point)
        means.append(fmean(entropy.value for entropy in entropies[start:end]))
        used.add(end - start)
    # One entropy that is missing at the end is no loss; more than an accuracy reaches back over is.
    is_lost = bool(stale) and stale[-1] > steps[-1] + DEFAULT_WINDOW * spacing
    lost_after = steps[-1] if is_lost else None
    return Joined(
        points=met,
        entropies=means,
        sentence=_join_sentence(used, window),
        window_steps=max(used, default=1) * spacing,
        lost_after=lost_after,
        notes=_left_out(early, stale, lost_after),
    )


def _left_out(early: list[int], stale: list[int], lost_after: int | None) -> list[str]:
    notes = []
    if early:
        notes.append(
            f"Accuracies from before the first entropy were left out (steps {listed(early)}): that of the start model"
            " is no point of the law."
        )
    if stale:
        notes.append(
            f"{counted(len(stale), 'accuracy').replace('accuracys', 'accuracies')} left out (steps {listed(stale)}):"
            " no entropy was logged since the accuracy before, and an older one is not of the same policy."
        )
    if lost_after is not None:
        notes.append(
            f"The last entropy is that of step {lost_after}, while accuracies go on to step {stale[-1]}: nothing is"
            " known of the law after that."
        )
    return notes


def _join_sentence(used: set[int], window: int | None) -> str:
    if used == {1}:
        return "Each accuracy meets the entropy logged at its step, or the last one before it."
    counts = f"{min(used)} to {max(used)}" if len(used) > 1 else f"{next(iter(used), 0)}"
    limit = "as asked" if window else f"those since the accuracy before it, at most {DEFAULT_WINDOW}"
    return f"Each accuracy meets the mean of the last {counts} entropies logged at or before its step ({limit})."


def listed(numbers: list[int]) -> str:
    """The first of many numbers, as messages name them."""
    shown = ", ".join(map(str, numbers[:_LISTED]))
    return f"{shown}, …" if len(numbers) > _LISTED else shown or "none"
