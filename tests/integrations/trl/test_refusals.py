"""TRL that covent does not know, and settings that cannot do what they say, are refused with what to change."""

from __future__ import annotations

import inspect
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from trl import GRPOTrainer, RLOOTrainer

from covent.errors import ConfigError, EngineError, RunExistsError
from covent.integrations.trl import CoventGRPOTrainer, CoventMixin, CoventRLOOTrainer
from covent.integrations.trl.checks import require_device
from covent.integrations.trl.compatibility import LOSS_TYPES, require_attributes, require_hooks, require_version
from tests.support.tiny_trl import trainer

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]


def test_this_trl_is_the_one_that_covent_knows() -> None:
    """The compatibility test: a release with another signature or another loss type fails here, loudly."""
    for kind in (GRPOTrainer, RLOOTrainer):
        require_hooks(kind)
    source = inspect.getsource(GRPOTrainer._compute_loss)
    compared = re.findall(r"self\.loss_type (?:==|in) (\[[^\]]*\]|\"\w+\")", source)
    named = {name for each in compared for name in re.findall(r"\"(\w+)\"", each)}
    assert named == LOSS_TYPES


@pytest.mark.parametrize("version", ["1.13.9", "0.29.1", "1.12.0"])
def test_an_old_trl_is_refused_because_of_liger(version: str) -> None:
    with pytest.raises(EngineError, match="Liger"):
        require_version(version)


def test_a_newer_trl_is_let_in_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for version in ("1.14.0", "1.16.2"):
        require_version(version)
    assert not caplog.records
    require_version("1.17.0")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class _Renamed(GRPOTrainer):
    def _compute_loss(self, model: Any, inputs: Any, extra: Any) -> Any:
        return super()._compute_loss(model, inputs)


class _NoEntropy(GRPOTrainer):
    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Any) -> Any:
        return super()._get_per_token_logps_and_entropies(model, input_ids)


class _Gone(GRPOTrainer):
    _calculate_rewards = None  # type: ignore[assignment]  # wrong on purpose


@pytest.mark.parametrize(
    ("kind", "word"), [(_Renamed, "extra"), (_NoEntropy, "compute_entropy"), (_Gone, "_calculate_rewards")]
)
def test_a_changed_signature_is_refused_before_a_model_is_loaded(tmp_path: Path, kind: type, word: str) -> None:
    class Ours(CoventMixin, kind):  # type: ignore[misc]  # any trainer
        pass

    with pytest.raises(EngineError, match=word):
        Ours(model="no such model", reward_funcs=[])


def test_an_unknown_loss_type_is_refused() -> None:
    known = {name: None for name in ("_step", "_buffered_inputs", "_metrics", "num_generations")}
    known |= {"reward_weights": None, "reward_func_names": None}
    require_attributes(SimpleNamespace(**known, loss_type="dapo"))
    with pytest.raises(EngineError, match="'next'"):
        require_attributes(SimpleNamespace(**known, loss_type="next"))
    with pytest.raises(EngineError, match="_buffered_inputs"):
        require_attributes(SimpleNamespace(_step=0))


@pytest.mark.parametrize(
    ("control", "settings", "word"),
    [
        ({"type": "kl_cov"}, {}, "num_iterations"),
        ({"type": "kl_cov"}, {"gradient_accumulation_steps": 4}, "steps_per_generation = 32"),
        ({"type": "kl_cov_released"}, {}, "log ratio is 0"),
        ({"type": "kl_cov", "kl_form": "exact"}, {"num_iterations": 2}, "k3"),
        ({"type": "entropy_bonus"}, {"entropy_coef": 0.1}, "two bonuses"),
        ({"type": "entropy_bonus"}, {"use_adaptive_entropy": True}, "two bonuses"),
        ({"type": "top_entropy"}, {"top_entropy_quantile": 0.2}, "1.0"),
        ({"type": "truncated_importance"}, {}, "use_vllm"),
        ({"type": "reference_kl", "kl_loss_coef": 0.1}, {}, "beta"),
        (
            {"type": "clip_cov"},
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
            "multiple of gradient_accumulation_steps",
        ),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, control: dict[str, Any], settings: dict[str, Any], word: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(word)):
        trainer(CoventGRPOTrainer, tmp_path, covent={"control": control}, **settings)


def test_settings_of_covent_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control.*clip_cov_ratio.*less than or equal to 1"):
        trainer(CoventGRPOTrainer, tmp_path, covent={"control": {"type": "clip_cov", "clip_cov_ratio": 2}})
    with pytest.raises(ConfigError, match="scop"):
        trainer(CoventGRPOTrainer, tmp_path, covent={"scop": "window"})


def test_apples_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match="use_cpu"):
        require_device(torch.device("mps"))
    require_device(torch.device("cpu"))


@pytest.mark.parametrize(
    ("control", "settings"),
    [
        ({"type": "kl_cov"}, {"num_iterations": 2}),
        ({"type": "kl_cov"}, {"gradient_accumulation_steps": 2, "steps_per_generation": 16}),
        ({"type": "clip_cov"}, {}),
        ({"type": "clip_cov"}, {"gradient_accumulation_steps": 2, "steps_per_generation": 4}),
    ],
)
def test_settings_that_do(tmp_path: Path, control: dict[str, Any], settings: dict[str, Any]) -> None:
    trainer(CoventGRPOTrainer, tmp_path, covent={"control": control}, **settings)


def test_micro_batches_may_straddle_generations_with_scope_micro(tmp_path: Path) -> None:
    settings = {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "max_steps": 2}
    control = {"type": "clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.05}
    made = trainer(CoventGRPOTrainer, tmp_path, covent={"control": control, "scope": "micro"}, **settings)
    made.train()
    assert [row["covent/num_selections"] for row in made.state.log_history if "loss" in row] == [4.0, 4.0]


def test_rloo_has_no_reference_in_its_loss(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reward"):
        trainer(CoventRLOOTrainer, tmp_path, covent={"control": {"type": "reference_kl"}})


def test_an_accuracy_that_is_no_reward_function(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="low_digits"):
        trainer(CoventGRPOTrainer, tmp_path, covent={"run_folder": tmp_path / "run", "accuracy": "acuracy"})


def test_a_run_folder_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("")
    made = trainer(CoventGRPOTrainer, tmp_path, covent={"run_folder": tmp_path / "run"})
    with pytest.raises(RunExistsError):
        made.train()


def test_no_name_of_covents_clashes_with_trls(tmp_path: Path) -> None:
    control = {"type": "clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.05}
    covent = {"control": control, "run_folder": tmp_path / "run", "law_every": 1}
    made = trainer(CoventGRPOTrainer, tmp_path / "trl", covent=covent, max_steps=6)
    made.train()
    bare = trainer(GRPOTrainer, tmp_path / "bare", max_steps=6)
    bare.train()
    ours = {name for row in made.state.log_history for name in row}
    theirs = {name for row in bare.state.log_history for name in row}
    assert theirs <= ours
    assert ours - theirs and all(name.startswith("covent/") for name in ours - theirs)
    expected = (
        "entropy",
        "polarity",
        "covariance/p99",
        "realised_frac",
        "asked_frac",
        "clip_honoured",
        "law_identified",
    )
    assert {f"covent/{name}" for name in expected} <= ours
