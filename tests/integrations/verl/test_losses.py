"""covent's losses as verl calls them: against covent's core, and in the scope `micro` against verl's own."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import get_policy_loss_fn

from covent import controls
from covent.controls import KLCov, PPOClip
from covent.core.keys import TokenIdentity
from covent.core.loss import surrogate
from covent.core.plan import Measured, Plan
from covent.core.reduce import AGGREGATIONS as MODES
from covent.core.reduce import BatchCounts
from covent.errors import ConfigError
from tests.integrations.verl.made_up import AGGREGATIONS, LENGTH, ROWS, actor, loss_and_gradient, micro_batch
from tests.support.tolerances import VERL_LOSSES

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]

SEEDS = range(20)


def agree(one: tuple[float, Tensor], other: tuple[float, Tensor]) -> bool:
    """Loss and gradient alike."""
    near = torch.allclose(one[1], other[1], rtol=VERL_LOSSES, atol=VERL_LOSSES)
    return near and abs(one[0] - other[0]) <= VERL_LOSSES * max(1.0, abs(other[0]))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_kl_cov_in_a_micro_batch_is_verls(aggregation: str) -> None:
    for seed in SEEDS:
        batch = micro_batch(seed)
        weights = torch.rand(ROWS, LENGTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        settings = {"kl_cov_ratio": 0.02, "ppo_kl_coef": 0.7, "aggregation": aggregation}
        for more in ({}, {"rollout_is_weights": weights}):
            ours = loss_and_gradient(
                get_policy_loss_fn("covent_kl_cov"), batch, actor("covent_kl_cov", scope="micro", **settings), **more
            )
            theirs = loss_and_gradient(get_policy_loss_fn("kl_cov"), batch, actor("kl_cov", **settings), **more)
            wrong = loss_and_gradient(
                get_policy_loss_fn("kl_cov"), batch, actor("kl_cov", **settings | {"kl_cov_ratio": 0.06}), **more
            )
            assert agree(ours, theirs)
            assert not agree(ours, wrong)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_clip_cov_in_a_micro_batch_is_verls_where_it_takes_every_candidate(aggregation: str) -> None:
    clip = {"clip": (0.3, 0.3), "aggregation": aggregation}
    for seed in SEEDS:
        batch = micro_batch(seed)
        settings = {"clip_cov_ratio": 1.0, "clip_cov_lb": 0.2, "clip_cov_ub": 5.0} | clip
        ours = loss_and_gradient(
            get_policy_loss_fn("covent_clip_cov"), batch, actor("covent_clip_cov", scope="micro", **settings)
        )
        theirs = loss_and_gradient(get_policy_loss_fn("clip_cov"), batch, actor("clip_cov", **settings))
        wrong = loss_and_gradient(
            get_policy_loss_fn("clip_cov"), batch, actor("clip_cov", **settings | {"clip_cov_lb": 0.5})
        )
        assert agree(ours, theirs)
        assert not agree(ours, wrong)


def test_clip_cov_with_covents_draw_put_into_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"clip_cov_ratio": 0.05, "clip_cov_lb": 0.0, "clip_cov_ub": 5.0, "clip": (1.0, 1.0)}
    plain = actor("covent", scope="micro", clip=(1.0, 1.0), control={"type": "ppo_clip", "clip_ratio_low": 1.0,
                                                                     "clip_ratio_high": 1.0})  # fmt: skip
    other_draws = 0
    for seed in SEEDS:
        batch = micro_batch(seed)
        ours = loss_and_gradient(
            get_policy_loss_fn("covent_clip_cov"), batch, actor("covent_clip_cov", scope="micro", **settings)
        )
        everyone = loss_and_gradient(get_policy_loss_fn("covent"), batch, plain)
        mask = batch["response_mask"].bool()
        candidates = torch.nonzero(_candidates(batch, mask))
        taken = (ours[1] == 0) & (everyone[1] != 0)
        drawn = [place for place, (row, column) in enumerate(candidates.tolist()) if taken[row, column]]
        assert len(drawn) == int(taken.sum()) == max(int(0.05 * int(mask.sum())), 1)
        rest = [place for place in range(len(candidates)) if place not in drawn]
        with monkeypatch.context() as put:
            put.setattr(torch, "randperm", lambda n, order=(drawn, rest): torch.tensor([*order[0], *order[1]])[:n])
            theirs = loss_and_gradient(get_policy_loss_fn("clip_cov"), batch, actor("clip_cov", **settings))
            put.setattr(torch, "randperm", lambda n, order=(rest, drawn): torch.tensor([*order[0], *order[1]])[:n])
            wrong = loss_and_gradient(get_policy_loss_fn("clip_cov"), batch, actor("clip_cov", **settings))
        assert agree(ours, theirs)
        other_draws += not agree(ours, wrong)
    assert other_draws == len(SEEDS)


def _candidates(batch: dict[str, Tensor], mask: Tensor) -> Tensor:
    """verl's condition, in plain terms; the band is (0, 5) and the clip cuts ratios above 2."""
    logprobs, advantages = batch["log_prob"], batch["advantages"]
    covariances = (logprobs - logprobs[mask].mean()) * (advantages - advantages[mask].mean())
    cut = ((logprobs - batch["old_log_prob"]).exp() > 2) & (advantages > 0)
    return mask & ~cut & (covariances > 0) & (covariances < 5)


