"""verl's config (0.9), and that of the fork of verl in which the paper's authors published Clip-Cov and KL-Cov."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from covent.errors import suggestion
from covent.lint.findings import Finding, Level
from covent.lint.keys import Schema, names, unknown_settings
from covent.lint.own import TRAINER, own_entropy_coef, own_faults, with_one_control
from covent.lint.published import AUTHORS
from covent.lint.settings import Setting, Settings
from covent.lint.setup import CONTROLS, OWN_SCOPES, Advantage, Batch, EntropyLog, Scale, Setup

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
LOSS = f"{ACTOR}.policy_loss"
_TARGET = "verl.workers.config.PolicyLossConfig"

_LOSSES = sorted(
    names("""
    bypass_mode cispo clip_cov dppo_kl dppo_tv dro geo_mean gpg gspo kl_cov sapo vanilla
""")
)
_ADVANTAGES: dict[str | None, Scale] = {
    "gae": "whitened",
    "rloo": "centred",
    "rloo_vectorized": "centred",
    "reinforce_plus_plus": "whitened",
    "reinforce_plus_plus_baseline": "whitened",
}

_ACTOR_NAMES = names("""
    optim fsdp_config megatron _target_ rollout_n strategy ppo_mini_batch_size ppo_micro_batch_size
    ppo_micro_batch_size_per_gpu ppo_infer_micro_batch_size_per_gpu use_dynamic_bsz ppo_max_token_len_per_gpu
    ppo_infer_max_token_len_per_gpu clip_ratio clip_ratio_low clip_ratio_high tau_pos tau_neg
    freeze_vision_tower policy_loss clip_ratio_c loss_agg_mode loss_scale_factor entropy_coeff calculate_entropy
    calculate_sum_pi_squared use_kl_loss use_prefix_grouper use_torch_compile kl_loss_coef kl_loss_type
    ppo_epochs shuffle data_loader_seed checkpoint use_fused_kernels profiler profile qat grad_clip
    ulysses_sequence_parallel_size entropy_from_logits_with_chunking entropy_from_logits_chunk_size
    entropy_checkpointing pad_to_length use_remove_padding use_rollout_log_probs router_replay torchtitan veomni
    engine micro_batch_size
""")
_DATA_NAMES = names("""
    tokenizer use_shm train_files val_files train_max_samples val_max_samples prompt_key reward_fn_key
    max_prompt_length max_response_length train_batch_size gen_batch_size val_batch_size shuffle seed truncation
    filter_overlong_prompts filter_overlong_prompts_workers dataloader_num_workers validation_shuffle custom_cls
    return_raw_input_ids return_raw_chat return_full_prompt image_patch_size image_key video_key audio_key
    tool_config_path function_tool_path trust_remote_code return_multi_modal_inputs apply_chat_template_kwargs
    mm_processor_kwargs
""")
_ALGORITHM_NAMES = names("""
    rollout_correction _target_ gamma lam adv_estimator norm_adv_by_std_in_grpo filter_groups use_kl_in_reward
    kl_penalty kl_ctrl use_pf_ppo pf_ppo
""")
_CORRECTION_NAMES = names("""
    _target_ rollout_is rollout_is_threshold rollout_rs rollout_rs_threshold bypass_mode loss_type
    rollout_is_batch_normalize rollout_rs_threshold_lower rollout_token_veto_threshold
""")
_LOSS_NAMES = names("""
    _target_ loss_mode clip_cov_ratio clip_cov_lb clip_cov_ub kl_cov_ratio ppo_kl_coef dro_beta
