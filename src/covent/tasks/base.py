"""What a task is: problems in splits that never overlap, and judgements of responses; for some, a corpus to learn from.

A new generated task is one file: subclass `TaskSettings` and `GeneratedTask`, and add it to `covent.tasks.make_task`.
Rules that keep results honest:

- every problem belongs to exactly one split by the hash of its prompt, so that train, validation and test problems can
  never overlap, whatever the seeds;
- demonstrations are written for train problems only;
- a verdict looks at the response text and the problem, never at tokens, log-probs or training state.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from covent.errors import ConfigError
from covent.verifiers.verdict import Judgement, Poll, Verdict, keep_waiting

Split = Literal["train", "validation", "test"]

# One prompt in ten is a test problem and one in ten a validation problem, for every task, seed and preset.
_SPLIT_OF_BUCKET: dict[int, Split] = {0: "test", 1: "validation"}
_NUM_BUCKETS = 10


@dataclass(frozen=True)
class Problem:
    """One question. `prompt` is what the model reads, `answer` is for people and verifiers."""

    prompt: str
    """What the model reads; of a chat, its messages as one text for people."""
    answer: str
    messages: tuple[Mapping[str, str], ...] = ()
    """The chat that the model reads through its tokenizer's template; empty for a prompt that is plain text."""
    truth: Any = None
    """What a verifier needs where `answer` is not enough: tests, or an answer of another type."""
    source: str = ""
    """Which data set it comes from, for reward functions and results by source."""
    place: str = ""
    """`file:line`, for messages."""
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """The other columns of its row, for reward functions."""

    @property
    def key(self) -> str:
        """Content hash of the prompt (SHA-256, hex): the identity by which problems are kept apart."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()

    @property
    def split(self) -> Split:
        """The split this problem belongs to, decided by its content alone."""
        return _SPLIT_OF_BUCKET.get(int(self.key[:8], 16) % _NUM_BUCKETS, "train")


class Answer(NamedTuple):
    """A response to be judged."""

    problem: Problem
    text: str
    token_ids: Sequence[int] = ()
    """The response's tokens, for reward functions of TRL's form."""


class TaskSettings(BaseModel):
    """Base of the settings of a task; `name` selects the task."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str


class Task(Protocol):
    """Problems and judgements of responses to them."""

    answer_format: str
    """One sentence for people: what a response must look like to be scored."""

    def stream(self, split: Split, seed: int) -> Iterator[Problem]:
        """Problems of one split; the same (split, seed) gives the same stream.

        A train stream is endless and may repeat a problem. Others yield each problem once, and end when none is left.
        """
        ...

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """The judgement of each answer; `poll` is called while verifiers run."""
        ...


@runtime_checkable
class TaughtTask(Task, Protocol):
    """A task with a corpus: a model that is made here learns its words and its format from demonstrations."""

    spelling: Literal["words", "characters"]
    """Whether the local tokenizer's units are words between spaces, or single characters."""
    vocabulary: tuple[str, ...]
    """These units, of prompts and responses."""
    max_prompt_words: int
    max_response_words: int

    def draw(self, rng: Random) -> Problem:
        """A random problem of any split."""
        ...

    def demonstration(self, problem: Problem, rng: Random) -> str:
        """A response as one of the corpus' imperfect writers would give it."""
        ...


class GeneratedTask(ABC):
    """A family of problems drawn from a seed, judged in this process: what such tasks have in common."""

    spelling: Literal["words", "characters"] = "words"

    @abstractmethod
    def draw(self, rng: Random) -> Problem:
        """A random problem of any split."""

    @abstractmethod
    def verdict(self, problem: Problem, response: str) -> Verdict:
        """Judge the text of a response."""

    def judge(self, answers: Sequence[Answer], poll: Poll = keep_waiting) -> list[Judgement]:
        """See `Task`."""
        found = []
        for answer in answers:
            poll()
            found.append(Judgement.of(self.verdict(answer.problem, answer.text)))
        return found

    def stream(self, split: Split, seed: int) -> Iterator[Problem]:
        """See `Task`."""
        rng = Random(f"{split}/{seed}")  # noqa: S311 - not cryptography
        seen: set[str] = set()
        misses = 0
        while misses < 100_000:
            problem = self.draw(rng)
            if problem.split != split or problem.key in seen:
                misses += 1
                continue
            misses = 0
            if split != "train":
                seen.add(problem.key)
            yield problem


def problems(task: Task, split: Split, seed: int) -> Iterator[Problem]:
    """The task's stream of problems of one split; the same (split, seed) gives the same stream."""
    return task.stream(split, seed)


def taught(task: Task, what: str) -> TaughtTask:
    """The task, if it has a corpus.

    Args:
        task: any.
        what: the setting that needs one and what to do without, for the message.

    Raises: ConfigError: it has none.
    """
    if not isinstance(task, TaughtTask):
        raise ConfigError(f"This task has no vocabulary and no demonstrations of its own. {what}")
    return task
