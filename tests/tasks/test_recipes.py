"""Each recipe in the repository: what its run trains on and what it is tested on have no problem in common."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from covent.tasks import Task, TaughtTask, make_task, problems
from covent.train.config import TrainConfig
from covent.train.config_file import load_config
from tests.verifiers.test_sandbox import MISSING

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(params=sorted(path.name for path in RECIPES.glob("*.yaml")))
def recipe(request: pytest.FixtureRequest) -> Iterator[tuple[TrainConfig, Task]]:
    config = load_config(RECIPES / request.param, [])
    if config.task.name == "reasoning_gym":
        pytest.importorskip("reasoning_gym", reason="needs the tasks extra")
    if config.task.name == "code" and MISSING:
        pytest.skip(MISSING)
    task = make_task(config.task, config.seed, config.verifier)
    with closing(task) if hasattr(task, "close") else nullcontext():
        yield config, task


def keys(task: Task, split: str, seed: int, count: int) -> set[str]:
    return {problem.key for problem in islice(problems(task, split, seed), count)}


def test_nothing_that_is_trained_on_is_held_out(recipe: tuple[TrainConfig, Task]) -> None:
    """The streams as the run draws them: the corpus of the warm start, the rollouts, validation and test."""
    config, task = recipe
    exam = config.evaluation
    warmed = keys(task, "train", config.seed, 300)
    rolled = keys(task, "train", config.seed + 1, 300)
    validation = keys(task, "validation", exam.problem_seed, exam.validation_problems)
    test = keys(task, "test", exam.problem_seed, exam.test_problems)
    assert (len(validation), len(test)) == (exam.validation_problems, exam.test_problems), "each problem once"
    assert not (warmed | rolled) & (validation | test)
    assert not validation & test
    # The negative control: the same problems, drawn without their splits, come again under another seed.
    assert isinstance(task, TaughtTask)
    one, other = Random(0), Random(1)
    drawn = {task.draw(one).key for _ in range(1000)}
    assert any(task.draw(other).key in drawn for _ in range(20_000))
