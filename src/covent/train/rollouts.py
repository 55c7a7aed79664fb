"""From prompts to a batch that can be learnt from: sample, verify, give advantages, filter groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from covent import stopping
from covent.core.advantages import group_centred, group_standardised
from covent.core.keys import key
from covent.core.reduce import masked_sum, response_means
from covent.readings import EntropyReading, Mean
from covent.rollout.batch import Responses, join
from covent.store.schema import VerifierFaultRow
from covent.tasks import Answer, Judgement, Problem, Task, Verdict, problems
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel
from covent.train.verifier_faults import verifier_faults
from covent.verifiers.watch import ErrorWatch


@dataclass(frozen=True)
class Rollout:
    """What one rollout step sampled, and the part of it that is learnt from."""

    kept: Responses | None
    """Judged responses of the kept groups, the samples of a group together; None when no group was kept."""
    advantages: Tensor
    """[B] one advantage a kept response."""
    rewards: Tensor
    """[B] one reward a kept response."""
    group_sizes: tuple[int, ...]
    """Kept responses of each kept group: fewer than were sampled where some could not be judged."""
    problems: dict[int, Problem]
    """Problem of each sampled group, by group number."""
    judgements: dict[int, list[Judgement]]
    """Judgements of the samples of each group, by group number."""
    verifier_faults: list[VerifierFaultRow]
    entropy: EntropyReading
    entropy_token: EntropyReading
    reward: Mean
    response_length: Mean
    truncated: Mean
    unparsable: Mean
    error: Mean
    verdicts: dict[str, int]
    """Number of responses by verdict."""
    num_groups: int
    num_all_right: int
    num_all_wrong: int
    num_kept_groups: int
    num_generations: int
    bad_reward: str
    """Where the first reward stands that is NaN, infinite or too large to be learnt from; empty when there is none."""


@dataclass
class RolloutSource:
    """Samples rollouts from the stream of train problems. Groups are numbered through the whole run."""

    model: LanguageModel
    task: Task
    config: TrainConfig
    stream: Iterator[Problem]
    max_tokens: int
    num_groups: int = field(default=0)
    drawn: dict[int, Problem] = field(default_factory=dict)
    """Problems of the latest rollout by group number."""

    errors_counted: InitVar[Sequence[tuple[int, int]]] = ()

    def __post_init__(self, errors_counted: Sequence[tuple[int, int]]) -> None:
        self.watch = ErrorWatch(self.config.verifier.max_error_frac, errors_counted)

    @classmethod
    def resumed(
        cls,
        model: LanguageModel,
        task: Task,
        config: TrainConfig,
        max_tokens: int,
        num_groups: int,
        errors_counted: Sequence[tuple[int, int]],
    ) -> RolloutSource:
        """The source after it has drawn so many problems, and counted these errors of the verifier."""
        stream = islice(problems(task, "train", config.seed + 1), num_groups, None)
        return cls(model, task, config, stream, max_tokens, num_groups, errors_counted=errors_counted)

    def next(self, step: int) -> Rollout:
        """Sample the rollout of a step, in several generation rounds if groups are to be refilled."""
        settings = self.config.rollout
        rounds: list[_Round] = []
        kept: list[Responses] = []
        kept_rewards: list[Tensor] = []
        kept_judged: list[Tensor] = []
        self.drawn = {}
        while len(rounds) < (settings.max_generations if settings.group_filter == "refill" else 1):
            responses, new = self._generate(step)
            answers = answers_of(self.model, responses, new)
            judgements = self.task.judge(answers, stopping.poll)
            self.watch.see(judgements, f"rollout step {step}")
            rounds.append(_Round(responses, answers, judgements))
            rewards, judged = rounds[-1].rewards(settings.samples_per_prompt)
            keep = judged.any(dim=1) if settings.group_filter == "none" else _is_mixed(rewards, judged)
            room = settings.prompts_per_step - sum(len(rewards) for rewards in kept_rewards)
            chosen = keep.nonzero().squeeze(1)[:room]
            if len(chosen):
                offsets = torch.arange(settings.samples_per_prompt)
                rows = (chosen[:, None] * settings.samples_per_prompt + offsets)[judged[chosen]]
                kept.append(responses.rows(rows.to(responses.group.device)))
                kept_rewards.append(rewards[chosen])
                kept_judged.append(judged[chosen])
            if sum(len(rewards) for rewards in kept_rewards) >= settings.prompts_per_step:
                break
        learnt = (torch.cat(kept_rewards), torch.cat(kept_judged)) if kept else None
        return self._assemble(step, rounds, kept, learnt)

    def _generate(self, step: int) -> tuple[Responses, dict[int, Problem]]:
        settings = self.config.rollout
        new = {self.num_groups + i: next(self.stream) for i in range(settings.prompts_per_step)}
        self.num_groups += len(new)
        self.drawn |= new
        responses = self.model.sample(
            new,
            num_samples=settings.samples_per_prompt,
            max_tokens=self.max_tokens,
            key=key(self.config.seed, "rollout"),
            temperature=settings.temperature,
            at_once=settings.responses_per_forward,
        )
        return responses, new

    def _assemble(
        self, step: int, rounds: list[_Round], kept: list[Responses], learnt: tuple[Tensor, Tensor] | None
    ) -> Rollout:
        everything = join([each.responses for each in rounds])
        judgements = [judgement for each in rounds for judgement in each.judgements]
        answers = [answer for each in rounds for answer in each.answers]
        verdicts = Counter(judgement.verdict for judgement in judgements)
        shape = (-1, self.config.rollout.samples_per_prompt)
        right = torch.tensor([judgement.verdict is Verdict.RIGHT for judgement in judgements]).view(shape)
        judged = torch.tensor([judgement.reward is not None for judgement in judgements]).view(shape)
        count = len(judgements)
        # Responses that could not be judged are in no baseline and carry no gradient.
        rewards, present = learnt or (torch.zeros(0, 2), torch.zeros(0, 2, dtype=torch.bool))
        advantage_of = group_standardised if self.config.scale_rewards == "group" else group_centred
        identities = list(zip(everything.group.tolist(), everything.sample.tolist(), strict=True))
        by_group: dict[int, list[Judgement]] = {}
        for (group, _), judgement in zip(identities, judgements, strict=True):
            by_group.setdefault(group, []).append(judgement)
        bad_reward = _first_bad_reward(by_group, largest=_largest_reward(everything.logprobs.dtype, count))
        return Rollout(
            kept=join(kept) if kept else None,
            advantages=advantage_of(rewards, present=present)[present].to(everything.logprobs),
            rewards=rewards[present],
            group_sizes=tuple(present.sum(dim=1).tolist()),
            problems=self.drawn,
            judgements=by_group,
            verifier_faults=verifier_faults("train", step, identities, answers, judgements),
            entropy=response_entropy(everything, policy=self.model.entropies_of),
            entropy_token=token_entropy(everything, policy=self.model.entropies_of),
            # A mean over rewards of which one is NaN would be none; a mean over the others would hide it.
            reward=Mean(sum=0.0, count=0) if bad_reward else _mean_reward(judgements),
            response_length=Mean(sum=float(everything.mask.sum()), count=count),
            truncated=Mean(sum=float(everything.truncated.sum()), count=count),
            unparsable=Mean(sum=verdicts[Verdict.UNPARSABLE], count=count),
            error=Mean(sum=verdicts[Verdict.ERROR], count=count),
            verdicts={str(verdict): number for verdict, number in sorted(verdicts.items())},
            num_groups=len(right),
            num_all_right=int(((right | ~judged).all(dim=1) & judged.any(dim=1)).sum()),
            num_all_wrong=int((~right.any(dim=1) & judged.any(dim=1)).sum()),
            num_kept_groups=len(rewards),
            num_generations=len(rounds),
            bad_reward=bad_reward,
        )


@dataclass(frozen=True)
class _Round:
    """One generation round, judged."""

    responses: Responses
    answers: list[Answer]
    judgements: list[Judgement]

    def rewards(self, num_samples: int) -> tuple[Tensor, Tensor]:
        """[G, K] rewards, and which of them are there: where nothing is known a reward is 0 and not there."""
        rewards = [0.0 if judgement.reward is None else judgement.reward for judgement in self.judgements]
        judged = [judgement.reward is not None for judgement in self.judgements]
        return (
            torch.tensor(rewards, dtype=self.responses.logprobs.dtype).view(-1, num_samples),
            torch.tensor(judged).view(-1, num_samples),
        )


def _is_mixed(rewards: Tensor, judged: Tensor) -> Tensor:
    """[G] groups whose judged samples have different rewards; a reward that is NaN differs from all."""
    first = rewards.gather(1, judged.int().argmax(dim=1, keepdim=True))
    return ((rewards != first) & judged).any(dim=1)


def _mean_reward(judgements: Sequence[Judgement]) -> Mean:
    rewards = [judgement.reward for judgement in judgements if judgement.reward is not None]
    return Mean(sum=sum(rewards), count=len(rewards))


def _largest_reward(dtype: torch.dtype, count: int) -> float:
    """A size up to which the sum of the squares of so many rewards is finite: half of the bound, since sums round."""
    return math.sqrt(torch.finfo(dtype).max / count) / 2


def _first_bad_reward(judgements: Mapping[int, Sequence[Judgement]], largest: float) -> str:
    for group, row in judgements.items():
        for number, judgement in enumerate(row):
            # NaN is not within any bounds.
            if judgement.reward is not None and not -largest <= judgement.reward <= largest:
                return f"reward {judgement.reward} of group {group}, sample {number}"
    return ""


def answers_of(model: LanguageModel, responses: Responses, problems: Mapping[int, Problem]) -> list[Answer]:
    """The responses as text, each with the problem of its group."""
    ids, masks = responses.response_ids.cpu(), responses.mask.cpu()
    texts = model.decode_all(responses)
    return [
        Answer(problems[group], text, row[mask].tolist())
        for group, text, row, mask in zip(responses.group.tolist(), texts, ids, masks, strict=True)
    ]


def response_entropy(responses: Responses, *, policy: Literal["sampler", "learner"]) -> EntropyReading:
    """The paper's entropy: exact, T = 1, mean over a response's tokens, then over responses.

    Source: arXiv 2505.22617, Eq. 5.
    """
    means = response_means(responses.entropies.double(), responses.mask)
    return EntropyReading(
        sum=float(means.sum()),
        count=len(responses),
        estimator="exact",
        temperature=1.0,
        policy=policy,
        weighting="response",
        tokens="all responses",
    )


def token_entropy(responses: Responses, *, policy: Literal["sampler", "learner"]) -> EntropyReading:
    """The same tokens, each with equal weight."""
    return EntropyReading(
        sum=float(masked_sum(responses.entropies.double(), responses.mask)),
        count=int(responses.mask.sum()),
        estimator="exact",
        temperature=1.0,
        policy=policy,
        weighting="token",
        tokens="all responses",
    )
