"""What verl's losses are, written out token by token in plain Python, against the committed answers.

So the data says what it is thought to say, and the page on verl is right; covent's own losses are held to the same data
in `test_verl_losses.py`. Values in float64; the wrong variants beside them must miss.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean

import pytest
import torch

from tests.oracles.verl_batches import LOSSES, ORACLES, VerlBatch, far_batches, verl_batches, versions
from tests.support.tolerances import TIGHT, VERL_COUNT

LOG_RATIO_LIMIT = 20.0
Row = list[tuple[float, float, float]]


def rows(batch: VerlBatch) -> list[Row]:
    """(log-prob, log-ratio, advantage) of each token, response by response."""
    columns = (batch.logprobs, batch.logprobs - batch.old_logprobs, batch.advantages)
    return [
        list(zip(*(column[row][batch.mask[row]].tolist() for column in columns), strict=True))
        for row in range(len(batch.mask))
    ]


def aggregate(terms: list[list[float]], batch: VerlBatch) -> float:
    """verl's `agg_loss`, whose counts are those of the one micro-batch."""
    flat = [term for row in terms for term in row]
    return {
        "token-mean": lambda: fmean(flat),
        "token-sum": lambda: math.fsum(flat),
        "seq-mean-token-sum": lambda: fmean(math.fsum(row) for row in terms),
        "seq-mean-token-mean": lambda: fmean(fmean(row) for row in terms),
        "seq-mean-token-sum-norm": lambda: fmean(math.fsum(row) for row in terms) / batch.mask.shape[1],
    }[batch.aggregation]()


def clipped(ratio: float, batch: VerlBatch) -> float:
    low, high = batch.settings["clip_ratio_low"], batch.settings["clip_ratio_high"]
    return min(max(ratio, 1 - low), 1 + high)


def vanilla(batch: VerlBatch, *, dual: bool = True) -> list[list[float]]:
    def term(log_ratio: float, advantage: float) -> float:
        ratio = math.exp(min(max(log_ratio, -LOG_RATIO_LIMIT), LOG_RATIO_LIMIT))
        loss = -min(ratio * advantage, clipped(ratio, batch) * advantage)
        return min(loss, -batch.settings["clip_ratio_c"] * advantage) if dual and advantage < 0 else loss

    return [[term(log_ratio, advantage) for _, log_ratio, advantage in row] for row in rows(batch)]


def gspo(batch: VerlBatch) -> list[list[float]]:
    found = []
    for row in rows(batch):
        ratio = math.exp(fmean(log_ratio for _, log_ratio, _ in row))
        found.append([-min(ratio * advantage, clipped(ratio, batch) * advantage) for _, _, advantage in row])
    return found


def cispo(batch: VerlBatch) -> list[list[float]]:
    return [[-clipped(math.exp(r), batch) * advantage * logp for logp, r, advantage in row] for row in rows(batch)]


def covariances(batch: VerlBatch) -> list[list[float]]:
    tokens = [token for row in rows(batch) for token in row]
    mean_l, mean_a = fmean(token[0] for token in tokens), fmean(token[2] for token in tokens)
    return [[(logp - mean_l) * (advantage - mean_a) for logp, _, advantage in row] for row in rows(batch)]


def kl_cov(batch: VerlBatch) -> list[list[float]]:
    flat = sorted((value for row in covariances(batch) for value in row), reverse=True)
    count = max(1, int(len(flat) * batch.settings["kl_cov_ratio"]))
    weight = batch.settings["ppo_kl_coef"]
    return [
        [-math.exp(r) * a + weight * abs(r) * (c >= flat[count - 1]) for (_, r, a), c in zip(row, of_row, strict=True)]
        for row, of_row in zip(rows(batch), covariances(batch), strict=True)
    ]


def candidates(batch: VerlBatch) -> list[list[bool]]:
    """Strictly inside the band, and not cut by the PPO clip."""
    low, high = batch.settings["clip_cov_lb"], batch.settings["clip_cov_ub"]

    def is_one(log_ratio: float, advantage: float, covariance: float) -> bool:
        ratio = math.exp(log_ratio)
        return low < covariance < high and clipped(ratio, batch) * advantage >= ratio * advantage

    return [
        [is_one(r, a, c) for (_, r, a), c in zip(row, of_row, strict=True)]
        for row, of_row in zip(rows(batch), covariances(batch), strict=True)
    ]


def clip_cov(batch: VerlBatch, removed: list[list[bool]]) -> list[list[float]]:
    return [
        [0.0 if gone else term for term, gone in zip(row, of_row, strict=True)]
        for row, of_row in zip(vanilla(batch, dual=False), removed, strict=True)
    ]


