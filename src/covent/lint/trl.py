"""TRL's GRPOConfig (1.14 to 1.16), alone or in a recipe with the sections `trl` and `covent`."""

from __future__ import annotations

from collections.abc import Iterator

from covent.lint.findings import Finding, Level
from covent.lint.keys import Schema, names, unknown_settings
from covent.lint.own import adaptive_bonus, own_entropy_coef, own_faults, with_one_control
from covent.lint.settings import Setting, Settings
from covent.lint.setup import CONTROLS, OWN_SCOPES, Advantage, Batch, EntropyLog, Scale, Setup

_OWN = names("""
    num_generations max_completion_length generation_batch_size steps_per_generation num_iterations epsilon
    epsilon_high delta scale_rewards loss_type top_entropy_quantile entropy_coef use_adaptive_entropy
    entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target importance_sampling_level
    mask_truncated_completions
""")
"""Settings that tell a GRPOConfig."""
_KNOWN = _OWN | names("""
    per_device_train_batch_size per_device_eval_batch_size gradient_accumulation_steps temperature beta
    use_liger_kernel use_liger_loss learning_rate output_dir max_steps num_train_epochs lr_scheduler_type
    warmup_steps warmup_ratio weight_decay max_grad_norm bf16 fp16 seed data_seed save_steps save_strategy
    eval_steps eval_strategy logging_steps logging_strategy report_to run_name use_vllm vllm_mode use_cpu top_p
    top_k min_p reward_weights num_generations_eval eval_accumulation_steps max_prompt_length
    num_completions_to_print log_completions sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_k_neg
    vespo_lambda_pos vespo_lambda_neg vllm_importance_sampling_correction vllm_importance_sampling_mode
    vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min vllm_importance_sampling_cap
    vllm_gpu_memory_utilization sync_ref_model ref_model_sync_steps ref_model_mixup_alpha model_init_kwargs
    repetition_penalty generation_kwargs shuffle_dataset disable_dropout adam_beta1 adam_beta2 adam_epsilon
    optim optim_args push_to_hub hub_model_id deepspeed fsdp fsdp_config ddp_backend resume_from_checkpoint
    gradient_checkpointing activation_checkpointing torch_compile dataloader_num_workers remove_unused_columns
    off_policy_mask_threshold use_bias_correction_kl
""")
_CONTROL = "covent.control"
_SCALES: dict[str, Scale] = {
    "group": "group_std",
    "true": "group_std",
    "batch": "whitened",
    "none": "centred",
    "false": "centred",
}
"""Words of `scale_rewards`."""


def own_settings(settings: Settings) -> tuple[str, ...]:
    """Those that only a GRPOConfig, or a recipe with one, has."""
    return tuple(key for key in settings.values or settings.assigned if key in _OWN or key.startswith("trl."))


def setup(settings: Settings, ranks: int | None) -> Setup:
    """What a config asks of TRL."""
    own_coef = own_entropy_coef(settings, _CONTROL)
    settings, top = plain(settings), prefix(settings)
    kind = settings.text(f"{_CONTROL}.type", None)
    loss = kind if kind.value else settings.text(f"{top}loss_type", "dapo")
    control = CONTROLS.get((kind.value or "").removesuffix("_released"))
    share = {
        "clip_cov": settings.number(f"{_CONTROL}.clip_cov_ratio", 2e-4),
        "kl_cov": settings.number(f"{_CONTROL}.kl_cov_ratio", 2e-3),
    }
    band = settings.number(f"{_CONTROL}.clip_cov_lb", 1.0), settings.number(f"{_CONTROL}.clip_cov_ub", 5.0)
    scope = OWN_SCOPES.get(settings.text("covent.scope", "window").value, "window")
    return Setup(
        engine="trl",
        label="TRL 1.16" + (" with covent" if kind.value else ""),
        loss=loss,
        control=control,
        scope=scope,
        floor_of_one=(kind.value or "").endswith("_released"),
        share=share.get(control or ""),
        share_unit=1.0,
        unread_shares=tuple(each for name, each in share.items() if name != control and each.given),
        band=band if control == "clip_cov" else None,
        kl_coef=settings.number(f"{_CONTROL}.ppo_kl_coef", 1.0) if control == "kl_cov" else None,
        clip=_clip(settings, top, control),
        clip_counts=control != "kl_cov",
        advantage=_advantage(settings, top),
        batch=_batch(settings, top, ranks),
        entropy_coef=own_coef or settings.number(f"{top}entropy_coef", 0.0),
        reference_kl=_reference_kl(settings, top),
        entropy=_entropy(settings, top),
        temperature=settings.number(f"{top}temperature", 1.0),
        selection_source="docs/trl.md, scope",
    )


def findings(settings: Settings) -> Iterator[Finding]:
    """What only a config of TRL can get wrong."""
    given, settings, top = settings, plain(settings), prefix(settings)
    names = _KNOWN - {"warmup_ratio"} if top else _KNOWN
    schema = Schema(
        sections={top.rstrip("."): names},
        closed=frozenset(),
        refusal="GRPOConfig refuses a name that it does not have.",
        source="TRL 1.16, trl/trainer/grpo_config.py",
    )
    yield from unknown_settings(settings, schema)
    yield from own_faults(given, _CONTROL, section="covent", scope="covent.scope")
    yield from _liger(settings, top)
    yield from _quantile(settings, top)
    yield from adaptive_bonus(settings, top)


