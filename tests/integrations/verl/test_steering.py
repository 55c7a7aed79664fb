"""Names of responses, the memory of controls in a checkpoint, and several optimizer steps in one line of verl's log."""

from __future__ import annotations

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

import torch
from omegaconf import OmegaConf

from covent.controls import PPOClip
from covent.core.keys import TokenIdentity
from covent.errors import ConfigError
from covent.integrations.readings import UpdateReading
from covent.integrations.settings import CoventConfig
from covent.integrations.verl.batch import Columns, identities, measured
from covent.integrations.verl.recording import Rollout, merged_metrics
from covent.integrations.verl.window import Steering, Window
from covent.readings import ControlReading, CovarianceTail, Mean, PolarityReading

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]

ADAPTIVE = {"type": "entropy_bonus", "use_adaptive_entropy": True, "entropy_coef": 0.01, "entropy_target": 3.0}


def columns(rows: int = 4, width: int = 6) -> Columns:
    """Some responses of a policy that has moved."""
    generator = torch.Generator().manual_seed(0)
    row, position = torch.meshgrid(torch.arange(rows), torch.arange(width), indexing="ij")
    return Columns(
        mask=position < torch.tensor([[6], [3], [5], [2]]),
        advantages=torch.randn(rows, 1, generator=generator).expand(rows, width),
        old_logprobs=-torch.rand(rows, width, generator=generator),
        identity=TokenIdentity(row, torch.zeros_like(row), position),
    )


def steering(*controls: dict[str, object], scope: str = "window") -> Steering:
    settings = CoventConfig.model_validate({"control": list(controls), "scope": scope})
    return Steering(settings, PPOClip(), None)


def test_a_response_keeps_its_name_wherever_it_stands() -> None:
    keys = ["b_0_0", "b_1_0", "a_1_0", "a_0_0", "a_0_1", "padabc_0_0"]
    found = identities(keys, {"a": 4, "b": 5})
    names = dict(zip(keys, zip(*(column.tolist() for column in found.values()), strict=True), strict=True))
    assert len(set(names.values())) == len(keys)
    assert names["a_0_1"] == (4, 1) and names["padabc_0_0"][0] == -1
    again = identities(keys[::-1], {"a": 4, "b": 5})
    assert dict(zip(keys[::-1], zip(*(c.tolist() for c in again.values()), strict=True), strict=True)) == names


def test_a_checkpoint_holds_what_the_controls_remember() -> None:
    run, batch = steering(ADAPTIVE), columns()
    whole = measured(batch, batch.old_logprobs, torch.ones_like(batch.old_logprobs), on_policy=False, group=None)
    for _ in range(3):
        run.stepped(whole)
    other = steering(ADAPTIVE)
    assert other.states != run.states
    other.restored(run.saved())
    assert (other.states, other.num_updates) == (run.states, 3)


def test_a_checkpoint_of_other_controls_is_refused() -> None:
    with pytest.raises(ConfigError, match="other kinds"):
        steering({"type": "kl_cov"}).restored(steering(ADAPTIVE).saved())


@pytest.mark.parametrize("rows", [[0, 1], [3, 0], [2]])
def test_a_micro_batch_gets_its_rows_of_the_plan(rows: list[int]) -> None:
    """In any order and with fewer positions, as verl's dynamic batches have."""
    run, batch = steering({"type": "kl_cov", "kl_cov_ratio": 0.5}), columns()
    logprobs = batch.old_logprobs - 0.3
    window = Window.of(batch, on_policy=False, update=0)
    run.plan_all(window, logprobs, torch.ones_like(logprobs))
    assert window.plan is not None
    index = torch.tensor(rows)
    width = int(batch.mask[index].sum(dim=1).max())
    part = run.plan_micro(window, index, logprobs[index][:, :width], None)
    assert part is not None
    assert torch.equal(part.chosen, window.plan.chosen[index][:, :width])
    assert window.num_selections == 1
    alone = steering({"type": "kl_cov", "kl_cov_ratio": 0.5}, scope="micro")
    other = alone.plan_micro(Window.of(batch, on_policy=False, update=0), index, logprobs[index][:, :width], None)
    assert other is not None and not torch.equal(other.chosen, part.chosen)


def reading(update: int, tokens: int, entropy: float, selected: int) -> UpdateReading:
    nothing = Mean(sum=0.0, count=tokens)
    return UpdateReading(
        update=update,
        num_responses=4,
        num_tokens=tokens,
        loss=0.1,
        entropy=Mean(sum=entropy * tokens, count=tokens),
        abs_log_ratio=nothing,
        clip_low=nothing,
        clip_high=nothing,
        polarity=PolarityReading(num_tokens=tokens, num_raising=0, num_lowering=0, raising=0.0, lowering=0.0),
        covariance=CovarianceTail(mean=0.0, std=1.0, quantiles={"p50": 0.0}, top_means={}, positive_shares={}),
        control=ControlReading(
            name="kl_cov",
            asked_frac=0.1,
            num_tokens=tokens,
            num_candidates=tokens,
            num_selected=selected,
            took_all_candidates=False,
        ),
        num_selections=Mean(sum=2.0, count=2),
        clip_honoured=True,
    )


def test_a_line_of_verls_log_is_a_mean_over_tokens_and_a_sum_of_counts() -> None:
    found = merged_metrics([reading(0, 100, 2.0, 10), reading(1, 300, 1.0, 30)])
    assert found["entropy"] == pytest.approx((2.0 * 100 + 1.0 * 300) / 400)
    assert (found["num_selected"], found["num_candidates"], found["num_selections"]) == (40, 400, 4)
    assert found["realised_frac"] == pytest.approx(0.1)


def test_a_rollout_counts_its_groups() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 1]]).bool()
    entropies = torch.tensor([[1.0, 3.0, 9.0], [2.0, 9.0, 9.0], [1.0, 1.0, 1.0], [0.0, 0.0, 3.0]]).double()
    made = Rollout(mask, torch.tensor([1.0, 0.0, 1.0, 1.0]).double(), ["a", "a", "b", "b"], entropies)
    made.lengths = torch.tensor([2, 1, 3, 3])
    row = made.row(3, 2, {"update": 1.0}, 1.0)
    assert (row.num_groups, row.num_all_right, row.num_all_wrong, row.num_kept_groups) == (2, 1, 0, 1)
    assert row.entropy.value == pytest.approx((2.0 + 2.0 + 1.0 + 1.0) / 4)
    assert row.entropy_token.value == pytest.approx((4.0 + 2.0 + 3.0 + 3.0) / 9)
    assert (row.reward.value, row.response_length.value) == (0.75, 9 / 4)
    assert row.entropy.tokens == "all responses"
    made.filtered = True
    assert made.row(3, 2, {}, 1.0).entropy.tokens == "kept responses"
    silent = Rollout(mask, made.accuracy, made.uids, None).row(0, 1, {}, 1.0)
    assert silent.entropy.value is None


def test_settings_are_read_from_hydra_as_from_verls_dataclass() -> None:
    from covent.integrations.verl.settings import covent_config

    loss = {"loss_mode": "covent", "control": [{"type": "kl_cov", "kl_cov_ratio": 0.01}], "run_folder": "runs/a"}
    actor = OmegaConf.create({"policy_loss": loss, "clip_ratio_low": 0.2, "clip_ratio_high": 0.3, "clip_ratio_c": 3.0})
    found = covent_config(actor)
    assert [each.type for each in found.controls] == ["kl_cov"]
    assert str(found.run_folder) == "runs/a"
