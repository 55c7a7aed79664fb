"""Responses kept with their tokens: each column against another route, and no trace of them in the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from covent.store.reader import Run
from tests.support.tiny import CONTROLS, final_weights, tiny_run
from tests.support.tolerances import FLOAT32

SETTINGS = {"samples_kept": 6, "control": CONTROLS["clip_cov"].model_dump(), "optimizer": {"updates_per_rollout": 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny_run(tmp_path_factory.mktemp("samples") / "run", **SETTINGS)


def test_they_are_of_the_last_optimizer_step_of_their_rollout(run: Run) -> None:
    assert run.samples
    for sample in run.samples:
        assert sample.update == max(update.update for update in run.updates if update.step == sample.step)
    assert any(sample.old_logprobs != sample.logprobs for sample in run.samples)


def test_what_a_clip_took_is_what_the_ratios_say(run: Run) -> None:
    """clip_cov's range is the paper's, 1 - 1 to 1 + 1: only a ratio above 2 with A > 0 is cut."""
    for sample in run.samples:
        assert sample.old_logprobs is not None and sample.cut is not None
        ratios = [math.exp(new - old) for new, old in zip(sample.logprobs, sample.old_logprobs, strict=True)]
        assert sample.cut == [ratio > 2 and sample.advantage > 0 for ratio in ratios]


def test_alternatives_are_ordered_and_hold_the_sampled_token_at_its_own_log_prob(run: Run) -> None:
    found = 0
    for sample in run.samples:
        assert sample.alternatives is not None
        for token, logprob, each in zip(sample.tokens, sample.logprobs, sample.alternatives, strict=True):
            values = [value for _, value in each]
            assert values == sorted(values, reverse=True) and sum(map(math.exp, values)) <= 1 + FLOAT32
            known = dict(each)
            if token in known:
                found += 1
                assert known[token] == pytest.approx(logprob, abs=FLOAT32)
            else:
                assert logprob <= values[-1] + FLOAT32
    assert found > 10


def test_after_the_step_rewarded_responses_are_likelier(run: Run) -> None:
    """On the whole: what a policy gradient is for."""
    moved = []
    for sample in run.samples:
        assert sample.after_logprobs is not None and sample.after_entropies is not None
        change = sum(sample.after_logprobs) - sum(sample.logprobs)
        moved.append(change * sample.advantage)
    assert sum(moved) > 0 and any(change != 0 for change in moved)


def test_the_groups_rewards_hold_the_responses_own(run: Run) -> None:
    for sample in run.samples:
        assert sample.group_rewards is not None and len(sample.group_rewards) == 4
        assert sample.reward in sample.group_rewards and len(set(sample.group_rewards)) > 1


def test_keeping_them_changes_nothing_in_the_run(run: Run, tmp_path: Path) -> None:
    bare = tiny_run(tmp_path / "bare", **SETTINGS | {"samples_kept": 0})
    plain = tiny_run(tmp_path / "plain", **SETTINGS | {"samples_detail": False})
    assert not bare.samples and all(sample.alternatives is None for sample in plain.samples)
    assert [sample.logprobs for sample in plain.samples] == [sample.logprobs for sample in run.samples]
    for other in (bare, plain):
        assert other.updates == run.updates
        mine = final_weights(other)
        assert all(tensor.equal(mine[name]) for name, tensor in final_weights(run).items())
