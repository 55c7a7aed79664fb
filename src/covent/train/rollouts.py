"""From prompts to a batch that can be learnt from: sample, verify, give advantages, filter groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from covent import stopping
from covent.core.advantages import group_centred, group_standardised
from covent.core.keys import key
from covent.core.reduce import masked_sum, response_means
from covent.readings import EntropyReading, Mean
from covent.rollout.batch import Responses, join
from covent.rollout.sampler import sample
from covent.tasks import Problem, Task, Verdict, problems
from covent.train.config import TrainConfig
from covent.train.model import LanguageModel


@dataclass(frozen=True)
class Rollout:
    """What one rollout step sampled, and the part of it that is learnt from."""

    kept: Responses | None
    """Responses of the kept groups, the samples of a group together; None when no group was kept."""
    advantages: Tensor
    """[B] one advantage a kept response."""
    rewards: Tensor
    """[B] one reward a kept response."""
    problems: dict[int, Problem]
    """Problem of each sampled group, by group number."""
    verdicts: dict[int, list[Verdict]]
    """Verdicts of the samples of each group, by group number."""
    entropy: EntropyReading
    entropy_token: EntropyReading
    reward: Mean
    response_length: Mean
    truncated: Mean
    unparsable: Mean
    num_groups: int
    num_all_right: int
    num_all_wrong: int
    num_kept_groups: int
    num_generations: int
    bad_reward: str
    """Where the first reward that is NaN or infinite stands; empty when all are finite."""


class _Round(NamedTuple):
    """One generation round: responses with their verdicts and rewards, in one order."""

    responses: Responses
    verdicts: list[Verdict]
    rewards: list[float]


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

    @classmethod
    def resumed(
        cls, model: LanguageModel, task: Task, config: TrainConfig, max_tokens: int, num_groups: int
    ) -> RolloutSource:
        """The source after it has drawn so many problems."""
        stream = problems(task, "train", config.seed + 1)
        return cls(model, task, config, islice(stream, num_groups, None), max_tokens, num_groups)

    def next(self, step: int) -> Rollout:
        """Sample the rollout of a step, in several generation rounds if groups are to be refilled."""
        settings = self.config.rollout
        rounds: list[_Round] = []
        kept: list[Responses] = []
        kept_rewards: list[Tensor] = []
        self.drawn = {}
        while len(rounds) < (settings.max_generations if settings.group_filter == "refill" else 1):
            responses, new = self._generate(step)
            verdicts = self._verify(responses, new)
            rounds.append(_Round(responses, verdicts, [verdict.reward for verdict in verdicts]))
            rewards = torch.tensor(rounds[-1].rewards, dtype=responses.logprobs.dtype)
            by_group = rewards.view(-1, settings.samples_per_prompt)
            mixed = (by_group != by_group[:, :1]).any(dim=1)
            keep = torch.ones_like(mixed) if settings.group_filter == "none" else mixed
            room = settings.prompts_per_step - sum(len(rewards) for rewards in kept_rewards)
            chosen = keep.nonzero().squeeze(1)[:room]
            if len(chosen):
                offsets = torch.arange(settings.samples_per_prompt)
                rows = (chosen[:, None] * settings.samples_per_prompt + offsets).flatten()
                kept.append(responses.rows(rows.to(responses.group.device)))
                kept_rewards.append(by_group[chosen])
            if sum(len(rewards) for rewards in kept_rewards) >= settings.prompts_per_step:
                break
        return self._assemble(rounds, kept, kept_rewards)

    def _generate(self, step: int) -> tuple[Responses, dict[int, Problem]]:
        settings = self.config.rollout
        new = {self.num_groups + i: next(self.stream) for i in range(settings.prompts_per_step)}
        self.num_groups += len(new)
        self.drawn |= new
        numbers = list(new)
        at_once = max(1, settings.responses_per_forward // settings.samples_per_prompt)
        parts = [
            sample(
                self.model.network,
                [self.model.encode_prompt(new[number].prompt) for number in numbers[first : first + at_once]],
                groups=numbers[first : first + at_once],
                num_samples=settings.samples_per_prompt,
                max_tokens=self.max_tokens,
                end_id=self.model.end_id,
                pad_id=self.model.pad_id,
                key=key(self.config.seed, "rollout"),
                temperature=settings.temperature,
            )
            for first in range(0, len(numbers), at_once)
        ]
        return join(parts), new

    def _verify(self, responses: Responses, named: dict[int, Problem]) -> list[Verdict]:
        texts = self.model.decode_all(responses)
        verdicts = []
        for group, text in zip(responses.group.tolist(), texts, strict=True):
            stopping.poll()
            verdicts.append(self.task.verdict(named[group], text))
        return verdicts

    def _assemble(
        self,
        rounds: list[_Round],
        kept: list[Responses],
        kept_rewards: list[Tensor],
    ) -> Rollout:
        everything = join([each.responses for each in rounds])
        verdicts = [verdict for each in rounds for verdict in each.verdicts]
        given = [reward for each in rounds for reward in each.rewards]
        right = torch.tensor([verdict is Verdict.RIGHT for verdict in verdicts])
        by_group = right.view(-1, self.config.rollout.samples_per_prompt)
        count = len(verdicts)
        rewards = torch.cat(kept_rewards) if kept_rewards else torch.zeros(0, 2)
        advantage_of = group_standardised if self.config.scale_rewards == "group" else group_centred
        advantages = advantage_of(rewards) if kept_rewards else rewards
        verdicts_of: dict[int, list[Verdict]] = {}
        bad_reward = ""
        for group, verdict, reward in zip(everything.group.tolist(), verdicts, given, strict=True):
            of_group = verdicts_of.setdefault(group, [])
            if not bad_reward and not math.isfinite(reward):
                bad_reward = f"reward {reward} of group {group}, sample {len(of_group)}"
            of_group.append(verdict)
        return Rollout(
            kept=join(kept) if kept else None,
            advantages=advantages.flatten().to(everything.logprobs),
            rewards=rewards.flatten(),
            problems=self.drawn,
            verdicts=verdicts_of,
            entropy=response_entropy(everything, policy="sampler"),
            entropy_token=token_entropy(everything, policy="sampler"),
            # A mean over rewards of which one is NaN would be none; a mean over the others would hide it.
            reward=Mean(sum=0.0, count=0) if bad_reward else Mean(sum=sum(given), count=count),
            response_length=Mean(sum=float(everything.mask.sum()), count=count),
            truncated=Mean(sum=float(everything.truncated.sum()), count=count),
            unparsable=Mean(sum=verdicts.count(Verdict.UNPARSABLE), count=count),
            num_groups=len(by_group),
            num_all_right=int(by_group.all(dim=1).sum()),
            num_all_wrong=int((~by_group.any(dim=1)).sum()),
            num_kept_groups=len(rewards),
            num_generations=len(rounds),
            bad_reward=bad_reward,
        )


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
