"""Every setting of the embedded trainer, documented under its field. How they are read: `covent.train.config_file`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from covent.controls import AnyControl, OneOrSeveralControls, PPOClip, rehearsed
from covent.tasks import AnyTaskSettings, ClockSettings, DataSettings, RewardSettings, VerifierSettings

_PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
_Size = Annotated[int, Field(ge=1, le=2**20)]
"""Of a layer. Weights beyond it fit no machine that this trainer runs on."""
_Samples = Annotated[int, Field(ge=1, le=10**6)]
_LearningRate = Annotated[float, Field(gt=0, le=10)]
_Temperature = Annotated[float, Field(ge=1e-3, le=1e3)]
_AdamBeta = Annotated[float, Field(ge=0, lt=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    """Which model is trained: a downloaded one, or a small Qwen2 made from these sizes."""

    path: str | None = None
    """Folder of a downloaded transformers causal LM (config.json and safetensors), for example Qwen2.5-0.5B. None:
    a model of the sizes below with a word-level tokenizer, initialised at random."""
    hidden_size: _Size = 64
    """Width of the hidden states; a multiple of 2 x num_heads."""
    num_layers: Annotated[int, Field(ge=1, le=1000)] = 2
    """Transformer blocks."""
    num_heads: _Size = 4
    """Attention heads; keys and values have as many."""
    intermediate_size: _Size = 168
    """Width of the feed-forward layer."""
    lora_rank: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Above 0: LoRA matrices of this rank are trained, and the weights stay as they are (the `lora` extra). The final
    model is merged; `model/adapter` of the run holds the matrices alone."""
    lora_alpha: Annotated[int, Field(ge=1, le=2**20)] = 32
    """LoRA's contribution is multiplied by lora_alpha / lora_rank."""
    target_modules: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Layers that get LoRA matrices, by the ends of their names; `all-linear`: every linear layer but the LM head."""
    gradient_checkpointing: bool = False
    """Forget what happens inside a transformer block and compute it again in the backward pass: less memory, more time,
    and the same numbers."""

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(f"hidden_size ({self.hidden_size}) must be a multiple of 2 x num_heads ({self.num_heads})")
        return self


class WarmStartSettings(_Settings):
    """Supervised training on generated demonstrations before RL, cached by the hash of all it depends on."""

    steps: int = Field(default=700, ge=0)
    """0 starts RL from the model as it is."""
    batch_size: _PositiveInt = 64
    """Demonstrations a step."""
    lr: _LearningRate = 3e-3
    """Of AdamW, at its highest."""
    lr_warmup_steps: int = Field(default=50, ge=0)
    """Steps over which lr rises linearly."""
    final_lr_frac: float = Field(default=0.05, ge=0, le=1)
    """The cosine schedule ends at this fraction of lr."""
    min_teacher_frac: float = Field(default=0.66, ge=0, le=1)
    """A warm start counts as done when the model solves at least this share of what the writers of the demonstrations
    solve, on 512 train problems; otherwise it is trained for `steps` more, up to `max_rounds` times. 0: no check."""
    max_rounds: _PositiveInt = 3
    """Most times `steps` that a warm start may take before it is given up."""
    cache: bool = True
    """Keep the warm-started weights in the user's cache folder (XDG_CACHE_HOME/covent)."""


class RolloutSettings(_Settings):
    """How responses are sampled and which groups are kept."""

    prompts_per_step: _PositiveInt = 32
    """Groups of a rollout."""
    samples_per_prompt: int = Field(default=8, ge=2, le=10**6)
    """Responses of a group; the advantage compares a response with the others of its group."""
    temperature: _Temperature = 1.0
    """Of sampling, and of the ratio in the loss. The entropy for the law is at temperature 1 all the same."""
    max_response_tokens: int | None = Field(default=None, ge=1)
    """None: what the task's longest response needs."""
    group_filter: Literal["none", "mixed", "refill"] = "mixed"
    """`mixed`: groups in which all rewards are equal carry no gradient and are left out. `refill`: the same, and new
    prompts are sampled until `prompts_per_step` mixed groups are found (dynamic sampling, as in the paper). `none`:
    all groups are kept."""
    max_generations: _PositiveInt = 10
    """With `refill`: at most so many generation rounds a step; after that the step goes on with the groups it has."""
    responses_per_forward: _PositiveInt = 512
    """Memory bound of the sampler: responses decoded at a time."""


class SamplerSettings(_Settings):
    """What samples responses."""

    engine: Literal["torch", "vllm"] = "torch"
    """`torch`: the embedded sampler, exactly reproducible. `vllm`: vLLM in this process (the `vllm` extra), faster on a
    GPU; it is given the weights before each rollout, entropies are then the learner's, and a seed gives the same
    responses mostly, not always."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """vLLM: share of the device's memory for its weights and cache; the learner needs the rest."""
    max_model_len: _PositiveInt | None = None
    """vLLM: tokens of prompt and response together. None: the model's own limit, for which the cache must have room."""