""")
_SECTIONS = {
    ACTOR: _ACTOR_NAMES,
    "data": _DATA_NAMES,
    "algorithm": _ALGORITHM_NAMES,
    "trainer": names("nnodes n_gpus_per_node use_v1"),
    ROLLOUT: names("n temperature top_p top_k prompt_length response_length"),
}
_REFUSAL = "Hydra refuses a name that the config does not have; with a + in front it is added, and nothing reads it."

SCHEMA = Schema(
    sections={**_SECTIONS, LOSS: _LOSS_NAMES, "algorithm.rollout_correction": _CORRECTION_NAMES},
    closed=frozenset({LOSS}),
    refusal=_REFUSAL,
    source="verl 0.9.1, trainer/config/actor/actor.yaml; composed with Hydra 1.3",
)
EXTENDED_SCHEMA = replace(SCHEMA, sections={name: known for name, known in SCHEMA.sections.items() if name != LOSS})
"""With a class of one's own in `policy_loss._target_`, which may have any setting."""
COVENT_SCHEMA = replace(SCHEMA, sections={**SCHEMA.sections, LOSS: SCHEMA.sections[LOSS] | TRAINER})
"""With covent's own class there."""
FORK_SCHEMA = Schema(
    sections={
        **_SECTIONS,
        ACTOR: _ACTOR_NAMES | names("loss_mode k_percent ppo_kl_coef clip_cov_ratio clip_cov_lb clip_cov_ub"),
    },
    closed=frozenset(),
    refusal=_REFUSAL,
    source=f"{AUTHORS}, verl/trainer/config/ppo_trainer.yaml",
)


def own_settings(settings: Settings) -> tuple[str, ...]:
    """Those that only a config of verl, or of a fork of it, has."""
    return settings.starting_with("actor_rollout_ref.")


def is_fork(settings: Settings) -> bool:
    """Whether it is one of the fork of the paper's authors, whose losses are set beside `clip_ratio`."""
    ours = {f"{ACTOR}.k_percent", f"{ACTOR}.loss_mode"} & settings.values.keys()
    return bool(ours) and not settings.starting_with(f"{LOSS}.")


def setup(settings: Settings, ranks: int | None) -> Setup:
    """What a config asks of verl 0.9."""
    loss = settings.text(f"{LOSS}.loss_mode", "vanilla")
    own_coef = own_entropy_coef(settings, f"{LOSS}.control") if loss.value == "covent" else None
    settings = with_one_control(settings, f"{LOSS}.control")
    ours = (loss.value or "").startswith("covent")
    # covent's plugin: `covent` executes policy_loss.control, the other names read verl's own settings.
    section = f"{LOSS}.control" if loss.value == "covent" else LOSS
    kind = settings.text(f"{section}.type", None).value if loss.value == "covent" else loss.value
    name = (kind or "").removeprefix("covent_").removesuffix("_released")
    control = CONTROLS.get(name)
    scope = settings.text(f"{LOSS}.scope", "window").value if ours else "micro"
    share = {
        "clip_cov": settings.number(f"{section}.clip_cov_ratio", 2e-4),
        "kl_cov": settings.number(f"{section}.kl_cov_ratio", 2e-3 if loss.value == "covent" else 2e-4),
    }
    return Setup(
        engine="verl",
        label="verl 0.9",
        loss=loss,
        control=control,
        scope=OWN_SCOPES.get(scope, "window"),
        floor_of_one=scope == "micro" or (kind or "").endswith("_released"),
        share=share.get(control or ""),
        share_unit=1.0,
        unread_shares=tuple(each for name, each in share.items() if name != control and each.given),
        band=_band(settings, section) if control == "clip_cov" else None,
        kl_coef=settings.number(f"{section}.ppo_kl_coef", 1.0 if loss.value == "covent" else 0.1)
        if control == "kl_cov"
        else None,
        clip=_own_clip(settings, section) if section != LOSS and control else _clip(settings),
        clip_counts=control != "kl_cov",
        advantage=_advantage(settings),
        batch=_batch(settings, ranks),
        entropy_coef=own_coef or settings.number(f"{ACTOR}.entropy_coeff", 0.0),
        reference_kl=_reference_kl(settings),
        entropy=_entropy(settings),
        temperature=settings.number(f"{ROLLOUT}.temperature", 1.0),
        selection_source="verl 0.9.1, trainer/ppo/core_algos.py; verl issues 7818 and 7829",
    )


