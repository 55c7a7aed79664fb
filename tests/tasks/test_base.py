"""Splits never overlap, streams are what their seeds say, and held-out streams yield each problem once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import islice
from random import Random

import pytest

from covent.tasks import ClockSettings, GridSettings, Problem, Split, Task, Verdict, make_task, problems
from tests.support.tolerances import STANDARD_ERRORS

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SETTINGS = [
    pytest.param(ClockSettings(), id="clock"),
    pytest.param(ClockSettings(preset="hard", max_operations=3), id="hard"),
    pytest.param(GridSettings(), id="grid"),
    pytest.param(GridSettings(size=3, num_walls=4), id="small grid"),
]
every_task = pytest.mark.parametrize("settings", SETTINGS)
every_large_task = pytest.mark.parametrize("settings", SETTINGS[:3])
"""Families of many thousand problems; the small grid has 828 in all."""


def split_of(prompt: str) -> str:
    """The split as documented: by the hash of the prompt, one in ten each for test and validation."""
    bucket = int(hashlib.sha256(prompt.encode("utf-8")).hexdigest()[:8], 16) % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def prompts(task: Task, split: Split, seed: int, count: int = 40) -> list[str]:
    return [problem.prompt for problem in islice(problems(task, split, seed), count)]


def overlap(by_split: Callable[[Split], set[str]]) -> set[str]:
    train, validation, test = (by_split(split) for split in SPLITS)
    return (train & validation) | (train & test) | (validation & test)


@every_task
def test_splits_are_disjoint_whatever_the_seeds(settings: ClockSettings | GridSettings) -> None:
    tasks = [make_task(settings, seed) for seed in range(6)]

    def streamed(split: Split) -> set[str]:
        return {prompt for seed, task in enumerate(tasks) for prompt in prompts(task, split, seed)}

    assert overlap(streamed) == set()
    for split in SPLITS:
        assert {split_of(prompt) for prompt in streamed(split)} == {split}

    def by_seed_alone(split: Split) -> set[str]:
        rng = Random(split)
        return {tasks[0].draw(rng).prompt for _ in range(1000)}

    assert settings.name == "grid" or overlap(by_seed_alone), "drawing with other seeds does not keep problems apart"


@every_task
def test_a_stream_is_its_split_and_seed(settings: ClockSettings | GridSettings) -> None:
    task = make_task(settings, 0)
    again = make_task(settings, 0)
    for split in SPLITS:
        assert prompts(task, split, 3) == prompts(again, split, 3) == prompts(make_task(settings, 9), split, 3)
        assert prompts(task, split, 3) != prompts(task, split, 4)


@every_large_task
def test_held_out_streams_yield_each_problem_once(settings: ClockSettings | GridSettings) -> None:
    task = make_task(settings, 0)
    for split in ("validation", "test"):
        streamed = prompts(task, split, 0, 300)
        assert len(set(streamed)) == len(streamed) == 300


def test_a_train_stream_may_repeat_a_problem() -> None:
    streamed = prompts(make_task(ClockSettings(), 0), "train", 0, 2000)
    assert len(set(streamed)) < len(streamed)


def test_a_held_out_stream_ends_with_the_last_problem() -> None:
    task = make_task(ClockSettings(min_operations=1, max_operations=1), 0)
    every = [f"Q {left} {operator} {right} A" for left in range(10) for operator in "+-*" for right in range(10)]
    held_out = {prompt for prompt in every if split_of(prompt) == "validation"}
    assert set(prompts(task, "validation", 0, 10_000)) == held_out
    assert 10 < len(held_out) < 60


@every_large_task
def test_shares_of_the_splits(settings: ClockSettings | GridSettings) -> None:
    task, rng = make_task(settings, 0), Random(0)
    drawn = list({problem.key: problem for problem in (task.draw(rng) for _ in range(3000))}.values())
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        found = sum(problem.split == split for problem in drawn) / len(drawn)
        assert abs(found - share) < STANDARD_ERRORS * (share * (1 - share) / len(drawn)) ** 0.5


@every_task
def test_words_fit_the_vocabulary_and_the_limits(settings: ClockSettings | GridSettings) -> None:
    task, rng = make_task(settings, 0), Random(0)
    longest_prompt = longest_response = 0
    for _ in range(500):
        problem = task.draw(rng)
        texts = problem.prompt.split(), task.demonstration(problem, rng).split()
        assert set(texts[0]) | set(texts[1]) <= set(task.vocabulary)
        longest_prompt = max(longest_prompt, len(texts[0]))
        longest_response = max(longest_response, len(texts[1]))
    assert longest_prompt == task.max_prompt_words
    assert task.max_response_words / 2 < longest_response <= task.max_response_words
    assert len(set(task.vocabulary)) == len(task.vocabulary)


@every_task
def test_demonstrations_are_reproducible_and_imperfect(settings: ClockSettings | GridSettings) -> None:
    task, rng = make_task(settings, 5), Random(1)
    drawn = [task.draw(rng) for _ in range(200)]
    texts, again = ([task.demonstration(p, Random(i)) for i, p in enumerate(drawn)] for _ in range(2))
    assert texts == again
    verdicts = [task.verdict(problem, text) for problem, text in zip(drawn, texts, strict=True)]
    assert Verdict.UNPARSABLE not in verdicts
    assert 0.1 < verdicts.count(Verdict.RIGHT) / 200 < 0.9


def test_the_corpus_follows_its_own_seed_or_the_runs() -> None:
    def text(settings: ClockSettings, run_seed: int) -> list[str]:
        task, rng = make_task(settings, run_seed), Random(0)
        return [task.demonstration(task.draw(rng), rng) for _ in range(50)]

    assert text(ClockSettings(), 1) == text(ClockSettings(corpus_seed=1), 2) != text(ClockSettings(), 2)


def test_a_problem_is_named_by_its_prompt() -> None:
    assert Problem(prompt="Q 1 A", answer="1").key == hashlib.sha256(b"Q 1 A").hexdigest()
