"""One rollout's updates, however they are split: 1 to 16 micro-batches, 1 to 4 gloo processes, rows in any order.

The chosen tokens and the readings are identical, the gradients agree to 1e-12 in float64, and so do the covariances,
also of what was measured in float32. The batch ties heavily: two levels of advantage, log-probs of a bigram policy with
few different logits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from covent.core.covariance import batch_center, token_covariance
from tests.contract.source import ROOT
from tests.support.rollout_updates import CASES, rollout, scores, start_logits, updates
from tests.support.tolerances import FLOAT32, TIGHT

Updates = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole() -> dict[str, Updates]:
    """One process, one micro-batch, rows in order."""
    return {case: list(updates(case, rollout(), num_micro=1)) for case in CASES}


def agree(found: Updates, truth: Updates) -> None:
    for one, other in zip(found, truth, strict=True):
        assert one["chosen"] == [tuple(identity) for identity in other["chosen"]]
        assert one["reading"] == other["reading"]
        values = torch.tensor([one["covariances"], other["covariances"]], dtype=torch.float64)
        torch.testing.assert_close(values[0], values[1], rtol=0, atol=TIGHT)
        torch.testing.assert_close(
            torch.tensor(one["gradient"], dtype=torch.float64),
            torch.tensor(other["gradient"], dtype=torch.float64),
            rtol=0,
            atol=TIGHT,
        )
        for mine, theirs in zip(one["states"], other["states"], strict=True):
            assert mine == (theirs and pytest.approx(theirs, abs=TIGHT))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("num_micro", [2, 4, 16])
def test_micro_batches(case: str, num_micro: int, whole: dict[str, Updates]) -> None:
    agree(list(updates(case, rollout(), num_micro=num_micro)), whole[case])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("num_micro", [1, 4, 16])
def test_shuffled_rows(case: str, num_micro: int, whole: dict[str, Updates]) -> None:
    everything = rollout()
    order = torch.randperm(len(everything.mask), generator=torch.Generator().manual_seed(9 + num_micro))
    agree(list(updates(case, everything.rows(order), num_micro=num_micro)), whole[case])


def test_parts_that_do_not_know_of_each_other_are_caught(whole: dict[str, Updates]) -> None:
    """Each half of the rollout with counts and a choice of its own, as without a process group."""
    everything = rollout()
    halves = [list(updates("kl_cov", everything.rows(rows), num_micro=1)) for rows in (slice(0, 32), slice(32, 64))]
    joined = [
        {**one, "reading": truth["reading"], "chosen": sorted([*one["chosen"], *other["chosen"]])}
        for one, other, truth in zip(*halves, whole["kl_cov"], strict=True)
    ]
    assert joined[0]["chosen"] != [tuple(identity) for identity in whole["kl_cov"][0]["chosen"]]
    doubled = [{**update, "gradient": [[2 * x for x in r] for r in update["gradient"]]} for update in whole["kl_cov"]]
    for wrong in (joined, doubled):
        with pytest.raises(AssertionError):
            agree(wrong, whole["kl_cov"])


def test_a_centre_in_float32_is_caught(whole: dict[str, Updates]) -> None:
    """Its rounding alone, which hangs on the order of rows."""
    truth = whole["kl_cov_float32"][0]
    logprobs, advantages = (column.float() for column in (scores(start_logits(), rollout())[0], rollout().advantages))
    center = batch_center(logprobs, advantages, rollout().mask)
    found = token_covariance(logprobs.double(), advantages.double(), rollout().mask, center=center)
    identity = rollout().identity
    by_name = {tuple(token): value for *token, value in truth["covariances"]}
    right = [by_name[tuple(int(column[r, t]) for column in identity)] for r, t in rollout().mask.nonzero().tolist()]
    assert found[rollout().mask].tolist() == pytest.approx(right, abs=FLOAT32)
    assert found[rollout().mask].tolist() != pytest.approx(right, abs=TIGHT)


def test_the_cases_are_hard(whole: dict[str, Updates]) -> None:
    """Something is chosen in every update, among heavy ties, and one update's choice is not another's."""
    for case, found in whole.items():
        assert all(update["chosen"] for update in found) or case in ("ppo_clip", "gspo")
        assert max(abs(value) for update in found for row in update["gradient"] for value in row) > 1e-4
        assert found[0]["gradient"] != found[1]["gradient"]
    assert whole["clip_cov"][0]["chosen"] != whole["clip_cov"][1]["chosen"]
    coefs = [update["states"][2][0] for update in whole["several"]]
    assert coefs == sorted(coefs) and len(set(coefs)) == len(coefs)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_processes(num_ranks: int, whole: dict[str, Updates], tmp_path: Path) -> None:
    store, result = tmp_path / "store", tmp_path / "result"
    command = [sys.executable, "-m", "tests.support.rollout_updates", str(num_ranks), str(store), str(result)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    parts = [json.loads(Path(f"{result}.{rank}").read_text()) for rank in range(num_ranks)]
    for case, truth in whole.items():
        joined = []
        for update in range(len(truth)):
            pieces = [part[case][update] for part in parts]
            assert all(piece["gradient"] == pieces[0]["gradient"] for piece in pieces)
            assert all(piece["reading"] == pieces[0]["reading"] for piece in pieces)
            assert all(piece["states"] == pieces[0]["states"] for piece in pieces)
            chosen = sorted(tuple(identity) for piece in pieces for identity in piece["chosen"])
            covariances = sorted(tuple(token) for piece in pieces for token in piece["covariances"])
            joined.append({**pieces[0], "chosen": chosen, "covariances": covariances})
        agree(joined, truth)
    assert whole["kl_cov_many"][0]["reading"]["num_selected"] > 512, "more than is gathered: by histograms over ranks"
    if num_ranks == 2:
        alone = parts[0]["kl_cov"][0]["reading"]["num_selected"], len(parts[0]["kl_cov"][0]["chosen"])
        assert alone[0] > alone[1] > 0, "a rank holds a part of the choice, and knows the whole count"