def missed(losses: Iterator[tuple[VerlBatch, str, list[list[float]]]]) -> int:
    """The number of batches whose loss is another."""
    return sum(
        aggregate(terms, batch) != pytest.approx(batch.losses[name], abs=VERL_COUNT) for batch, name, terms in losses
    )


@pytest.mark.parametrize("definition", [vanilla, gspo, cispo, kl_cov], ids=lambda function: function.__name__)
def test_losses_are_what_the_page_says(definition: Callable[[VerlBatch], list[list[float]]]) -> None:
    assert missed((batch, definition.__name__, definition(batch)) for batch in verl_batches()) == 0
    wrong = {"vanilla": "kl_cov", "gspo": "vanilla", "cispo": "vanilla", "kl_cov": "vanilla"}[definition.__name__]
    assert missed((batch, wrong, definition(batch)) for batch in verl_batches()) > 50


def test_clip_cov_that_takes_every_candidate() -> None:
    all_taken = [batch for batch in verl_batches() if batch.index % 2 == 0]
    assert missed((batch, "clip_cov", clip_cov(batch, candidates(batch))) for batch in all_taken) == 0
    nothing = [[[False] * len(row) for row in rows(batch)] for batch in all_taken]
    pairs = list(zip(all_taken, nothing, strict=True))
    assert missed((batch, "clip_cov", clip_cov(batch, none)) for batch, none in pairs) > 50


def test_clip_cov_draws_so_many_of_the_candidates() -> None:
    for batch in verl_batches():
        gradients = iter((batch.gradients["clip_cov"] == 0).tolist())
        possible = candidates(batch)
        # A cut token has no gradient either, but is no candidate.
        removed = [[next(gradients) and one for one in row] for row in possible]
        num_tokens = int(batch.mask.sum())
        wanted = max(int(batch.settings["clip_cov_ratio"] * num_tokens), 1)
        assert sum(map(sum, removed)) == min(wanted, sum(map(sum, possible)))
        assert missed(iter([(batch, "clip_cov", clip_cov(batch, removed))])) == 0


def test_gradients_belong_to_the_losses() -> None:
    """One central difference a batch and loss would need verl; the sum of the policy term is enough to tell."""
    for batch in verl_batches():
        (ratio, advantage) = ((batch.logprobs - batch.old_logprobs)[batch.mask].exp(), batch.advantages[batch.mask])
        if batch.aggregation != "token-sum":
            continue
        weight = clip = batch.settings
        low, high = 1 - clip["clip_ratio_low"], 1 + clip["clip_ratio_high"]
        cispo_gradient = -ratio.clamp(low, high) * advantage
        assert batch.gradients["cispo"].tolist() == pytest.approx(cispo_gradient.tolist(), rel=TIGHT, abs=TIGHT)
        plain = batch.gradients["kl_cov"] + ratio * advantage
        sizes = set(plain.abs().mul(1e9).round().div(1e9).tolist())
        assert sizes <= {0.0, weight["ppo_kl_coef"]}, "the gradient of the |log ratio| is a sign"
        assert plain.tolist() != pytest.approx([0.0] * len(plain), abs=TIGHT) or batch.index % 10 == 0


def test_the_file_says_where_it_is_from() -> None:
    assert versions()["verl"] == "0.9.1"
    assert {"torch", "numpy", "python"} <= set(versions())
    assert ORACLES.stat().st_size < 300_000
    assert (len(verl_batches()), len(far_batches())) == (200, 20)
    assert set(verl_batches()[0].losses) == set(LOSSES)


@pytest.mark.slow
@pytest.mark.verl
def test_verl_still_answers_so(tmp_path: Path) -> None:
    """Needs the environment of `verl_oracles.py`; COVENT_VERL_PYTHON names its interpreter."""
    python = os.environ.get("COVENT_VERL_PYTHON")
    if python is None:
        pytest.skip("COVENT_VERL_PYTHON names no interpreter with verl; see tests/oracles/verl_oracles.py")
    fresh = tmp_path / "fresh.safetensors"
    script = Path(__file__).with_name("verl_oracles.py")
    subprocess.run([python, "-W", "ignore", str(script), str(fresh)], check=True)
    kept, again = (verl_batches(path) + far_batches(path) for path in (ORACLES, fresh))
    for old, new in zip(kept, again, strict=True):
        assert old.settings == new.settings
        assert torch.equal(old.logprobs[old.mask], new.logprobs[new.mask])
        assert [*new.losses.values()] == pytest.approx([*old.losses.values()], rel=TIGHT, abs=TIGHT)
        for found, kept in ((new.gradients, old.gradients), (new.verl_advantages, old.verl_advantages)):
            for name in kept:
                assert found[name].tolist() == pytest.approx(kept[name].tolist(), rel=TIGHT, abs=TIGHT)
