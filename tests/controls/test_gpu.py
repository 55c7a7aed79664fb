"""A control chooses the same tokens on a GPU as on the CPU: its draw hashes identities and asks no generator."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from covent.controls import ClipCov, Control, KLCov, TopEntropy, plan
from covent.core.keys import TokenIdentity
from covent.core.plan import Measured
from tests.support.batches import VALUES, optimizer_batch
from tests.support.gpu import GPU, needs_gpu

pytestmark = list(needs_gpu)


def on_gpu(measured: Measured) -> Measured:
    """The same batch in the memory of the GPU."""
    columns = {name: getattr(measured, name).to(GPU) for name in (*VALUES, "mask")}
    return replace(measured, **columns, identity=TokenIdentity(*(column.to(GPU) for column in measured.identity)))


@pytest.mark.parametrize(
    "control",
    [ClipCov(clip_cov_ratio=0.05, clip_cov_lb=0.2, clip_cov_ub=2.0), KLCov(kl_cov_ratio=0.1), TopEntropy()],
    ids=lambda control: control.type,
)
@pytest.mark.parametrize("seed", range(3))
def test_the_choice_does_not_depend_on_the_device(control: Control, seed: int) -> None:
    batch = optimizer_batch(seed, num_prompts=64)
    here, there = (plan(each, control, key=seed) for each in (batch, on_gpu(batch)))
    assert bool(here.chosen.any())
    assert torch.equal(here.chosen, there.chosen.cpu())
    assert torch.equal(here.keeps_gradient, there.keeps_gradient.cpu())
    assert here.reading == there.reading
    if control.type == "clip_cov":
        # The control: another key draws others.
        assert not torch.equal(here.chosen, plan(on_gpu(batch), control, key=seed + 1).chosen.cpu())
