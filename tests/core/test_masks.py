"""Turns by a plain loop; what a tool wrote is as inert as padding in every quantity of the batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import torch

from covent.controls import ClipCov, KLCov, plan
from covent.core.masks import last_turn, policy_tokens, turns
from tests.support.batches import optimizer_batch


def wrote(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.7


def test_turns_are_runs_of_the_policys_tokens() -> None:
    batch = optimizer_batch(0)
    policy = policy_tokens(batch.mask, wrote(0, batch.mask.shape))
    for row, numbers, final in zip(policy.tolist(), turns(policy).tolist(), last_turn(policy).tolist(), strict=True):
        expected, turn = [], -1
        for is_policy, run in groupby(row):
            turn += is_policy
            expected += [turn if is_policy else -1] * len(list(run))
        assert numbers == expected
        assert final == [number == turn and number >= 0 for number in expected]
    assert int(turns(policy).max()) > 1
    assert not torch.equal(last_turn(policy), policy)


def test_tool_tokens_change_nothing_whatever_stands_there() -> None:
    batch = optimizer_batch(1)
    policy = policy_tokens(batch.mask, wrote(1, batch.mask.shape))
    tool = batch.mask & ~policy
    clean = replace(batch, mask=policy)
    dirty = replace(clean, logprobs=batch.logprobs.masked_fill(tool, -50.0), advantages=batch.advantages + 99 * tool)
    for settings in (KLCov(kl_cov_ratio=0.05), ClipCov(clip_cov_ratio=0.02, clip_cov_lb=0.2)):
        made = plan(dirty, settings, 0)
        assert torch.equal(made.chosen, plan(clean, settings, 0).chosen)
        assert not bool((made.chosen & tool).any()) and made.reading.num_tokens == int(policy.sum())
        counted = plan(replace(dirty, mask=batch.mask), settings, 0)
        assert not torch.equal(counted.chosen, made.chosen)
