"""What one generation of TRL was: counted response by response, over all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from covent.core import ranks
from covent.core.ranks import ProcessGroup
from covent.core.reduce import masked_sum, means_of_responses
from covent.core.shapes import Tensor
from covent.integrations.trl.batch import OLD_ENTROPIES, Columns, Scores
from covent.readings import EntropyReading, Mean
from covent.store.schema import StepRow


@dataclass
class Rewards:
    """The rewards of one generation, of all ranks, in the order of TRL's generation batch."""

    total: Tensor
    """[N] TRL's weighted sum; NaN where no reward function had an answer."""
    accuracy: Tensor
    """[N] the reward that is the accuracy."""
    group_size: int

    @classmethod
    def of(
        cls, by_function: Tensor, weights: Tensor, names: list[str], accuracy: str | None, group_size: int
    ) -> Rewards:
        """From TRL's table of rewards.

        Args:
          by_function: [N, functions].
          weights: TRL's, one a function.
          names: of the functions.
          accuracy: the one that is the accuracy; None for the weighted sum.
        """
        by_function = by_function.detach().double().cpu()
        total = (by_function * weights.double().cpu()).nansum(dim=1)
        total[by_function.isnan().all(dim=1)] = torch.nan
        return cls(total, total if accuracy is None else by_function[:, names.index(accuracy)], group_size)

    def mean(self) -> Mean:
        """Of the accuracy, over the responses that have one."""
        known = self.accuracy[~self.accuracy.isnan()]
        return Mean(sum=float(known.sum()), count=len(known))

    def right(self, right_from: float) -> Tensor:
        """[groups, samples] bool: accuracy of at least so much."""
        return (self.accuracy >= right_from).view(-1, self.group_size)

    def num_mixed(self) -> int:
        """Groups in which not all total rewards are equal."""
        groups = self.total.nan_to_num().view(-1, self.group_size)
        return int((groups != groups[:, :1]).any(dim=1).sum())


@dataclass
class Rollout:
    """One generation while it is trained on."""

    step: int
    rewards: Rewards
    num_responses: int
    """Of this rank."""
    length: float
    truncated: float
    sampler_gap: float | None
    entropy: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0.0])
    """Sum over responses of their mean entropy, responses, sum over tokens, tokens; of this rank."""
    to_measure: int = 0
    """Micro-batches whose entropies come with their first pass through the loss, as TRL did not score them before."""
    num_updates: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def measured(self, columns: Columns, scores: Scores) -> None:
        """Take in a micro-batch on its first pass, when the policy is the one that sampled it."""
        if self.to_measure == 0:
            return
        self.to_measure -= 1
        found = _entropy_sums(scores.entropies, columns.mask)
        self.entropy = [before + more for before, more in zip(self.entropy, found, strict=True)]

    def row(self, settings: RolloutSettings, group: ProcessGroup | None, device: torch.device) -> StepRow:
        """As a row of the run folder. Every rank must call it."""
        own = [*self.entropy, self.num_responses, self.length, self.truncated]
        sums = ranks.total(torch.tensor(own, dtype=torch.float64, device=device if group else "cpu"), group).tolist()
        gap = None
        if self.sampler_gap is not None:
            gap = float(ranks.largest(torch.tensor(self.sampler_gap, device=device if group else "cpu"), group))
        right = self.rewards.right(settings.right_from)
        shared = {
            "estimator": "exact",
            "temperature": settings.temperature,
            "policy": "learner",
            "tokens": "kept responses" if settings.masks_truncated else "all responses",
        }
        count = round(sums[4])
        return StepRow(
            step=self.step,
            entropy=EntropyReading(sum=sums[0], count=round(sums[1]), weighting="response", **shared),
            entropy_token=EntropyReading(sum=sums[2], count=round(sums[3]), weighting="token", **shared),
            reward=self.rewards.mean(),
            response_length=Mean(sum=sums[5], count=count),
            truncated=Mean(sum=sums[6], count=count),
            unparsable=Mean(sum=0, count=0),
            num_groups=len(right),
            num_all_right=int(right.all(dim=1).sum()),
            num_all_wrong=int((~right.any(dim=1)).sum()),
            num_kept_groups=self.rewards.num_mixed(),
            num_generations=1,
            num_updates=self.num_updates,
            sampler_gap=gap,
            seconds=self.seconds,
        )


@dataclass(frozen=True)
class RolloutSettings:
    """What of TRL's and covent's settings a rollout's row depends on."""

    right_from: float
    temperature: float
    masks_truncated: bool
    end_ids: tuple[int, ...]
    micro_batches: int
    """Of one generation on one rank."""


def rollout_of(step: int, output: dict[str, Any], rewards: Rewards, settings: RolloutSettings) -> Rollout:
    """A generation as TRL returns it, with covent's columns.

    Args:
      step: number of the generation in the run.
      output: of TRL's `_generate_and_score_completions`.
    """
    columns = Columns.of(output)
    written = output["completion_mask"].bool()
    last = output["completion_ids"].masked_fill(~written, -1)
    lengths = written.sum(dim=1)
    final = last.gather(1, (lengths - 1).clamp(min=0)[:, None]).squeeze(1)
    # TRL empties the mask of truncated responses if it is told to; they are truncated all the same.
    truncated = (lengths == 0) | ~torch.isin(final, torch.tensor(settings.end_ids, device=final.device))
    gap = None
    sampler, old = columns.sampler_logprobs, columns.old_logprobs
    if sampler is not None and old is not None:
        gap = float((sampler - old).abs().nan_to_num().masked_fill(~columns.mask, 0.0).max())
    found = Rollout(
        step=step,
        rewards=rewards,
        num_responses=len(written),
        length=float(lengths.sum()),
        truncated=float(truncated.sum()),
        sampler_gap=gap,
    )
    if OLD_ENTROPIES in output:
        found.entropy = _entropy_sums(output[OLD_ENTROPIES], columns.mask)
    else:
        found.to_measure = settings.micro_batches
    return found


def _entropy_sums(entropies: Tensor, mask: Tensor) -> list[float]:
    wide = entropies.detach().cpu().double()
    mask = mask.cpu()
    means = means_of_responses(wide, mask)
    return [float(each) for each in (means.sum(), mask.any(dim=1).sum(), masked_sum(wide, mask), mask.sum())]
