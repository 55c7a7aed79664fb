"""The same seed gives the same run, bit for bit; how the learner splits its work gives the same run up to rounding."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from covent import controls
from covent.core.keys import TokenIdentity, key
from covent.core.plan import Measured
from covent.store.reader import Run
from covent.store.schema import untimed
from tests.support.tiny import CONTROLS, final_weights, tiny_run
from tests.support.tolerances import TIGHT


def _numbers(run: Run) -> list[str]:
    """Everything a run recorded except times."""
    rows = (run.steps, run.updates, run.evaluations, run.verdicts, run.samples)
    return [str(untimed(row)) for kind in rows for row in kind]


@pytest.mark.parametrize("control", CONTROLS)
def test_the_same_seed_is_the_same_run_bit_for_bit(control: str, tmp_path: Path) -> None:
    settings = {"control": CONTROLS[control].model_dump(), "warm_start": {"cache": False}}
    first, second = (tiny_run(tmp_path / name, **settings) for name in ("first", "second"))
    assert _numbers(first) == _numbers(second)
    weights = final_weights(second)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in final_weights(first).items())


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    first, second = (tiny_run(tmp_path / str(seed), seed=seed, steps=2) for seed in (0, 1))
    assert first.header.start_model != second.header.start_model
    assert _numbers(first) != _numbers(second)


def test_global_random_state_does_not_matter(tmp_path: Path) -> None:
    settings = {"control": CONTROLS["clip_cov"].model_dump(), "steps": 2}
    torch.manual_seed(1)
    first = tiny_run(tmp_path / "first", **settings)
    torch.manual_seed(2)
    assert _numbers(first) == _numbers(tiny_run(tmp_path / "second", **settings))


@pytest.mark.parametrize("control", CONTROLS)
def test_micro_batches_change_nothing(control: str, tmp_path: Path) -> None:
    """1, 2 and 4 micro-batches an optimizer step: the same tokens chosen, the same parameters to 1e-12 in float64."""
    runs = [
        tiny_run(
            tmp_path / str(size),
            dtype="float64",
            control=CONTROLS[control].model_dump(),
            rollout={"group_filter": "none"},
            optimizer={"responses_per_micro_batch": size},
            samples_kept=16,
        )
        for size in (16, 8, 4)
    ]
    whole = runs[0]
    assert {update.num_responses for update in whole.updates} == {16}
    if control != "ppo_clip":
        assert any(any(sample.selected or []) for sample in whole.samples)
    for split in runs[1:]:
        assert [row.selected for row in split.samples] == [row.selected for row in whole.samples]
        assert [row.control for row in split.updates] == [row.control for row in whole.updates]
        weights = final_weights(split)
        for name, tensor in final_weights(whole).items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=TIGHT)


@pytest.mark.parametrize("control", ["clip_cov", "kl_cov"])
def test_choosing_inside_each_micro_batch_would_change_the_choice(control: str) -> None:
    """The negative control: what the peers do, on the same measurement."""
    generator = torch.Generator().manual_seed(0)
    shape = (16, 12)
    logprobs = -torch.rand(shape, generator=generator, dtype=torch.float64) * 3
    position = torch.arange(12).expand(shape)
    measured = Measured(
        logprobs=logprobs,
        old_logprobs=logprobs - 0.1,
        entropies=torch.zeros_like(logprobs),
        advantages=torch.randn(16, 1, generator=generator, dtype=torch.float64).expand(shape),
        mask=torch.ones(shape, dtype=torch.bool),
        identity=TokenIdentity(torch.arange(16)[:, None].expand(shape), torch.zeros_like(position), position),
    )
    settings = CONTROLS[control]
    whole = controls.plan(measured, settings, key(0, "plan", 0)).chosen
    pieces = []
    for rows in (slice(0, 8), slice(8, 16)):
        fields = ("logprobs", "old_logprobs", "entropies", "advantages", "mask")
        part = replace(
            measured,
            **{name: getattr(measured, name)[rows] for name in fields},
            identity=TokenIdentity(*(tensor[rows] for tensor in measured.identity)),
        )
        pieces.append(controls.plan(part, settings, key(0, "plan", 0)).chosen)
    assert not torch.equal(torch.cat(pieces), whole)