def fork_setup(settings: Settings, ranks: int | None) -> Setup:
    """What a config asks of the authors' fork."""
    loss = settings.text(f"{ACTOR}.loss_mode", "vanilla")
    control = CONTROLS.get(loss.value)
    share = {
        "clip_cov": settings.number(f"{ACTOR}.clip_cov_ratio", 2e-4),
        "kl_cov": settings.number(f"{ACTOR}.k_percent", 0.2),
    }
    return Setup(
        engine="verl-fork",
        label="the paper's fork of verl",
        loss=loss,
        control=control,
        scope="micro-batch",
        floor_of_one=True,
        share=share.get(control or ""),
        share_unit=0.01 if control == "kl_cov" else 1.0,
        unread_shares=tuple(each for name, each in share.items() if name != control and each.given),
        band=_band(settings, ACTOR) if control == "clip_cov" else None,
        kl_coef=settings.number(f"{ACTOR}.ppo_kl_coef", 1.0) if control == "kl_cov" else None,
        clip=_clip(settings),
        clip_counts=control != "kl_cov",
        advantage=_advantage(settings),
        batch=_batch(settings, ranks),
        entropy_coef=settings.number(f"{ACTOR}.entropy_coeff", 0.0),
        reference_kl=_reference_kl(settings),
        entropy=EntropyLog(
            "train_entropy/all",
            "exact, old policy, at temperature 1 whatever the rollout's, mean over a response, then over responses: the"
            " paper's definition, on the prompts that filtering leaves",
            f"{AUTHORS}, verl/workers/actor/dp_actor.py",
        ),
        temperature=settings.number(f"{ROLLOUT}.temperature", 1.0),
        selection_source=f"{AUTHORS}, verl/trainer/ppo/core_algos.py; its issues 14 and 20",
    )


def findings(settings: Settings) -> Iterator[Finding]:
    """What only a config of verl can get wrong."""
    own = settings.text(f"{LOSS}._target_", _TARGET).value != _TARGET
    ours = "CoventPolicyLossConfig" in (settings.text(f"{LOSS}._target_", _TARGET).value or "")
    yield from unknown_settings(settings, COVENT_SCHEMA if ours else EXTENDED_SCHEMA if own else SCHEMA)
    if ours:
        yield from own_faults(settings, f"{LOSS}.control", scope=f"{LOSS}.scope")
    yield from _unread_clip(settings)
    loss = settings.text(f"{LOSS}.loss_mode", "vanilla")
    yield from _replaced(settings, loss)
    extended = own or bool(settings.starting_with("actor_rollout_ref.model.external_lib"))
    if loss.value is None or loss.value in _LOSSES or loss.value.startswith("covent") or extended:
        return
    meant = loss.value.replace("-", "_")
    is_hyphen = meant in _LOSSES
    yield Finding(
        level=Level.ERROR if is_hyphen else Level.WARNING,
        rule="unknown-loss",
        setting=str(loss),
        text=f"verl has no loss '{loss.value}' and stops at the first update"
        + ("." if is_hyphen else ", unless your code registers it."),
        reason="The comment in actor.yaml writes the names with hyphens; the registry has them with underscores."
        if is_hyphen
        else "Losses are looked up in verl's registry by name.",
        instead=f"{LOSS}.loss_mode={meant}" if is_hyphen else suggestion(meant, _LOSSES),
        source="verl 0.9.1, trainer/ppo/core_algos.py, register_policy_loss",
    )


def fork_findings(settings: Settings) -> Iterator[Finding]:
    """What only a config of the fork can get wrong."""
    yield from unknown_settings(settings, FORK_SCHEMA)
    yield from _unread_clip(settings)


