"""Counts of chosen tokens against the released controls themselves, and against responses dealt out one by one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from covent.controls import ClipCovReleased, KLCov, KLCovReleased, plan
from covent.core.plan import Measured
from covent.lint import Report, lint
from tests.support.batches import optimizer_batch

LENGTH = 16
BASE = [
    f"trl.{name}" for name in ("num_generations=4", f"max_completion_length={LENGTH}", "gradient_accumulation_steps=1")
]


def batch(num_responses: int) -> Measured:
    """A batch of responses of one length, with the tail of covariances that a control needs."""
    made = optimizer_batch(3, num_prompts=num_responses // 4, num_samples=4, length=LENGTH)
    logprobs, old = (torch.nan_to_num(column, nan=-1.0) for column in (made.logprobs, made.old_logprobs))
    advantages = torch.nan_to_num(made.advantages).amax(1, keepdim=True).expand_as(logprobs).clone()
    advantages += torch.nan_to_num(made.advantages).amin(1, keepdim=True)
    return replace(made, logprobs=logprobs, old_logprobs=old, advantages=advantages, mask=torch.ones_like(made.mask))


def report(num_responses: int, per_micro_batch: int, ratio: float, *words: str) -> Report:
    """The linter on such a batch, in TRL's names."""
    return lint(
        None,
        [
            *BASE,
            f"trl.per_device_train_batch_size={per_micro_batch}",
            f"responses_per_update={num_responses}",
            f"covent.control.kl_cov_ratio={ratio}",
            *words,
        ],
        ranks=1,
        mean_response=LENGTH,
    )


@pytest.mark.parametrize("per_micro_batch", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("ratio", [0.05, 0.01, 0.002])
def test_as_many_tokens_as_the_released_control_takes(per_micro_batch: int, ratio: float) -> None:
    words = ("covent.control.type=kl_cov_released", "covent.scope=micro")
    counted = report(32, per_micro_batch, ratio, *words).counts
    settings = KLCovReleased(kl_cov_ratio=ratio, responses_per_micro_batch=per_micro_batch)
    chosen = int(plan(batch(32), settings, 0).chosen.sum())
    assert counted is not None
    assert counted.choices * counted.taken == chosen
    whole = int(plan(batch(32), KLCov(kl_cov_ratio=ratio), 0).chosen.sum())
    assert per_micro_batch == 32 or chosen != whole, "counting over the whole batch would have done"


@pytest.mark.parametrize("ratio", [0.05, 0.01, 0.003])
def test_as_many_tokens_as_the_exact_control_takes(ratio: float) -> None:
    counted = report(32, 4, ratio, "covent.control.type=kl_cov").counts
    assert counted is not None and counted.choices == 1
    assert counted.taken == int(plan(batch(32), KLCov(kl_cov_ratio=ratio), 0).chosen.sum())


def test_one_response_a_micro_batch_switches_the_released_clip_cov_off() -> None:
    """What the rule `one-response` says, shown: none chosen with 1, some with 8."""
    band = {"clip_cov_ratio": 0.05, "clip_cov_lb": 0.2, "clip_cov_ub": 5.0}
    some = [
        int(plan(batch(32), ClipCovReleased(**band, responses_per_micro_batch=size), 0).chosen.sum()) for size in (1, 8)
    ]
    assert some[0] == 0 and some[1] > 0


@pytest.mark.parametrize(("pack", "ranks"), [(20480, 32), (30720, 8), (9000, 4), (1300, 16)])
def test_packs_as_when_responses_are_dealt_out(pack: int, ranks: int) -> None:
    """256 responses of 1,000 tokens with prompts of 256, dealt to ranks; each rank makes as few packs as it can."""
    actor, response, prompt = "actor_rollout_ref.actor", 1000, 256
    words = [
        "data.train_batch_size=32",
        "data.max_prompt_length=2048",
        "actor_rollout_ref.rollout.n=8",
        f"{actor}.ppo_mini_batch_size=32",
        f"{actor}.policy_loss.loss_mode=kl_cov",
        f"{actor}.use_dynamic_bsz=true",
        f"{actor}.ppo_max_token_len_per_gpu={pack}",
        f"trainer.n_gpus_per_node={ranks}",
    ]
    counted = lint(None, words, mean_response=response).counts
    rank = [response + prompt for place in range(256) if place % ranks == 0]
    packs = 1
    while math.ceil(len(rank) / packs) > 1 and sum(rank) > packs * pack:
        packs += 1
    assert counted is not None
    assert counted.choices == packs * ranks
    assert counted.tokens == pytest.approx(len(rank) * response / packs)


@pytest.mark.parametrize(
    "missing", ["data.train_batch_size=${B}", "trainer.nnodes=$NODES", "data.max_response_length=???"]
)
def test_what_only_the_run_knows_is_not_counted(missing: str) -> None:
    words = ["actor_rollout_ref.actor.policy_loss.loss_mode=kl_cov", "actor_rollout_ref.actor.use_dynamic_bsz=true"]
    assert lint(None, words).counts is not None
    assert lint(None, [*words, missing]).counts is None
