"""The numpy twin against covent.core on torch, and verl's rule against plain loops over micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from covent.controls.clip_cov import ClipCov, clip_cov
from covent.controls.kl_cov import KLCov, kl_cov
from covent.core.covariance import covariance_tail as core_tail
from covent.core.keys import TokenIdentity
from covent.core.plan import Measured
from covent.errors import ConfigError
from covent.logs.dump import TokenBatch
from covent.logs.measure import Settings, measurement
from covent.logs.token_covariance import (
    clip_cov_candidates,
    clip_cov_micro,
    covariance_tail,
    kl_cov_micro,
    kl_cov_tokens,
    token_covariances,
)
from tests.support.tolerances import TIGHT

SEEDS = range(8)


def random_step(
    seed: int, num_sequences: int = 24, longest: int = 40, *, jitter: float = 0.0
) -> tuple[TokenBatch, Measured]:
    """One random step, as a dump and as the tensors that the trainer would measure; some tokens tie, up to a jitter."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, longest, num_sequences)
    shape = (num_sequences, longest)
    mask = np.arange(longest) < lengths[:, None]
    logprob = np.round(-rng.gamma(0.6, 0.8, shape), 0 if jitter else 2) - jitter * np.random.default_rng(
        [seed, 1]
    ).random(shape)
    old = logprob + 0.5 * rng.standard_normal(shape)
    advantage = np.broadcast_to(rng.choice([-1.5, -0.5, 0.5, 1.5], num_sequences)[:, None], shape)
    sequence, position = np.nonzero(mask)
    batch = TokenBatch(
        step=None,
        logprob=logprob[mask],
        advantage=advantage[mask],
        old_logprob=old[mask],
        entropy=None,
        sequence=sequence,
        position=position,
        group=sequence // 4,
        tokens=None,
    )
    rows, columns = np.indices(shape)
    identity = TokenIdentity(*(torch.from_numpy(np.ascontiguousarray(part)) for part in (rows // 4, rows, columns)))
    measured = Measured(
        logprobs=torch.from_numpy(logprob),
        old_logprobs=torch.from_numpy(old),
        entropies=torch.zeros(shape, dtype=torch.float64),
        advantages=torch.from_numpy(advantage.copy()),
        mask=torch.from_numpy(mask),
        identity=identity,
    )
    return batch, measured


@pytest.mark.parametrize("seed", SEEDS)
def test_covariances_and_tail_are_those_of_core(seed: int) -> None:
    batch, measured = random_step(seed)
    expected = measured.covariances()[measured.mask]
    ours = token_covariances(batch.logprob, batch.advantage)
    assert ours == pytest.approx(expected.numpy(), abs=TIGHT)
    tail, core = covariance_tail(ours).model_dump(), core_tail(expected).model_dump()
    assert tail["histogram"] == core["histogram"] and sum(tail["histogram"]) == ours.size
    assert tail["mean"] == pytest.approx(core["mean"], abs=TIGHT)
    assert tail["std"] == pytest.approx(core["std"], rel=TIGHT)
    for part in ("quantiles", "top_means", "positive_shares"):
        missing = [key for key, value in core[part].items() if value is None]
        assert [key for key, value in tail[part].items() if value is None] == missing
        expected_part = {key: value for key, value in core[part].items() if value is not None}
        assert {key: tail[part][key] for key in expected_part} == pytest.approx(expected_part, rel=TIGHT), part
    product = (batch.logprob * batch.advantage) - np.mean(batch.logprob * batch.advantage)
    assert ours != pytest.approx(product, abs=0.01), "the centre of the product is another quantity"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ratio", [2e-3, 2e-2, 0.2])
def test_kl_cov_chooses_what_the_control_chooses(seed: int, ratio: float) -> None:
    batch, measured = random_step(seed)
    expected = kl_cov(measured, KLCov(kl_cov_ratio=ratio), key=0).chosen[measured.mask]
    assert kl_cov_tokens(batch, ratio).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_near_ties_fall_on_the_same_grid(seed: int) -> None:
    """Covariances a few steps of the tie grid apart; a choice by their plain values is another."""
    num_plain = 0
    for ratio in (0.02, 0.05, 0.1, 0.2, 0.4):
        batch, measured = random_step(seed, jitter=3e-5)
        expected = kl_cov(measured, KLCov(kl_cov_ratio=ratio), key=0).chosen[measured.mask].numpy()
        assert kl_cov_tokens(batch, ratio).tolist() == expected.tolist()
        covariances = token_covariances(batch.logprob, batch.advantage)
        plain = np.argsort(-covariances, kind="stable")[: int(expected.sum())]
        num_plain += set(plain) != set(np.flatnonzero(expected))
    assert num_plain > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_clip_cov_has_the_candidates_of_the_control(seed: int) -> None:
    batch, measured = random_step(seed)
    settings = ClipCov(clip_cov_ratio=1.0, clip_cov_lb=0.3, clip_cov_ub=2.0)
    expected = clip_cov(measured, settings, key=0).chosen[measured.mask]
    ours = clip_cov_candidates(batch, 0.3, 2.0)
    assert ours.tolist() == expected.tolist()
    open_batch = TokenBatch(**{**vars(batch), "old_logprob": None})
    assert clip_cov_candidates(open_batch, 0.3, 2.0).sum() > ours.sum(), "the PPO clip cuts some of them"


def verl_kl_cov(batch: TokenBatch, ratio: float, size: int) -> set[int]:
    """verl's rule by plain loops: its own means, at least one token, in each micro-batch."""
    chosen: set[int] = set()
    for start in range(0, batch.num_sequences, size):
        rows = [i for i in range(len(batch)) if start <= batch.sequence[i] < start + size]
        mean_logprob = sum(batch.logprob[i] for i in rows) / len(rows)
        mean_advantage = sum(batch.advantage[i] for i in rows) / len(rows)
        scores = {i: (batch.logprob[i] - mean_logprob) * (batch.advantage[i] - mean_advantage) for i in rows}
        ordered = sorted(rows, key=lambda i: (-round(scores[i], 9), i))
        chosen |= set(ordered[: max(1, int(ratio * len(rows)))])
    return chosen


@pytest.mark.parametrize("size", [2, 3, 8, 24])
def test_micro_batched_kl_cov_is_verls(size: int) -> None:
    batch, _ = random_step(1)
    ours = kl_cov_micro(batch, 2e-2, size)
    expected = verl_kl_cov(batch, 2e-2, size)
    # Rounding may decide ties, so the chosen covariances are compared and not the tokens.
    assert int(ours.sum()) == len(expected)
    if size < batch.num_sequences:
        assert set(np.flatnonzero(ours)) != set(np.flatnonzero(kl_cov_tokens(batch, 2e-2)))
    shared = len(set(np.flatnonzero(ours)) & expected)
    assert shared >= 0.9 * len(expected)


def test_one_response_a_micro_batch_turns_clip_cov_off_and_kl_cov_into_one_token_each() -> None:
    batch, _ = random_step(2)
    candidates, drawn = clip_cov_micro(batch, 2e-2, 0.3, 2.0, size=1)
    assert (int(candidates.sum()), drawn) == (0, 0)
    assert int(kl_cov_micro(batch, 2e-4, size=1).sum()) == batch.num_sequences
    whole, drawn = clip_cov_micro(batch, 2e-2, 0.3, 2.0, size=batch.num_sequences)
    assert drawn == int(2e-2 * len(batch))
    assert int(whole.sum()) > drawn


def test_equal_covariances_choose_none() -> None:
    batch, _ = random_step(3)
    flat = TokenBatch(**{**vars(batch), "advantage": np.ones(len(batch))})
    assert not kl_cov_tokens(flat, 0.2).any()
    result = measurement(flat)
    assert result.correlation is None
    assert any("every covariance is 0" in warning for warning in result.warnings)
    assert "none is highest" in result.controls[-1].note or any("none is highest" in c.note for c in result.controls)


def test_a_measurement_adds_up() -> None:
    batch, _ = random_step(4)
    result = measurement(batch, Settings(micro=(1, 4)))
    assert result.num_tokens == len(batch)
    assert result.sampled_entropy == pytest.approx(-batch.logprob.mean(), rel=TIGHT)
    pearson = np.corrcoef(batch.logprob, batch.advantage)[0, 1]
    assert result.correlation == pytest.approx(pearson, rel=TIGHT)
    assert result.covariance.mean == pytest.approx(np.cov(batch.logprob, batch.advantage, ddof=0)[0, 1], rel=TIGHT)
    for choice in result.controls:
        assert [micro.sequences for micro in choice.micro] == [1, 4, batch.num_sequences]
        assert choice.num_selected <= max(choice.num_asked, 0)
    kl = [choice for choice in result.controls if choice.control == "kl_cov" and choice.num_selected]
    assert all(choice.micro[-1].overlap == pytest.approx(1.0, abs=0.1) for choice in kl), "one micro-batch is the batch"
    assert all(choice.micro[0].overlap != 1.0 for choice in kl)
    top = [token.covariance for token in result.top_tokens]
    assert top == sorted(top, reverse=True)
    assert top[0] == result.covariance.quantiles["max"]


def test_bounds_out_of_reach_are_said() -> None:
    batch, _ = random_step(5)
    result = measurement(TokenBatch(**{**vars(batch), "advantage": batch.advantage / len(batch)}))
    assert any("divides advantages" in warning for warning in result.warnings)
    notes = [choice.note for choice in result.controls if choice.control == "clip_cov" and choice.num_asked]
    assert notes
    assert all("the control does nothing" in note and "clip_cov_lb" in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(kl_cov_ratio=(20.0,)), "kl_cov_ratio is 20"),
        (Settings(clip_cov_lb=5, clip_cov_ub=1), "must be below"),
        (Settings(micro=(0,)), "at least 1 sequence"),
    ],
)
def test_impossible_settings_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        measurement(random_step(0)[0], settings)


def test_a_band_that_is_no_number_is_refused() -> None:
    batch, _ = random_step(0)
    for bounds in ({"clip_cov_lb": float("nan")}, {"clip_cov_ub": float("nan")}, {"clip_cov_lb": 6.0}):
        with pytest.raises(ConfigError, match="clip_cov_lb"):
            measurement(batch, Settings(**bounds))
