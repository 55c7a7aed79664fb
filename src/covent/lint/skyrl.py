"""SkyRL's config."""

from __future__ import annotations

import math
from collections.abc import Iterator

from covent.errors import suggestion
from covent.lint.findings import Finding, Level
from covent.lint.keys import Schema, names, unknown_settings
from covent.lint.settings import Setting, Settings
from covent.lint.setup import CONTROLS, Advantage, Batch, EntropyLog, Scale, Setup

ALGORITHM = "trainer.algorithm"
_CONFIG = "SkyRL at a956457, skyrl/train/config/config.py"
_LOSSES = [
    "regular",
    "dual_clip",
    "gspo",
    "clip_cov",
    "kl_cov",
    "cispo",
    "sapo",
    "rollout_is",
    "cross_entropy",
    "importance_sampling",
    "dppo",
]
_ADVANTAGES: dict[str | None, Scale] = {
    "grpo": "group_std",
    "rloo": "centred",
    "gae": "whitened",
    "reinforce++": "whitened",
}

_TRAINER_NAMES = names("""
    placement use_expandable_segments sequence_parallel_backend strategy policy ref critic algorithm mtp
    fully_async gradient_checkpointing gradient_checkpointing_use_reentrant seed resume_mode resume_path
    log_path ckpt_path max_ckpts_to_keep ckpt_interval hf_save_interval export_path bf16 epochs
    max_training_steps update_epochs_per_batch train_batch_size policy_mini_batch_size critic_mini_batch_size
    micro_train_batch_size_per_gpu micro_forward_batch_size_per_gpu max_tokens_per_microbatch
    recompute_old_logprobs_per_minibatch update_ref_every_epoch remove_microbatch_padding eval_batch_size
    eval_before_train eval_interval max_prompt_length flash_attn disable_fast_tokenizer project_name run_name
    logger enable_ray_gpu_monitor tags dump_data_batch dump_eval_results print_example_interval
    num_logger_eval_samples num_logger_train_samples log_example_interval logprobs_chunk_size
    vocab_entropy_chunk_size vocab_entropy_chunk_memory_mb fused_lm_head_logprob fused_lm_head_logprob_backend
""")
_ALGORITHM_NAMES = names("""
    advantage_estimator kl_ctrl kl_estimator_type use_kl_in_reward use_kl_loss kl_loss_coef use_entropy_loss
    entropy_loss_coef temperature advantage_batch_normalize value_head_prefix policy_loss_type loss_reduction
    grpo_norm_by_std zero_variance_filter zero_variance_filter_tol lambd gamma eps_clip_low eps_clip_high
    clip_ratio_c tis_imp_ratio_cap use_tis off_policy_correction sapo value_clip dynamic_sampling clip_cov
    kl_cov cispo dppo max_seq_len
""")
SCHEMA = Schema(
    sections={
        "trainer": _TRAINER_NAMES,
        ALGORITHM: _ALGORITHM_NAMES,
        f"{ALGORITHM}.clip_cov": names("clip_ratio clip_cov_lb clip_cov_ub"),
        f"{ALGORITHM}.kl_cov": names("kl_cov_frac ppo_kl_coef"),
        "generator": names("""
            inference_engine n_samples_per_prompt batched max_turns max_input_length chat_template chat_template_kwargs
            sampling_params use_conversation_multi_turn append_eos_token_after_stop_str_in_multi_turn
            eval_sampling_params eval_n_samples_per_prompt zero_reward_on_non_stop use_cache_salt
            apply_overlong_filtering step_wise_trajectories vision_language_generator merge_stepwise_output
        """),
        "generator.sampling_params": names("max_generate_length temperature top_p top_k min_p"),
    },
    closed=frozenset({f"{ALGORITHM}.clip_cov", f"{ALGORITHM}.kl_cov"}),
    refusal="SkyRL refuses a name that its config classes do not have.",
    source=_CONFIG,
)


def own_settings(settings: Settings) -> tuple[str, ...]:
    """Those that only a config of SkyRL has."""
    return settings.starting_with(
        f"{ALGORITHM}.", "trainer.policy_mini_batch_size", "trainer.policy.", "trainer.placement."
    )


def setup(settings: Settings, ranks: int | None) -> Setup:
    """What a config asks of SkyRL."""
    loss = settings.text(f"{ALGORITHM}.policy_loss_type", "regular")
    control = CONTROLS.get(loss.value)
    share = {
        "clip_cov": settings.number(f"{ALGORITHM}.clip_cov.clip_ratio", 2e-4),
        "kl_cov": settings.number(f"{ALGORITHM}.kl_cov.kl_cov_frac", 0.2),
    }
    band = (
        settings.number(f"{ALGORITHM}.clip_cov.clip_cov_lb", 1.0),
        settings.number(f"{ALGORITHM}.clip_cov.clip_cov_ub", 5.0),
    )
    batch = _batch(settings, ranks)
    return Setup(
        engine="skyrl",
        label="SkyRL",
        loss=loss,
        control=control,
        scope="micro-batch",
        floor_of_one=True,
        share=share.get(control or ""),
        share_unit=1.0,
        unread_shares=tuple(each for name, each in share.items() if name != control and each.given),
        band=band if control == "clip_cov" else None,
        kl_coef=settings.number(f"{ALGORITHM}.kl_cov.ppo_kl_coef", 1.0) if control == "kl_cov" else None,
        clip=(settings.number(f"{ALGORITHM}.eps_clip_low", 0.2), settings.number(f"{ALGORITHM}.eps_clip_high", 0.2)),
        clip_counts=control != "kl_cov",
        advantage=_advantage(settings, batch),
        batch=batch,
        entropy_coef=_entropy_coef(settings),
        reference_kl=_reference_kl(settings),
        entropy=EntropyLog(
            "policy_entropy",
            "exact, policy of the update, at the sampling temperature, mean of the means of the micro-batches: short"
            " micro-batches weigh as much as long ones",
            "SkyRL issue 1822",
        ),
        temperature=settings.number("generator.sampling_params.temperature", 1.0),
        selection_source="SkyRL at a956457, skyrl/backends/skyrl_train/utils/ppo_utils.py",
    )