def prefix(settings: Settings) -> str:
    """What stands before TRL's own names: `trl.` in a recipe."""
    return "trl." if settings.starting_with("trl.") else ""


def plain(settings: Settings) -> Settings:
    """The same settings with the one control that chooses tokens as `covent.control`, where a list has it."""
    return with_one_control(settings, _CONTROL)


def _clip(settings: Settings, top: str, control: str | None) -> tuple[Setting[float], Setting[float]]:
    if control is not None:
        return (
            settings.number(f"{_CONTROL}.clip_ratio_low", 1.0),
            settings.number(f"{_CONTROL}.clip_ratio_high", 1.0),
        )
    low = settings.number(f"{top}epsilon", 0.2)
    high = settings.number(f"{top}epsilon_high", None)
    return low, high if high.value is not None else Setting(high.key, low.value, False)


def _advantage(settings: Settings, top: str) -> Advantage:
    scaling = settings.text(f"{top}scale_rewards", "group")
    return Advantage(scaling, _SCALES.get((scaling.value or "").lower(), "unknown"))


def _batch(settings: Settings, top: str, ranks: int | None) -> Batch:
    world = Setting("--ranks", ranks or 1, ranks is not None)
    each = settings.count(f"{top}per_device_train_batch_size", 8)
    accumulated = settings.count(f"{top}gradient_accumulation_steps", 1)
    group = settings.count(f"{top}num_generations", 8)
    responses = settings.count("responses_per_update", None).value if top else None
    if responses is None and each.value and accumulated.value and world.value:
        responses = each.value * accumulated.value * world.value
    updates = _updates(settings, top, each.value, accumulated.value, world.value)
    prompts = updates and responses and group.value and max(1, updates[0] * responses // group.value)
    return Batch(
        prompts=Setting("prompts", prompts or None, False),
        group_size=group,
        responses_per_update=responses,
        updates_per_rollout=updates[0] * updates[1] if updates else None,
        update_keys=f"{top}steps_per_generation, {top}gradient_accumulation_steps and {top}num_iterations",
        is_stale=False,
        ranks=world,
        micro_responses=each,
        micro_tokens=None,
        max_response=settings.count(f"{top}max_completion_length", 512),
        max_prompt=Setting("prompt", None, False),
    )


def _updates(
    settings: Settings, top: str, each: int | None, accumulated: int | None, world: int | None
) -> tuple[int, int] | None:
    """Updates that share one generation, and how often each of its responses is used; None where that is not known."""
    passes = settings.count(f"{top}num_iterations", 1).value
    if top and (told := settings.count("updates_per_rollout", None).value) is not None and passes is not None:
        return told, passes
    if each is None or accumulated is None or world is None or passes is None:
        return None
    steps = settings.count(f"{top}steps_per_generation", accumulated).value
    generated = settings.count(f"{top}generation_batch_size", None).value
    if generated is not None:
        steps = generated // (each * world)
    return None if steps is None else (max(1, steps // accumulated), passes)


def _reference_kl(settings: Settings, top: str) -> Setting[float] | None:
    beta = settings.number(f"{top}beta", 0.0)
    return beta if beta.value else None


def _entropy(settings: Settings, top: str) -> EntropyLog:
    source = "TRL 1.16, trl/trainer/grpo_trainer.py"
    if settings.flag(f"{top}use_liger_loss", False).value:
        return EntropyLog(
            None,
            "with Liger's loss TRL never has the logits, and logs no entropy",
            "TRL below 1.14, trl/trainer/grpo_trainer.py",
            f"{top}use_liger_loss=false",
        )
    temperature = settings.number(f"{top}temperature", 1.0).value
    return EntropyLog(
        "entropy",
        f"exact, policy of the update, temperature {temperature}, mean over all tokens of all ranks; the paper has the"
        " mean over each response first, at temperature 1",
        source,
    )


def _liger(settings: Settings, top: str) -> Iterator[Finding]:
    liger = settings.flag(f"{top}use_liger_kernel", False)
    if liger.value:
        yield Finding(
            level=Level.WARNING,
            rule="liger",
            setting=str(liger),
            text="Before TRL 1.14 this replaces the loss: no entropy is logged, and a loss of your own or of"
            " covent never"
            " runs. From 1.14 on it swaps layer kernels only.",
            reason="Its compute_loss branched away before the method that subclasses override.",
            instead=f"{top}use_liger_kernel=false, or TRL 1.14 and later",
            source="TRL 1.12 and 1.14.2, trl/trainer/grpo_trainer.py",
        )


def _quantile(settings: Settings, top: str) -> Iterator[Finding]:
    quantile = settings.number(f"{top}top_entropy_quantile", 1.0)
    if quantile.value is None or quantile.value >= 1:
        return
    kept = f"{quantile.value:.0%}"
    is_turned = quantile.value >= 0.5
    yield Finding(
        level=Level.WARNING if is_turned else Level.INFO,
        rule="top-entropy-share",
        setting=str(quantile),
        text=f"{kept} of the tokens keep their gradient: those of highest entropy, by a threshold that is taken"
        " over all"
        " ranks but for each micro-batch anew.",
        reason="The number is the share that is kept, not the one that is dropped; the 80/20 paper keeps 20 %."
        if is_turned
        else "The number is the share that is kept. The loss still divides by all tokens.",
        instead=f"{top}top_entropy_quantile=0.2" if is_turned else "",
        source="arXiv 2506.01939; TRL 1.16, trl/trainer/grpo_config.py; TRL issue 3744",
    )
