"""Problems and the judgement of responses to them. No torch, no network, nothing to download.

`make_task(settings, run_seed)` builds a task; `problems(task, split, seed)` streams its problems.
"""

from typing import cast

from covent.tasks.base import (
    Answer,
    GeneratedTask,
    Problem,
    Split,
    Task,
    TaskSettings,
    TaughtTask,
    problems,
    taught,
)
from covent.tasks.clock import ClockSettings, ClockTask
from covent.tasks.code import CodeSettings, CodeTask
from covent.tasks.data import DataSettings, DataTask
from covent.tasks.grid import GridSettings, GridTask
from covent.tasks.gym import GymSettings, GymTask
from covent.tasks.rewarded import RewardedTask
from covent.verifiers.functions import RewardFunction
from covent.verifiers.settings import RewardSettings, VerifierSettings
from covent.verifiers.verdict import Judgement, Verdict

AnyTaskSettings = ClockSettings | GridSettings | CodeSettings | GymSettings | DataSettings


def make_task(
    settings: AnyTaskSettings,
    run_seed: int,
    verifier: VerifierSettings | None = None,
    reward: RewardSettings | None = None,
    *,
    for_training: bool = True,
) -> Task:
    """The task of these settings.

    Args:
        settings: of one task; a corpus follows `corpus_seed`, or the run's seed where that is None.
        run_seed: the seed of the run.
        verifier: limits of verifiers that run in children; None for the defaults.
        reward: a user's reward function in place of the task's own verdict; None for none.
        for_training: whether a data set without a row to train on is an error.
    """
    if reward is None or reward.function is None:
        return _task(settings, run_seed, verifier or VerifierSettings(), False, for_training)
    function = RewardFunction(reward)
    task = _task(settings, run_seed, verifier or VerifierSettings(), True, for_training)
    return cast(Task, RewardedTask(task, function))


def _task(
    settings: AnyTaskSettings, run_seed: int, verifier: VerifierSettings, judged_elsewhere: bool, for_training: bool
) -> Task:
    if isinstance(settings, DataSettings):
        return DataTask(settings, verifier, judged_elsewhere=judged_elsewhere, for_training=for_training)
    corpus_seed = run_seed if settings.corpus_seed is None else settings.corpus_seed
    if isinstance(settings, ClockSettings):
        return ClockTask(settings, corpus_seed)
    if isinstance(settings, CodeSettings):
        return CodeTask(settings, corpus_seed, verifier)
    if isinstance(settings, GymSettings):
        return GymTask(settings, corpus_seed, verifier)
    return GridTask(settings, corpus_seed)


__all__ = [
    "Answer",
    "AnyTaskSettings",
    "ClockSettings",
    "ClockTask",
    "CodeSettings",
    "CodeTask",
    "DataSettings",
    "DataTask",
    "GeneratedTask",
    "GridSettings",
    "GridTask",
    "GymSettings",
    "GymTask",
    "Judgement",
    "Problem",
    "RewardSettings",
    "RewardedTask",
    "Split",
    "Task",
    "TaskSettings",
    "TaughtTask",
    "Verdict",
    "VerifierSettings",
    "make_task",
    "problems",
    "taught",
]
