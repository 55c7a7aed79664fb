"""Problems with exact verifiers. No torch, no network, nothing to download.

`make_task(settings, run_seed)` builds a task; `problems(task, split, seed)` streams its problems.
"""

from covent.tasks.base import Problem, Split, Task, TaskSettings, Verdict, problems
from covent.tasks.clock import ClockSettings, ClockTask
from covent.tasks.grid import GridSettings, GridTask


def make_task(settings: ClockSettings | GridSettings, run_seed: int) -> Task:
    """The task of these settings; its corpus follows `corpus_seed`, or the run's seed where that is None."""
    corpus_seed = run_seed if settings.corpus_seed is None else settings.corpus_seed
    if isinstance(settings, ClockSettings):
        return ClockTask(settings, corpus_seed)
    return GridTask(settings, corpus_seed)


__all__ = [
    "ClockSettings",
    "ClockTask",
    "GridSettings",
    "GridTask",
    "Problem",
    "Split",
    "Task",
    "TaskSettings",
    "Verdict",
    "make_task",
    "problems",
]
