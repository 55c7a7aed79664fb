"""The recipes are what verl and covent take, and the presets are the paper's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from verl.utils.config import omega_conf_to_dataclass

from covent.controls import AnyControl, ClipCov, KLCov
from covent.errors import ConfigError
from covent.integrations.verl import CoventPolicyLossConfig
from covent.integrations.verl.checks import require_settings, updates_per_rollout
from covent.integrations.verl.settings import covent_config
from tests.contract.source import ROOT

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]

RECIPES = ROOT / "recipes" / "verl"
PAPER: dict[str, tuple[AnyControl, float, int]] = {
    "clip_cov_7b": (
        ClipCov(clip_cov_ratio=2e-4, clip_cov_lb=1, clip_cov_ub=5, clip_ratio_low=1, clip_ratio_high=1),
        5e-7,
        20480,
    ),
    "kl_cov_7b": (KLCov(kl_cov_ratio=2e-3, ppo_kl_coef=1), 5e-7, 30720),
    "clip_cov_32b": (ClipCov(clip_cov_ratio=2e-4, clip_cov_lb=1, clip_cov_ub=5), 1e-6, 20480),
    "kl_cov_32b": (KLCov(kl_cov_ratio=2e-4, ppo_kl_coef=1), 1e-6, 20480),
}


def recipe(name: str, *words: str) -> DictConfig:
    """What `main_ppo --config-dir recipes/verl --config-name NAME` makes of it."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(RECIPES), version_base=None):
        return compose(name, overrides=["hydra.searchpath=[pkg://verl.trainer.config]", *words])


def test_every_recipe_is_looked_at() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*PAPER, "cpu", "paper"}


@pytest.mark.parametrize("name", PAPER)
def test_a_preset_is_the_papers(name: str) -> None:
    config = recipe(name)
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    control, lr, pack = PAPER[name]
    covent = covent_config(actor)
    assert covent.control == control
    assert (covent.scope, covent.run_folder) == ("window", Path("runs") / name)
    assert (actor.optim.lr, actor.optim.weight_decay, actor.optim.clip_grad) == (lr, 0, 1)
    assert actor.optim.lr_scheduler_type == "constant"
    assert (config.data.train_batch_size, rollout.n, rollout.temperature, rollout.top_p) == (256, 8, 1, 1)
    assert config.data.train_batch_size * rollout.n / actor.ppo_mini_batch_size / rollout.n == 8
    assert updates_per_rollout(config) == 8
    assert (config.data.max_prompt_length, config.data.max_response_length) == (2048, 8192)
    assert (actor.loss_agg_mode, actor.entropy_coeff, actor.use_kl_loss) == ("token-mean", 0, False)
    assert (actor.ppo_max_token_len_per_gpu, actor.use_dynamic_bsz) == (pack, True)
    assert (config.algorithm.adv_estimator, config.algorithm.use_kl_in_reward) == ("grpo", False)
    assert config.algorithm.filter_groups.enable
    assert config.trainer.v1.trainer_mode == "covent"
    require_settings(covent, config)
    text = (RECIPES / f"{name}.yaml").read_text()
    assert "Where they differ" in text and "Not run by us" in text


@pytest.mark.parametrize("name", [*PAPER, "cpu"])
def test_verl_makes_covents_settings_of_it(name: str) -> None:
    made: Any = omega_conf_to_dataclass(recipe(name).actor_rollout_ref.actor.policy_loss)
    assert isinstance(made, CoventPolicyLossConfig)
    assert made.loss_mode.startswith("covent_")


def test_any_control_can_be_given_on_the_command_line() -> None:
    place = "actor_rollout_ref.actor.policy_loss"
    words = [f"{place}.loss_mode=covent", f"+{place}.control=[{{type:kl_cov,kl_form:k2}},{{type:top_entropy}}]"]
    covent = covent_config(recipe("cpu", *words).actor_rollout_ref.actor)
    assert [each.type for each in covent.controls] == ["kl_cov", "top_entropy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["actor_rollout_ref.actor.ppo_mini_batch_size=16"], "KL-Cov cannot act here"),
        (["actor_rollout_ref.actor.policy_loss.loss_mode=gspo"], "loss_mode = gspo"),
        (["actor_rollout_ref.actor.policy_loss.loss_mode=covent"], "there is none"),
        (["+actor_rollout_ref.actor.policy_loss.control={type:kl_cov}"], "does not read it"),
        (["actor_rollout_ref.actor.policy_loss.kl_cov_ratio=2"], "kl_cov_ratio"),
        (
            [
                "actor_rollout_ref.actor.policy_loss.loss_mode=covent",
                "+actor_rollout_ref.actor.policy_loss.control={type:entropy_bonus}",
                "actor_rollout_ref.actor.entropy_coeff=0.01",
            ],
            "two bonuses",
        ),
        (
            [
                "actor_rollout_ref.actor.policy_loss.loss_mode=covent",
                "+actor_rollout_ref.actor.policy_loss.control={type:reference_kl}",
            ],
            "kl_loss_coef=0",
        ),
        (
            [
                "actor_rollout_ref.actor.policy_loss.loss_mode=covent",
                "+actor_rollout_ref.actor.policy_loss.control={type:truncated_importance}",
                "actor_rollout_ref.rollout.calculate_log_probs=false",
            ],
            "calculate_log_probs=true",
        ),
        (
            [
                "actor_rollout_ref.actor.policy_loss.loss_mode=covent",
                "+actor_rollout_ref.actor.policy_loss.control={type:kl_cov,kl_form:exact}",
            ],
            "'exact'",
        ),
    ],
)
def test_what_cannot_do_what_it_says_is_refused(words: list[str], said: str) -> None:
    config = recipe("cpu", *words)
    with pytest.raises(ConfigError, match=said):
        require_settings(covent_config(config.actor_rollout_ref.actor), config)


def test_two_mini_batches_or_two_epochs_are_off_policy() -> None:
    words = ["actor_rollout_ref.actor.ppo_mini_batch_size=16", "actor_rollout_ref.actor.ppo_epochs=2"]
    config = recipe("cpu", *words)
    require_settings(covent_config(config.actor_rollout_ref.actor), config)
