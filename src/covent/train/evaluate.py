"""Held-out evaluation: greedy, avg@k and unbiased pass@k, each with an interval over problems; verdicts kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from covent import stopping
from covent.core.keys import key
from covent.errors import VerifierError
from covent.readings import Mean
from covent.rollout.batch import Responses
from covent.store.estimates import pass_at_k, powers_of_two, wilson
from covent.store.schema import EvaluationRow, VerdictRow
from covent.tasks import Judgement, Problem, Task, Verdict
from covent.train.model import LanguageModel
from covent.train.rollouts import answers_of, response_entropy
from covent.verifiers.watch import ErrorWatch


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
    max_error_frac: float = 0.01

    def take(self, model: LanguageModel, task: Task, step: int) -> tuple[EvaluationRow, list[VerdictRow]]:
        """Evaluate the policy after `step` rounds of updates. The same step draws the same random numbers."""
        start = time.perf_counter()
        sampled = self._sample(model, self.num_samples, 1.0, key(self.seed, self.split, step))
        verdicts = [judgement.verdict for judgement in self._judged(model, task, sampled, step)]
        table = [verdicts[i : i + self.num_samples] for i in range(0, len(verdicts), self.num_samples)]
        num_right = [row.count(Verdict.RIGHT) for row in table]
        # Responses that could not be judged are no samples.
        judged = [(count, sum(v.is_judged for v in row)) for count, row in zip(num_right, table, strict=True)]
        greedy_texts: list[str] | None = None
        greedy_verdicts: list[Verdict] | None = None
        if self.greedy:
            greedy = self._sample(model, 1, 0.0, 0)
            greedy_texts = model.decode_all(greedy)
            greedy_verdicts = [judgement.verdict for judgement in self._judged(model, task, greedy, step)]
        row = EvaluationRow(
            step=step,
            split=self.split,
            num_problems=len(self.problems),
            num_samples=self.num_samples,
            greedy=wilson([float(v is Verdict.RIGHT) for v in greedy_verdicts if v.is_judged])
            if greedy_verdicts
            else None,
            avg=wilson([count / number for count, number in judged if number]),
            pass_at={
                str(k): wilson([pass_at_k(number, count, k) for count, number in judged if number >= k])
                for k in powers_of_two(self.num_samples)
                if any(number >= k for _, number in judged)
            },
            entropy=response_entropy(sampled, policy=model.entropies_of),
            num_right=num_right,
            unparsable=Mean(sum=verdicts.count(Verdict.UNPARSABLE), count=len(verdicts)),
            error=Mean(sum=verdicts.count(Verdict.ERROR), count=len(verdicts)),
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

    def _judged(self, model: LanguageModel, task: Task, responses: Responses, step: int) -> list[Judgement]:
        """Raises: VerifierError: too many responses could not be judged for an accuracy to mean anything."""
        answers = answers_of(model, responses, dict(enumerate(self.problems)))
        judgements = task.judge(answers, stopping.poll)
        ErrorWatch(self.max_error_frac).see(judgements, f"the {self.split} after {step} steps")
        if not any(judgement.verdict.is_judged for judgement in judgements):
            raise VerifierError(f"Not one response in the {self.split} after {step} steps could be judged.")
        return judgements

    def _sample(self, model: LanguageModel, num_samples: int, temperature: float, key: int) -> Responses:
        return model.sample(
            dict(enumerate(self.problems)),
            num_samples=num_samples,
            max_tokens=self.max_tokens,
            key=key,
            temperature=temperature,
            at_once=self.responses_per_forward,
        )