def _unread_clip(settings: Settings) -> Iterator[Finding]:
    both = settings.number(f"{ACTOR}.clip_ratio", 0.2)
    sides = [f"{ACTOR}.clip_ratio_low", f"{ACTOR}.clip_ratio_high"]
    left = [side for side in sides if side not in settings]
    if both.given and both.value not in (None, 0.2) and left:
        yield Finding(
            level=Level.WARNING,
            rule="clip-unread",
            setting=str(both),
            text=f"It is not read: {' and '.join(left)} stand at their default, 0.2.",
            reason="clip_ratio counts only where those are null, and they are not by default.",
            instead=" ".join(f"{side}={both.value:g}" for side in left),
            source="verl 0.9.1, trainer/ppo/core_algos.py and trainer/config/actor/actor.yaml",
        )


def _replaced(settings: Settings, loss: Setting[str]) -> Iterator[Finding]:
    bypass = settings.flag("algorithm.rollout_correction.bypass_mode", False)
    newer = settings.flag("trainer.use_v1", True)
    if bypass.value and newer.value is False and loss.value not in ("vanilla", "bypass_mode", None):
        yield Finding(
            level=Level.ERROR,
            rule="loss-replaced",
            setting=f"{bypass}, {loss}",
            text=f"'{loss.value}' never runs: in the older trainer bypass mode puts a loss of its own in its place.",
            reason="It sets the loss to 'bypass_mode' when it prepares a batch.",
            instead="algorithm.rollout_correction.bypass_mode=false, or trainer.use_v1=true",
            source="verl 0.9.1, trainer/ppo/rollout_corr_helper.py, apply_bypass_mode",
        )


def _band(settings: Settings, section: str) -> tuple[Setting[float], Setting[float]]:
    return settings.number(f"{section}.clip_cov_lb", 1.0), settings.number(f"{section}.clip_cov_ub", 5.0)


def _clip(settings: Settings) -> tuple[Setting[float], Setting[float]]:
    # verl reads `clip_ratio` only where these are null.
    both = settings.number(f"{ACTOR}.clip_ratio", 0.2)
    low = settings.number(f"{ACTOR}.clip_ratio_low", 0.2)
    high = settings.number(f"{ACTOR}.clip_ratio_high", 0.2)
    return (both if low.given and low.value is None else low), (both if high.given and high.value is None else high)


def _own_clip(settings: Settings, section: str) -> tuple[Setting[float], Setting[float]]:
    """The range of a control of covent, which does not read verl's."""
    return settings.number(f"{section}.clip_ratio_low", 1.0), settings.number(f"{section}.clip_ratio_high", 1.0)


def _advantage(settings: Settings) -> Advantage:
    estimator = settings.text("algorithm.adv_estimator", "gae")
    if estimator.value == "grpo":
        spread = settings.flag("algorithm.norm_adv_by_std_in_grpo", True)
        if spread.value is False:
            return Advantage(Setting(spread.key, "false", spread.given), "centred")
        return Advantage(estimator, "group_std")
    return Advantage(estimator, _ADVANTAGES.get(estimator.value, "unknown"))


