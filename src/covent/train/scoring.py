"""`covent eval`: sample and judge responses of one model to every row of a data set."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from covent import stopping
from covent.core.keys import key
from covent.errors import ConfigError, MissingPathError, RunExistsError, suggestion
from covent.readings import EntropyReading, Mean
from covent.store.durable import disk_errors
from covent.store.scores import ProblemResult, Scores, majority_vote, scores, source_scores
from covent.tasks import (
    Judgement,
    Problem,
    Task,
    Verdict,
    make_task,
)
from covent.train.config import ModelSettings, ScoringSettings
from covent.train.model import LanguageModel, load_model
from covent.train.prompts import check_prompts, data_task
from covent.train.rollouts import answers_of, response_entropy
from covent.train.setup import arithmetic_of, device_of, make_deterministic
from covent.verifiers.exact import voted_answer
from covent.verifiers.watch import ErrorWatch

Progress = Callable[[str, int, int], None]


def score_model(
    model_path: Path,
    settings: ScoringSettings,
    *,
    out: Path | None = None,
    progress: Progress = lambda phase, done, total: None,
    warn: Callable[[str], None] = lambda message: None,
) -> Scores:
    """Sample, judge and score.

    Args:
      model_path: folder of a model, or of a run, whose final model is meant.
      out: a new file for every response with its verdict, one JSON line each; written batch by batch.
      progress: called with (phase, problems done, problems in all).
      warn: called with what a person should know.
    Raises:
      CoventError: the model, the data or a setting cannot be used; too many responses cannot be judged.
      Stopped: a signal asked for it; `out` holds the batches that were judged.
    """
    make_deterministic(settings.threads, device_of(settings.device))
    task = make_task(settings.task, settings.seed, settings.verifier, settings.reward, for_training=False)
    data = data_task(task)
    assert data is not None
    if data.rejected:
        warn(f"{len(data.rejected)} of {data.num_rows} rows of the data cannot be used and are left out.")
    problems = list(islice(data.problems(), settings.max_problems))
    _check_sources(settings, problems)
    model = _model(model_path, settings, task)
    check_prompts(model, task, settings.max_response_tokens, setting="max_response_tokens")
    with contextlib.closing(data), _lines(out) as write:
        found = _Found(settings, model, task, write)
        try:
            for done, batch in _batches(settings, problems):
                progress("problems", done, len(problems))
                found.take(batch)
        except stopping.Stopped:
            if out is not None:
                warn(f"{out} holds {found.num_written} responses; those of the batch that was at work are lost.")
            raise
        progress("problems", len(problems), len(problems))
    return found.scores()


def _check_sources(settings: ScoringSettings, problems: Sequence[Problem]) -> None:
    """Raises: ConfigError: a source that no row has, or several samples of the one most likely response."""
    known = list(dict.fromkeys(problem.source for problem in problems))
    for source in settings.by_source:
        if source not in known:
            raise ConfigError(
                f"by_source.{source}: no row has this {settings.task.source_key}. {suggestion(source, known)}"
            )
    for source in known:
        number, temperature = settings.sampling(source)
        if temperature == 0 and number > 1:
            where = f"by_source.{source}." if source in settings.by_source else ""
            raise ConfigError(
                f"temperature = 0 takes the most likely response, and {number} samples of it are the same. Set"
                f" {where}samples_per_prompt=1."
            )


def _model(path: Path, settings: ScoringSettings, task: Task) -> LanguageModel:
    if (path / "run.json").is_file():
        path = path / "model"
        if not path.is_dir():
            raise MissingPathError(f"The run {path.parent} has no final model yet: covent resume {path.parent}")
    device = device_of(settings.device)
    dtype = arithmetic_of(settings.dtype, device, downloaded=True)
    model = load_model(ModelSettings(path=str(path)), task, seed=settings.seed, dtype=dtype, device=device)
    return model.sampled_by(settings.sampler, responses_per_forward=settings.responses_per_forward)


def _batches(settings: ScoringSettings, problems: Sequence[Problem]) -> Iterator[tuple[int, list[tuple[int, Problem]]]]:
    """Neighbours of one source, as many as fit into a forward pass, with their numbers; and how many came before."""
    numbered = enumerate(problems)
    for source, group in groupby(numbered, key=lambda pair: pair[1].source):
        at_once = max(1, settings.responses_per_forward // settings.sampling(source)[0])
        while batch := list(islice(group, at_once)):
            yield batch[0][0], batch


@dataclass
class _Source:
    """What is known of one source so far."""

    results: list[ProblemResult] = field(default_factory=list)
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    num_truncated: int = 0
    num_responses: int = 0
    num_answers: int = 0
    entropy: EntropyReading | None = None


@dataclass
class _Found:
    """All results so far."""

    settings: ScoringSettings
    model: LanguageModel
    task: Task
    write: Callable[[dict[str, Any]], None]
    by_source: dict[str, _Source] = field(default_factory=dict)
    num_written: int = 0

    def __post_init__(self) -> None:
        self._watch = ErrorWatch(self.settings.verifier.max_error_frac)

    def take(self, batch: Sequence[tuple[int, Problem]]) -> None:
        """Sample and judge some problems of one source."""
        name = batch[0][1].source
        number, temperature = self.settings.sampling(name)
        responses = self.model.sample(
            dict(batch),
            num_samples=number,
            max_tokens=self.settings.max_response_tokens,
            key=key(self.settings.seed, "eval"),
            temperature=temperature,
        )
        answers = answers_of(self.model, responses, dict(batch))
        judgements = self.task.judge(answers, stopping.poll)
        source = self.by_source.setdefault(name, _Source())
        entropy = response_entropy(responses, policy=self.model.entropies_of)
        source.entropy = entropy if source.entropy is None else source.entropy + entropy
        source.verdicts.update(judgement.verdict for judgement in judgements)
        source.num_truncated += int(responses.truncated.sum())
        source.num_responses += len(responses)
        for place, (_, problem) in enumerate(batch):
            rows = slice(place * number, (place + 1) * number)
            texts = [answer.text for answer in answers[rows]]
            source.results.append(self._result(source, texts, judgements[rows]))
            self._keep(problem, texts, judgements[rows], responses.truncated[rows].tolist())
        # Last: whoever mends the verifier can look at what it did.
        self._watch.see(judgements, f"the problems from {batch[0][1].place} on")

    def _result(self, source: _Source, texts: Sequence[str], judgements: Sequence[Judgement]) -> ProblemResult:
        judged = [pair for pair in zip(texts, judgements, strict=True) if pair[1].verdict.is_judged]
        right = [judgement.verdict is Verdict.RIGHT for _, judgement in judged]
        voted = [voted_answer(text) for text, _ in judged]
        source.num_answers += sum(answer is not None for answer in voted)
        return ProblemResult(len(judged), sum(right), majority_vote(voted, right))

    def _keep(
        self, problem: Problem, texts: Sequence[str], judgements: Sequence[Judgement], cut: Sequence[bool]
    ) -> None:
        for sample_number, (text, judgement, truncated) in enumerate(zip(texts, judgements, cut, strict=True)):
            self.write(
                {
                    "place": problem.place,
                    "source": problem.source,
                    "prompt": problem.prompt,
                    "answer": problem.answer,
                    "sample": sample_number,
                    "response": text,
                    "verdict": str(judgement.verdict),
                    "reward": judgement.reward,
                    "truncated": truncated,
                }
            )
            self.num_written += 1

    def scores(self) -> Scores:
        """Of everything so far."""
        task = self.settings.task
        # Programs are no answers, and an answer that is not marked is not found by the vote.
        votes = task.verifier == "exact" or (task.verifier == "math" and task.marked)
        found = []
        for name, source in self.by_source.items():
            number, temperature = self.settings.sampling(name)
            assert source.entropy is not None

            def share(count: int, of: int = source.num_responses) -> Mean:
                return Mean(sum=count, count=of)

            found.append(
                source_scores(
                    name,
                    source.results,
                    num_samples=number,
                    temperature=temperature,
                    can_vote=votes and source.num_answers > 0,
                    unparsable=share(source.verdicts[Verdict.UNPARSABLE]),
                    truncated=share(source.num_truncated),
                    error=share(source.verdicts[Verdict.ERROR]),
                    entropy=source.entropy,
                )
            )
        return scores(found)


@contextlib.contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Writes rows to a new file, each of them at once; nowhere without a path."""
    if path is None:
        yield lambda row: None
        return
    with disk_errors(f"Writing {path}", "then call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("x", encoding="utf-8", buffering=1)
        except FileExistsError as error:
            raise RunExistsError(f"{path} is there already, and is not written over. Name another file.") from error
    with file:

        def write(row: dict[str, Any]) -> None:
            with disk_errors(f"Writing {path}", "then call again"):
                file.write(json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n")

        yield write
