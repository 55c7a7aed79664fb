"""The updates of one rollout on a tiny tabular policy, split into micro-batches and over processes in any way.

Run as a program it is a few gloo ranks: `python -m tests.support.rollout_updates NUM_RANKS STORE RESULT`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from covent.controls import (
    AnyControl,
    ClipCov,
    EntropyBonus,
    KLCov,
    PPOClip,
    ReferenceKL,
    TopEntropy,
    TruncatedImportance,
    first_states,
    next_states,
    plan,
)
from covent.core import ranks
from covent.core.keys import TokenIdentity, key
from covent.core.loss import POLICY_LOSSES
from covent.core.penalties import PenaltyInputs
from covent.core.plan import Measured
from covent.core.reduce import AGGREGATIONS, part_of_mean
from tests.support.forked import run_ranks

VOCABULARY, LENGTH, NUM_PROMPTS, NUM_SAMPLES, NUM_UPDATES = 6, 24, 16, 4, 3
STEP_SIZE = 4.0

CLIP_COV, KL_COV = [ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2)], [KLCov(kl_cov_ratio=0.05)]

CASES: dict[str, tuple[list[AnyControl], str, str]] = {
    "ppo_clip": ([PPOClip(clip_ratio_c=1.5)], "vanilla", "token-mean"),
    "clip_cov": (CLIP_COV, "vanilla", "token-mean"),
    "kl_cov": (KL_COV, "vanilla", "token-mean"),
    "clip_cov_float32": (CLIP_COV, "vanilla", "token-mean"),
    "kl_cov_float32": (KL_COV, "vanilla", "token-mean"),
    "kl_cov_many": ([KLCov(kl_cov_ratio=0.7, kl_form="k3")], "vanilla", "token-sum"),
    "top_entropy": ([TopEntropy(), PPOClip()], "cispo", "seq-mean-token-sum"),
    "gspo": ([PPOClip(clip_ratio_low=0.05, clip_ratio_high=0.05)], "gspo", "seq-mean-token-mean"),
    "several": (
        [
            ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2),
            TopEntropy(top_entropy_quantile=0.6),
            EntropyBonus(entropy_coef=0.02, use_adaptive_entropy=True, entropy_target=2.0),
            ReferenceKL(kl_loss_coef=0.1),
            TruncatedImportance(rollout_is="sequence"),
        ],
        "vanilla",
        "seq-mean-token-sum-norm",
    ),
}
"""Name → controls, loss and aggregation: every loss and mode, and each control at least once. In a case of float32 the
plan is made from what was measured in float32; the loss stays in float64, so that the updates can be compared."""


@dataclass(frozen=True)
class Rollout:
    """Responses of a bigram policy: the logits of a token depend on the one before, so log-probs tie heavily."""

    tokens: Tensor
    """[B, LENGTH + 1]; the first is the prompt's last."""
    mask: Tensor
    advantages: Tensor
    """[B, LENGTH], two levels in all."""
    identity: TokenIdentity

    def rows(self, index: Tensor | slice) -> Rollout:
        identity = TokenIdentity(*(column[index] for column in self.identity))
        return Rollout(self.tokens[index], self.mask[index], self.advantages[index], identity)


def rollout() -> Rollout:
    """Seeded, with responses of different lengths and a tool's tokens in the middle of some."""
    generator = torch.Generator().manual_seed(0)
    num_rows = NUM_PROMPTS * NUM_SAMPLES
    tokens = torch.randint(VOCABULARY, (num_rows, LENGTH + 1), generator=generator)
    position = torch.arange(LENGTH).expand(num_rows, LENGTH)
    mask = position < torch.randint(2, LENGTH + 1, (num_rows, 1), generator=generator)
    mask &= ~((position > 5) & (position < 9) & (torch.arange(num_rows)[:, None] % 3 == 0))
    advantages = torch.randint(2, (num_rows, 1), generator=generator).double() * 2 - 1
    identity = TokenIdentity(
        torch.arange(NUM_PROMPTS).repeat_interleave(NUM_SAMPLES)[:, None].expand(num_rows, LENGTH),
        torch.arange(NUM_SAMPLES).repeat(NUM_PROMPTS)[:, None].expand(num_rows, LENGTH),
        position,
    )
    return Rollout(tokens, mask, advantages.expand(num_rows, LENGTH), identity)


