"""Held-out evaluation: greedy, avg@k and unbiased pass@k, each with an interval over problems; verdicts kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from covent import stopping
from covent.core.keys import key
from covent.readings import Mean
from covent.rollout.batch import Responses, join
from covent.rollout.sampler import sample
from covent.store.estimates import pass_at_k, powers_of_two, wilson
from covent.store.schema import EvaluationRow, VerdictRow
from covent.tasks import Problem, Task, Verdict
from covent.train.model import LanguageModel
from covent.train.rollouts import response_entropy


@dataclass(frozen=True)
class Exam:
    """A fixed list of problems and how it is sampled."""

    split: Literal["validation", "test"]
    problems: Sequence[Problem]
    num_samples: int
    greedy: bool
    max_tokens: int
    responses_per_forward: int
    seed: int

    def take(self, model: LanguageModel, task: Task, step: int) -> tuple[EvaluationRow, list[VerdictRow]]:
        """Evaluate the policy after `step` rounds of updates. The same step draws the same random numbers."""
        start = time.perf_counter()
        sampled = self._sample(model, self.num_samples, 1.0, key(self.seed, self.split, step))
        verdicts = _verdicts(model, task, self.problems, sampled)
        table = [verdicts[i : i + self.num_samples] for i in range(0, len(verdicts), self.num_samples)]
        num_right = [row.count(Verdict.RIGHT) for row in table]
        greedy_texts: list[str] | None = None
        greedy_verdicts: list[Verdict] | None = None
        if self.greedy:
            greedy = self._sample(model, 1, 0.0, 0)
            greedy_texts = model.decode_all(greedy)
            greedy_verdicts = _verdicts(model, task, self.problems, greedy)
        row = EvaluationRow(
            step=step,
            split=self.split,
            num_problems=len(self.problems),
            num_samples=self.num_samples,
            greedy=wilson([float(v is Verdict.RIGHT) for v in greedy_verdicts]) if greedy_verdicts else None,
            avg=wilson([count / self.num_samples for count in num_right]),
            pass_at={
                str(k): wilson([pass_at_k(self.num_samples, count, k) for count in num_right])
                for k in powers_of_two(self.num_samples)
            },
            entropy=response_entropy(sampled, policy="sampler"),
            num_right=num_right,
            unparsable=Mean(sum=verdicts.count(Verdict.UNPARSABLE), count=len(verdicts)),
            seconds=time.perf_counter() - start,
        )
        rows = [
            VerdictRow(
                step=step,
                split=self.split,
                problem=problem.key,
                prompt=problem.prompt,
                answer=problem.answer,
                greedy_response=greedy_texts[i] if greedy_texts else None,
                greedy_verdict=str(greedy_verdicts[i]) if greedy_verdicts else None,
                verdicts={str(verdict): count for verdict, count in sorted(Counter(table[i]).items())},
            )
            for i, problem in enumerate(self.problems)
        ]
        return row, rows

    def _sample(self, model: LanguageModel, num_samples: int, temperature: float, key: int) -> Responses:
        prompts_at_once = max(1, self.responses_per_forward // num_samples)
        parts = []
        for first in range(0, len(self.problems), prompts_at_once):
            chunk = range(first, min(first + prompts_at_once, len(self.problems)))
            parts.append(
                sample(
                    model.network,
                    [model.encode_prompt(self.problems[i].prompt) for i in chunk],
                    groups=list(chunk),
                    num_samples=num_samples,
                    max_tokens=self.max_tokens,
                    end_id=model.end_id,
                    pad_id=model.pad_id,
                    key=key,
                    temperature=temperature,
                )
            )
        return join(parts)


def _verdicts(model: LanguageModel, task: Task, problems: Sequence[Problem], responses: Responses) -> list[Verdict]:
    texts = model.decode_all(responses)
    verdicts = []
    for group, text in zip(responses.group.tolist(), texts, strict=True):
        stopping.poll()
        verdicts.append(task.verdict(problems[group], text))
    return verdicts