def findings(settings: Settings) -> Iterator[Finding]:
    """What only a config of SkyRL can get wrong."""
    yield from unknown_settings(settings, SCHEMA)
    loss = settings.text(f"{ALGORITHM}.policy_loss_type", "regular")
    if loss.value is not None and loss.value not in _LOSSES:
        yield Finding(
            level=Level.WARNING,
            rule="unknown-loss",
            setting=str(loss),
            text=f"'{loss.value}' is none of SkyRL's losses. Unless your code registers it, the run stops.",
            reason="Losses are looked up in SkyRL's registry by name.",
            instead=suggestion(loss.value.replace("-", "_"), _LOSSES),
            source=_CONFIG,
        )
    correction = f"{ALGORITHM}.off_policy_correction."
    on = [key for key in settings.values if key.startswith(correction) and key.endswith(("_type", "_metric"))]
    on = [key for key in on if settings.values[key] is not None]
    if on and loss.value in ("clip_cov", "kl_cov"):
        yield Finding(
            level=Level.ERROR,
            rule="refused-together",
            setting=str(settings.text(on[0], None)),
            text=f"SkyRL stops at the start: it has no off-policy correction for {loss.value}.",
            reason="Its config check raises NotImplementedError for the two together.",
            instead=f"{on[0]}=null",
            source="SkyRL at a956457, skyrl/train/utils/utils.py",
        )


def _advantage(settings: Settings, batch: Batch) -> Advantage:
    estimator = settings.text(f"{ALGORITHM}.advantage_estimator", "grpo")
    scale = _ADVANTAGES.get(estimator.value, "unknown")
    if scale == "group_std" and settings.flag(f"{ALGORITHM}.grpo_norm_by_std", True).value is False:
        scale = "centred"
    if settings.flag(f"{ALGORITHM}.advantage_batch_normalize", False).value:
        scale = "whitened"
    reduction = settings.text(f"{ALGORITHM}.loss_reduction", "token_mean")
    tokens = None
    if reduction.value == "seq_mean_token_sum_norm":
        tokens = settings.number(f"{ALGORITHM}.max_seq_len", None).value
    divided = None if batch.responses_per_update is None else (float(batch.responses_per_update), tokens)
    return Advantage(reduction, scale, divided)


def _batch(settings: Settings, ranks: int | None) -> Batch:
    prompts = settings.count("trainer.train_batch_size", 1024)
    mini = settings.count("trainer.policy_mini_batch_size", 256)
    epochs = settings.count("trainer.update_epochs_per_batch", 1)
    group = settings.count("generator.n_samples_per_prompt", 5)
    updates = responses = None
    if prompts.value and mini.value and epochs.value and group.value:
        updates = math.ceil(prompts.value / mini.value) * epochs.value
        responses = min(mini.value, prompts.value) * group.value
    packed = settings.number("trainer.max_tokens_per_microbatch", -1)
    pack = packed.value is not None and packed.value > 0
    return Batch(
        prompts=prompts,
        group_size=group,
        responses_per_update=responses,
        updates_per_rollout=updates,
        update_keys="trainer.train_batch_size, trainer.policy_mini_batch_size and trainer.update_epochs_per_batch",
        is_stale=False,
        ranks=_ranks(settings, ranks),
        micro_responses=None if pack else settings.count("trainer.micro_train_batch_size_per_gpu", 1),
        micro_tokens=settings.count(packed.key, None) if pack else None,
        max_response=settings.count("generator.sampling_params.max_generate_length", 1024),
        max_prompt=settings.count("trainer.max_prompt_length", 512),
    )


def _ranks(settings: Settings, told: int | None) -> Setting[int]:
    if told is not None:
        return Setting("--ranks", told)
    place = "trainer.placement"
    nodes, gpus = settings.count(f"{place}.policy_num_nodes", 1), settings.count(f"{place}.policy_num_gpus_per_node", 1)
    sharing = settings.count("trainer.policy.sequence_parallel_size", 1).value or 1
    key = f"{place}.policy_num_nodes x policy_num_gpus_per_node"
    if nodes.value is None or gpus.value is None:
        return Setting(key, None, nodes.given or gpus.given)
    return Setting(key, max(1, nodes.value * gpus.value // sharing), nodes.given or gpus.given)


def _entropy_coef(settings: Settings) -> Setting[float]:
    on = settings.flag(f"{ALGORITHM}.use_entropy_loss", False)
    coef = settings.number(f"{ALGORITHM}.entropy_loss_coef", 0.01)
    return coef if on.value else Setting(on.key, 0.0, on.given)


def _reference_kl(settings: Settings) -> Setting[float] | None:
    in_reward = settings.flag(f"{ALGORITHM}.use_kl_in_reward", False).value
    in_loss = settings.flag(f"{ALGORITHM}.use_kl_loss", True).value
    return settings.number(f"{ALGORITHM}.kl_loss_coef", 0.001) if in_reward or in_loss else None