class OptimizerSettings(_Settings):
    """Adam and the split of a rollout into optimizer steps."""

    lr: _LearningRate = 3e-4
    """Of Adam."""
    betas: tuple[_AdamBeta, _AdamBeta] = (0.9, 0.99)
    """Of Adam: memory of the gradient and of its square."""
    lr_warmup_steps: int = Field(default=5, ge=0)
    """Optimizer steps over which lr rises linearly."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    updates_per_rollout: _PositiveInt = 4
    """The kept groups of a rollout are split into so many optimizer batches of nearly equal size."""
    responses_per_micro_batch: _PositiveInt = 64
    """Memory bound of the learner; changes the result by rounding only."""
    tokens_per_micro_batch: int | None = Field(default=None, ge=1)
    """A second bound: tokens of prompts and responses, padding included, of one forward pass. Responses of like length
    then go together. A response that is longer on its own goes alone. None: the number of responses is the only one."""


class EvaluationSettings(_Settings):
    """Held-out evaluation. Validation problems serve the law and the choice of settings, test problems the result."""

    every: _PositiveInt = 5
    """Validation once per block of so many rollout steps, with the policy in the middle of the block; the law pairs it
    with the block's mean entropy."""
    validation_problems: _PositiveInt = 128
    """Problems of each validation, always the same ones."""
    validation_samples: _PositiveInt = 4
    """Responses to each: R of the law is avg@k with this k."""
    test_problems: int = Field(default=256, ge=0)
    """Evaluated before and after the run; 0 skips the test."""
    test_samples: _PositiveInt = 32
    """Responses to each, for avg@k and pass@k."""
    problem_seed: int = 0
    """Which validation and test problems are drawn; not tied to the run's seed, so that runs are comparable."""


class CheckpointSettings(_Settings):
    """What `covent resume` goes on from, beside what a signal saves."""

    every: int = Field(default=10, ge=0)
    """Rollout steps between two checkpoints; 0: only at the start and the end."""
    keep: _PositiveInt = 2
    """Newest checkpoints that are kept; each holds the weights and twice their size for the optimizer."""