def test_no_control_is_verls_vanilla() -> None:
    """Its dual clip is always on."""
    beyond_it = 0
    for seed in SEEDS:
        batch = micro_batch(seed)
        batch["old_log_prob"] = batch["log_prob"] + 3 * (batch["old_log_prob"] - batch["log_prob"])
        plain = {"type": "ppo_clip", "clip_ratio_low": 0.2, "clip_ratio_high": 0.2, "clip_ratio_c": 3.0}
        ours = loss_and_gradient(get_policy_loss_fn("covent"), batch, actor("covent", scope="micro", control=plain))
        theirs = loss_and_gradient(get_policy_loss_fn("vanilla"), batch, actor("vanilla"))
        single = loss_and_gradient(
            get_policy_loss_fn("covent"), batch, actor("covent", scope="micro", control=plain | {"clip_ratio_c": None})
        )
        assert agree(ours, theirs)
        beyond_it += not agree(ours, single)
    assert beyond_it > len(SEEDS) // 2


@pytest.mark.parametrize("aggregation", [mode for mode in AGGREGATIONS if mode in MODES])
def test_any_control_is_the_core_on_the_same_micro_batch(aggregation: str) -> None:
    """The exact KL-Cov: less than one token is none, unlike verl's."""
    for seed in SEEDS:
        batch, setting = micro_batch(seed), KLCov(kl_cov_ratio=0.05, ppo_kl_coef=0.5, kl_form="k3")
        control = setting.model_dump()
        found = loss_and_gradient(
            get_policy_loss_fn("covent"),
            batch,
            actor("covent", scope="micro", control=control, aggregation=aggregation),
        )
        plan = controls.plan(_measured(batch), setting, 0)
        assert agree(found, _core(batch, plan, aggregation))
        wrong = controls.plan(_measured(batch, advantages=batch["advantages"].roll(1, 0)), setting, 0)
        assert not agree(found, _core(batch, wrong, aggregation))


def _measured(batch: dict[str, Tensor], **other: Tensor) -> Measured:
    mask = batch["response_mask"].bool()
    row, position = torch.meshgrid(torch.arange(ROWS), torch.arange(LENGTH), indexing="ij")
    columns: dict[str, Any] = {
        "logprobs": batch["log_prob"],
        "old_logprobs": batch["old_log_prob"],
        "entropies": torch.zeros_like(batch["log_prob"]),
        "advantages": batch["advantages"],
        "mask": mask,
        "identity": TokenIdentity(row, torch.zeros_like(row), position),
    }
    return Measured(**columns | other)


def _core(batch: dict[str, Tensor], plan: Plan, aggregation: str) -> tuple[float, Tensor]:
    mask = batch["response_mask"].bool()
    logprobs = batch["log_prob"].clone().requires_grad_()
    terms = surrogate(logprobs, batch["old_log_prob"], batch["advantages"], mask, plan)
    counts = BatchCounts(int(mask.sum()), int(mask.any(dim=1).sum()), LENGTH)
    loss = MODES[aggregation](terms.aggregated, mask, counts)
    return loss.item(), torch.autograd.grad(loss, logprobs)[0]


def test_a_control_that_says_nothing_of_the_clip_has_verls() -> None:
    clip = PPOClip(clip_ratio_low=0.1, clip_ratio_high=0.3, clip_ratio_c=3.0)
    batch = micro_batch(0)
    stack = [clip.model_dump(), {"type": "kl_cov_released", "kl_cov_ratio": 0.02}]
    with pytest.raises(ConfigError, match="want different clips"):
        loss_and_gradient(get_policy_loss_fn("covent"), batch, actor("covent", scope="micro", control=stack))


@pytest.mark.parametrize(
    ("mode", "settings", "said"),
    [
        ("covent_kl_cov", {}, "trainer.v1.trainer_mode=covent"),
        ("covent_kl_cov", {"scope": "rank"}, "scope=micro"),
        ("covent", {"scope": "micro"}, "policy_loss.control"),
        ("covent_kl_cov", {"scope": "micro", "control": {"type": "kl_cov"}}, "does not read it"),
        ("covent", {"scope": "micro", "control": {"type": "klcov"}}, "klcov"),
        ("covent", {"scope": "micro", "control": {"type": "entropy_bonus"}}, "entropy_bonus"),
        ("covent", {"scope": "micro", "control": {"type": "top_entropy"}}, "top_entropy"),
        ("covent_kl_cov", {"scope": "everywhere"}, "scope"),
        ("covent_kl_cov", {"scope": "micro", "kl_cov_ratio": 20.0}, "kl_cov_ratio"),
    ],
)
def test_what_cannot_be_meant_is_refused(mode: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loss_and_gradient(get_policy_loss_fn(mode), micro_batch(0), actor(mode, **settings))


def test_a_micro_batch_without_a_token_has_no_loss_and_a_gradient() -> None:
    batch = micro_batch(0)
    batch["response_mask"] = torch.zeros_like(batch["response_mask"])
    value, gradient = loss_and_gradient(
        get_policy_loss_fn("covent_kl_cov"), batch, actor("covent_kl_cov", scope="micro")
    )
    assert value == 0
    assert not gradient.any()