def start_logits() -> Tensor:
    """[V, V]: the policy's logits after each token, of few different values, so that log-probs tie across states."""
    return torch.randint(-2, 3, (VOCABULARY, VOCABULARY), generator=torch.Generator().manual_seed(1)).double() / 2


def scores(logits: Tensor, part: Rollout) -> tuple[Tensor, Tensor]:
    """Log-prob of each token and entropy of its state."""
    table = logits.log_softmax(dim=-1)[part.tokens[:, :-1]]
    chosen = table.gather(-1, part.tokens[:, 1:, None]).squeeze(-1)
    return chosen, -(table.exp() * table).sum(dim=-1)


def updates(
    case: str, part: Rollout, *, num_micro: int, group: ranks.ProcessGroup | None = None
) -> Iterator[dict[str, Any]]:
    """Measure → Plan → Loss for each update of the rollout: the chosen tokens of this rank and the summed gradient."""
    settings, loss, mode = CASES[case]
    dtype = torch.float32 if case.endswith("float32") else torch.float64
    logits = start_logits()
    old, _ = scores(logits, part)
    states = first_states(settings)
    for update in range(NUM_UPDATES):
        logprobs, entropies = scores(logits, part)
        measured = Measured(
            logprobs=logprobs.to(dtype),
            old_logprobs=old.to(dtype),
            entropies=entropies.to(dtype),
            advantages=part.advantages.to(dtype),
            mask=part.mask,
            identity=part.identity,
            sampler_logprobs=old - 0.01 * part.tokens[:, 1:],
            reference_logprobs=old,
            group=group,
        )
        made = plan(measured, settings, key(0, "plan", update), states)
        states = next_states(states, settings, measured)
        counts = measured.counts(LENGTH)
        weights = logits.clone().requires_grad_()
        for rows in torch.arange(len(part.mask)).tensor_split(num_micro):
            if not len(rows):
                continue
            index = slice(int(rows[0]), int(rows[-1]) + 1)
            now, entropy = scores(weights, part.rows(index))
            inputs = PenaltyInputs(entropy, old[index])
            terms = POLICY_LOSSES[loss](
                now, old[index], part.advantages[index], part.mask[index], made.rows(index), inputs
            )
            value = AGGREGATIONS[mode](terms.aggregated, part.mask[index], counts)
            (value + part_of_mean(terms.bonus, part.mask[index], count=counts.num_tokens)).backward()
        # A rank without any response still takes part in the sum.
        own = torch.zeros_like(logits) if weights.grad is None else weights.grad
        gradient = ranks.total(own, group)
        covariances = [measured.covariances()[part.mask].tolist()]
        yield {
            "chosen": _of_tokens(part, made.chosen),
            "covariances": _of_tokens(part, part.mask, *covariances),
            "gradient": gradient.tolist(),
            "reading": made.reading.model_dump(),
            "states": [state and list(state) for state in states],
        }
        # A mode's unit decides the size of its gradient; the step keeps the policies comparable.
        logits = logits - STEP_SIZE * gradient / gradient.norm().clamp(min=1e-9) * 0.1


def _of_tokens(part: Rollout, where: Tensor, *values: list[float]) -> list[tuple[float, ...]]:
    """(prompt, sample, position) and values of some tokens, in order."""
    return sorted(zip(*(column[where].tolist() for column in part.identity), *values, strict=True))


def _rank(rank: int, num_ranks: int, store: str, result: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks)
    group = dist.group.WORLD
    assert group is not None
    everything = rollout()
    order = torch.randperm(len(everything.mask), generator=torch.Generator().manual_seed(num_ranks))
    # Ranks of very different size, the last without any response where there are four.
    shares = {1: [0.0, 1.0], 2: [0.0, 0.3, 1.0], 4: [0.0, 0.5, 0.9, 1.0, 1.0]}[num_ranks]
    ends = [int(share * len(order)) for share in shares]
    part = everything.rows(order[ends[rank] : ends[rank + 1]])
    found = {case: list(updates(case, part, num_micro=3, group=group)) for case in CASES}
    Path(f"{result}.{rank}").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    run_ranks(_rank, int(sys.argv[1]), sys.argv[2], sys.argv[3])