class TrainConfig(_Settings):
    """All settings of one run."""

    name: str = ""
    """Label in legends; empty: the control's type."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of everything random: facts and corpus of the task, first weights, prompts, sampling, controls."""
    steps: _PositiveInt = 160
    """Rollout steps."""
    threads: int = Field(default=1, ge=1, le=1024)
    """CPU threads of torch. The same seed gives the same run, bit for bit, at one thread count."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU if torch finds one."""
    dtype: Literal["auto", "float32", "float64", "bfloat16"] = "auto"
    """Of weights and arithmetic. `bfloat16`: of matrix products alone; weights that are trained, logits, entropies and
    losses are float32. `auto`: bfloat16 for a model of `model.path` on a GPU that has it, otherwise float32."""
    task: Annotated[AnyTaskSettings, Field(discriminator="name")] = ClockSettings()
    """Which problems; `task.name` chooses, and its settings are explained in `covent.tasks`."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the children that judge, and how many errors stop the run."""
    reward: RewardSettings = RewardSettings()
    """A reward function of your own."""
    model: ModelSettings = ModelSettings()
    """Which model, or the sizes of one made here."""
    warm_start: WarmStartSettings = WarmStartSettings()
    """Supervised training before RL."""
    rollout: RolloutSettings = RolloutSettings()
    """How responses are sampled, and which are kept."""
    sampler: SamplerSettings = SamplerSettings()
    """What samples them."""
    scale_rewards: Literal["group", "none"] = "group"
    """`group`: advantages are divided by the standard deviation of their group (GRPO). `none`: centred only."""
    loss_mode: Literal["vanilla", "gspo", "cispo"] = "vanilla"
    """The importance ratio: `vanilla` of each token, clipped (PPO, GRPO, DAPO); `gspo` of each response; `cispo` of
    each token, as a clipped weight. The clip range is the control's."""
    loss_agg_mode: Literal[
        "token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"
    ] = "token-mean"
    """How the terms of tokens are weighed, with verl's names: GRPO as published is seq-mean-token-mean, Dr.GRPO
    seq-mean-token-sum-norm."""
    control: OneOrSeveralControls = PPOClip()
    """One entropy control, or a list of them that act together; `type` chooses, and its settings are explained in
    `covent.controls`."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Adam, and the split of a rollout into updates."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Validation and test."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """What a run can be resumed from."""
    report_to: tuple[Literal["trackio", "wandb", "tensorboard"], ...] = ()
    """Trackers that get the numbers too. Rows are in the run folder first, and no tracker can hold the run up; what one
    lacks in the end, `covent track` sends."""
    project: str = "covent"
    """Under which trackers file the run."""
    probe_prompts: int = Field(default=48, ge=0)
    """Prompts whose responses under the start policy are the fixed probe states; 0 for no probes."""
    stop_when_gain_below: float | None = Field(default=None, gt=0, le=1)
    """Stop early once the law is identified and the upper end of its forecast for the last step lies less than this
    above the mean of the last 3 validation accuracies; a fraction. None: never stop early."""
    attribute_every: int = Field(default=0, ge=0)
    """Every so many optimizer steps, split the entropy change on the probe states by cause (docs/attribution.md).
    It costs some more backward passes and changes nothing in the run; 0: never."""
    samples_kept: int = Field(default=8, ge=0)
    """Responses kept with token columns at each validation, for the report."""
    samples_detail: bool = True
    """Write down for each token of those also what else the policy might have said, and its log-prob and entropy after
    the optimizer step: two forward passes over them, which change nothing in the run."""

    @model_validator(mode="after")
    def _attribution_has_states(self) -> Self:
        if self.attribute_every and not self.probe_prompts:
            raise ValueError(
                f"attribute_every = {self.attribute_every} splits the entropy change on the probe states, and"
                f" probe_prompts = 0 makes none. Set probe_prompts to 1 or more, or attribute_every to 0"
            )
        return self

    @model_validator(mode="after")
    def _vllm_has_this_temperature(self) -> Self:
        # Below it vLLM samples at 0.01 and says so in its log alone.
        if self.sampler.engine == "vllm" and self.rollout.temperature < 0.01:
            raise ValueError(
                f"rollout.temperature = {self.rollout.temperature:g}: vLLM samples at 0.01 or more. Use"
                " sampler.engine=torch, or a higher temperature"
            )
        return self

    @model_validator(mode="after")
    def _controls_go_together(self) -> Self:
        plan = rehearsed(self.controls)
        if self.loss_mode == "cispo" and plan.dual_clip is not None:
            raise ValueError(
                f"loss_mode = cispo has no dual clip, and control.clip_ratio_c = {plan.dual_clip:g} asks for one."
                " Leave clip_ratio_c out"
            )
        return self

    @property
    def label(self) -> str:
        return self.name or " + ".join({"ppo_clip": "grpo"}.get(each.type, each.type) for each in self.controls)

    @property
    def controls(self) -> tuple[AnyControl, ...]:
        return self.control if isinstance(self.control, tuple) else (self.control,)


class Sampling(_Settings):
    """How one source is sampled, where it differs from the others."""

    samples_per_prompt: _Samples | None = None
    """None: as the others."""
    temperature: Literal[0] | _Temperature | None = None
    """None: as the others."""


class ScoringSettings(_Settings):
    """All settings of `covent eval`."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of sampling."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of torch. The same seed gives the same responses at one thread count."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: the GPU if torch finds one."""
    dtype: Literal["auto", "float32", "float64", "bfloat16"] = "auto"
    """Of matrix products. `auto`: bfloat16 on a GPU that has it, otherwise float32."""
    samples_per_prompt: _Samples = 8
    """k: responses to each problem."""
    temperature: Literal[0] | _Temperature = 1.0
    """0 takes the most likely token; then samples_per_prompt=1."""
    by_source: dict[str, Sampling] = {}
    """Other numbers of samples and temperatures for some sources. The paper's: 32 samples at 0.6 for AIME and AMC, one
    at 0 for the rest."""
    max_response_tokens: _PositiveInt = 1024
    """A longer response is cut off."""
    responses_per_forward: _PositiveInt = 64
    """Memory bound: responses decoded at a time."""
    sampler: SamplerSettings = SamplerSettings()
    """What samples responses."""
    max_problems: _PositiveInt | None = None
    """Only the first so many rows. None: all."""
    task: DataSettings
    """How rows are read and judged; `task.path` is the data set."""
    verifier: VerifierSettings = VerifierSettings()
    """Limits of the children that judge, and how many errors stop the evaluation."""
    reward: RewardSettings = RewardSettings()
    """A reward function of your own; `reward.right_at` says from which score on a response is right."""

    def sampling(self, source: str) -> tuple[int, float]:
        """(samples, temperature) of a source."""
        own = self.by_source.get(source, Sampling())
        number = self.samples_per_prompt if own.samples_per_prompt is None else own.samples_per_prompt
        temperature = self.temperature if own.temperature is None else own.temperature
        return number, float(temperature)


def config_warnings(config: TrainConfig) -> list[str]:
    """Settings that are allowed but rarely meant."""
    warnings = []
    for name in ("clip_cov_ratio", "kl_cov_ratio"):
        for share in (getattr(control, name, None) for control in config.controls):
            if share is not None and share > 0.1:
                warnings.append(
                    f"control.{name} = {share:g} is {100 * share:g} % of all tokens; it is a fraction, and the paper's"
                    f" are 0.0002 to 0.002. If you meant {share:g} %, write {share / 100:g}."
                )
    if any(control.type == "kl_cov" for control in config.controls) and config.optimizer.updates_per_rollout == 1:
        warnings.append(
            "control.type = kl_cov with optimizer.updates_per_rollout = 1 never acts: the first update of a rollout is"
            " on-policy, where |log ratio| has no gradient. Use 2 updates or more."
        )
    return warnings