def _batch(settings: Settings, ranks: int | None) -> Batch:
    key = "data.train_batch_size"
    streams = settings.number(key, 1024).value == 0
    prompts = Setting[int](key, None) if streams else settings.count(key, 1024)
    mini = settings.count(f"{ACTOR}.ppo_mini_batch_size", 256)
    epochs = settings.count(f"{ACTOR}.ppo_epochs", 1)
    group = settings.count(f"{ROLLOUT}.n", 1)
    updates = responses = None
    if prompts.value and mini.value and epochs.value and group.value:
        updates = math.ceil(prompts.value / mini.value) * epochs.value
        responses = min(mini.value, prompts.value) * group.value
    data_parallel = _ranks(settings, ranks)
    packed = settings.flag(f"{ACTOR}.use_dynamic_bsz", False).value
    tokens = settings.count(f"{ACTOR}.ppo_max_token_len_per_gpu", 16384)
    sharing = settings.count(f"{ACTOR}.ulysses_sequence_parallel_size", 1).value or 1
    return Batch(
        prompts=prompts,
        group_size=group,
        responses_per_update=responses,
        updates_per_rollout=updates,
        update_keys=f"data.train_batch_size, {ACTOR}.ppo_mini_batch_size and {ACTOR}.ppo_epochs",
        is_stale=settings.flag("algorithm.rollout_correction.bypass_mode", False).value is True,
        ranks=data_parallel,
        micro_responses=None if packed else _micro(settings, data_parallel),
        micro_tokens=Setting(tokens.key, tokens.value and tokens.value * sharing, tokens.given) if packed else None,
        max_response=settings.count("data.max_response_length", 512),
        max_prompt=settings.count("data.max_prompt_length", 512),
    )


def _micro(settings: Settings, ranks: Setting[int]) -> Setting[int]:
    each = settings.count(f"{ACTOR}.ppo_micro_batch_size_per_gpu", None)
    over_all = settings.count(f"{ACTOR}.ppo_micro_batch_size", None)
    if each.value is None and over_all.value is not None and ranks.value is not None:
        return Setting(over_all.key, max(1, over_all.value // ranks.value))
    return each


def _ranks(settings: Settings, told: int | None) -> Setting[int]:
    if told is not None:
        return Setting("--ranks", told)
    nodes, gpus = settings.count("trainer.nnodes", 1), settings.count("trainer.n_gpus_per_node", 8)
    key = "trainer.nnodes x trainer.n_gpus_per_node"
    if nodes.value is None or gpus.value is None:
        return Setting(key, None, nodes.given or gpus.given)
    sizes = [f"{ACTOR}.megatron.{kind}_parallel_size" for kind in ("tensor_model", "pipeline_model", "context")]
    ulysses = {f"{ACTOR}.ulysses_sequence_parallel_size", f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size"}
    together = math.prod(settings.count(key, 1).value or 1 for key in sizes)
    together *= max(settings.count(key, 1).value or 1 for key in ulysses)
    return Setting(key, max(1, nodes.value * gpus.value // together), nodes.given or gpus.given)


def _reference_kl(settings: Settings) -> Setting[float] | None:
    if settings.flag(f"{ACTOR}.use_kl_loss", False).value:
        return settings.number(f"{ACTOR}.kl_loss_coef", 0.001)
    if settings.flag("algorithm.use_kl_in_reward", False).value:
        return settings.number("algorithm.kl_ctrl.kl_coef", 0.001)
    return None


def _entropy(settings: Settings) -> EntropyLog:
    source = "verl 0.9.1, trainer/ppo/v1/trainer_base.py; verl issue 4239"
    bypass = settings.flag("algorithm.rollout_correction.bypass_mode", False).value
    in_update = settings.flag(f"{ACTOR}.calculate_entropy", False).value or settings.number(
        f"{ACTOR}.entropy_coeff", 0.0
    ).value not in (0.0, None)
    if bypass and not in_update:
        return EntropyLog(
            None,
            "algorithm.rollout_correction.bypass_mode takes the old log-probs from the rollout engine, and the forward"
            " pass that would measure entropy is left out",
            source,
            f"{ACTOR}.calculate_entropy=true: actor/entropy_loss is then the entropy in the update",
        )
    mode = settings.text(f"{ACTOR}.loss_agg_mode", "token-mean").value
    temperature = settings.number(f"{ROLLOUT}.temperature", 1.0).value
    if bypass:
        return EntropyLog(
            "actor/entropy_loss", f"exact, policy of the update, temperature {temperature}, {mode}", source
        )
    return EntropyLog(
        "actor/entropy",
        f"exact, old policy, temperature {temperature}, {mode}; the paper has the mean over each response first, at"
        " temperature 1",
        source,
    )
