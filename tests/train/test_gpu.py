"""A whole tiny run on a GPU, and its model against the same weights on the CPU."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from covent.core.entropy import logprob_and_entropy
from covent.train.model import LanguageModel, load_model
from tests.support.gpu import GPU, needs_gpu
from tests.support.small_model import TASK
from tests.support.tiny import CONTROLS, SETTINGS, tiny_config, tiny_run
from tests.support.tolerances import FLOAT32

pytestmark = list(needs_gpu)

NUM_WORDS = 19


@pytest.mark.parametrize("control", CONTROLS)
def test_a_run_trains_measures_and_ends(tmp_path: Path, control: str) -> None:
    run = tiny_run(tmp_path / control, device=GPU, control=CONTROLS[control].model_dump())
    assert run.status.state == "finished"
    assert "CPU" not in run.header.hardware
    assert [row.step for row in run.steps] == list(range(SETTINGS["steps"]))
    assert (run.folder / "model" / "model.safetensors").is_file()
    for step in run.steps:
        assert step.entropy.value is not None
        assert 0 < step.entropy.value < math.log(NUM_WORDS)
        # Sampler and learner see the same weights on the same device.
        assert (step.sampler_gap is None) == (step.num_kept_groups == 0)
        assert step.sampler_gap is None or step.sampler_gap < 1e-3
    probes = [row.probe for row in run.updates if row.probe is not None]
    moved = [probe for probe in probes if abs(probe.observed) > FLOAT32]
    assert moved, "the policy must move for its change to be accounted for"
    for probe in moved:
        assert probe.accounted == pytest.approx(probe.observed, rel=0.5, abs=0.01)


def test_the_model_is_that_of_the_cpu() -> None:
    ids = torch.randint(1, NUM_WORDS, (4, 12), generator=torch.Generator().manual_seed(0))

    def scores(model: LanguageModel) -> list[torch.Tensor]:
        device = model.network.device
        with torch.no_grad():
            logits = model.network(ids.to(device)).logits[:, :-1]
            return [found.double().cpu() for found in logprob_and_entropy(logits, ids[:, 1:].to(device))]

    def model(device: str, dtype: torch.dtype, seed: int = 0) -> LanguageModel:
        return load_model(tiny_config().model, TASK, seed=seed, dtype=dtype, device=device)

    truth = scores(model("cpu", torch.float64))
    for found, wanted in zip(scores(model(GPU, torch.float32)), truth, strict=True):
        assert torch.allclose(found, wanted, rtol=10 * FLOAT32, atol=10 * FLOAT32)
    # The control: other weights.
    for found, wanted in zip(scores(model(GPU, torch.float32, seed=1)), truth, strict=True):
        assert not torch.allclose(found, wanted, rtol=10 * FLOAT32, atol=10 * FLOAT32)
