"""What a task is: problems from a seed, an answer format, demonstrations for a warm start, verdicts on text alone.

A new task is one file: subclass `TaskSettings`, implement `Task`, and add it to `covent.tasks.make_task`. Rules that
keep results honest:

- every problem belongs to exactly one split by the hash of its prompt, so that train, validation and test problems can
  never overlap, whatever the seeds;
- demonstrations are written for train problems only;
- a verdict looks at the response text and the problem, never at tokens, log-probs or training state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

Split = Literal["train", "validation", "test"]

# One prompt in ten is a test problem and one in ten a validation problem, for every task, seed and preset.
_SPLIT_OF_BUCKET: dict[int, Split] = {0: "test", 1: "validation"}
_NUM_BUCKETS = 10


class Verdict(StrEnum):
    """How a response was judged. `UNPARSABLE` means that no answer of the task's format was found."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"

    @property
    def reward(self) -> float:
        return 1.0 if self is Verdict.RIGHT else 0.0


@dataclass(frozen=True)
class Problem:
    """One question. `prompt` is what the model reads, `answer` is for people and verifiers."""

    prompt: str
    answer: str

    @property
    def key(self) -> str:
        """Content hash of the prompt (SHA-256, hex): the identity by which problems are kept apart."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    @property
    def split(self) -> Split:
        """The split this problem belongs to, decided by its content alone."""
        return _SPLIT_OF_BUCKET.get(int(self.key[:8], 16) % _NUM_BUCKETS, "train")


class TaskSettings(BaseModel):
    """Base of the settings of a task; `name` selects the task."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str


class Task(Protocol):
    """A family of problems with an exact verifier."""

    answer_format: str
    """One sentence for people: what a response must look like to be scored."""
    vocabulary: tuple[str, ...]
    """The words of prompts and responses, for the local word-level tokenizer."""
    max_prompt_words: int
    max_response_words: int

    def draw(self, rng: Random) -> Problem:
        """A random problem of any split."""
        ...

    def demonstration(self, problem: Problem, rng: Random) -> str:
        """A response as one of the corpus' imperfect writers would give it."""
        ...

    def verdict(self, problem: Problem, response: str) -> Verdict:
        """Judge the text of a response."""
        ...


def problems(task: Task, split: Split, seed: int) -> Iterator[Problem]:
    """An endless stream of problems of one split; the same (split, seed) gives the same stream.

    Train streams may repeat a problem. Validation and test streams yield each problem once, and end when none is left.
    """
    rng = Random(f"{split}/{seed}")  # noqa: S311 - not cryptography
    seen: set[str] = set()
    misses = 0
    while misses < 100_000:
        problem = task.draw(rng)
        if problem.split != split or problem.key in seen:
            misses += 1
            continue
        misses = 0
        if split != "train":
            seen.add(problem.key)
        yield problem
