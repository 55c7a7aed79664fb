"""Every setting of the embedded trainer, documented under its field, and how a YAML file and overrides become one."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from covent.controls import AnyControl, Control, PPOClip
from covent.errors import ConfigError, MissingPathError, suggestion
from covent.tasks import AnyTaskSettings, ClockSettings, RewardSettings, VerifierSettings

_PositiveInt = Annotated[int, Field(ge=1)]


_ONE, _SEVERAL = "one control", "several controls"

OneOrSeveralControls = Annotated[
    Annotated[Control, Tag(_ONE)] | Annotated[tuple[Control, ...], Field(min_length=1), Tag(_SEVERAL)],
    Discriminator(lambda given: _SEVERAL if isinstance(given, list | tuple) else _ONE),
]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSettings(_Settings):
    """Which model is trained: a downloaded one, or a small Qwen2 made from these sizes."""

    path: str | None = None
    """Folder of a downloaded transformers causal LM (config.json and safetensors), for example Qwen2.5-0.5B. None:
    a model of the sizes below with a word-level tokenizer, initialised at random."""
    hidden_size: _PositiveInt = 64
    num_layers: _PositiveInt = 2
    num_heads: _PositiveInt = 4
    intermediate_size: _PositiveInt = 168

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
    lr: float = Field(default=3e-3, gt=0)
    lr_warmup_steps: int = Field(default=50, ge=0)
    final_lr_frac: float = Field(default=0.05, ge=0, le=1)
    """The cosine schedule ends at this fraction of lr."""
    min_teacher_frac: float = Field(default=0.66, ge=0, le=1)
    """A warm start counts as done when the model solves at least this share of what the writers of the demonstrations
    solve, on 512 train problems; otherwise it is trained for `steps` more, up to `max_rounds` times. 0: no check."""
    max_rounds: _PositiveInt = 3
    cache: bool = True
    """Keep the warm-started weights in the user's cache folder (XDG_CACHE_HOME/covent)."""


class RolloutSettings(_Settings):
    """How responses are sampled and which groups are kept."""

    prompts_per_step: _PositiveInt = 32
    samples_per_prompt: int = Field(default=8, ge=2)
    temperature: float = Field(default=1.0, gt=0)
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


class OptimizerSettings(_Settings):
    """Adam and the split of a rollout into optimizer steps."""

    lr: float = Field(default=3e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    lr_warmup_steps: int = Field(default=5, ge=0)
    """Optimizer steps over which lr rises linearly."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    updates_per_rollout: _PositiveInt = 4
    """The kept groups of a rollout are split into so many optimizer batches of nearly equal size."""
    responses_per_micro_batch: _PositiveInt = 64
    """Memory bound of the learner; changes the result by rounding only."""


class EvaluationSettings(_Settings):
    """Held-out evaluation. Validation problems serve the law and the choice of settings, test problems the result."""

    every: _PositiveInt = 5
    """Validation once per block of so many rollout steps, with the policy in the middle of the block; the law pairs it
    with the block's mean entropy."""
    validation_problems: _PositiveInt = 128
    validation_samples: _PositiveInt = 4
    test_problems: int = Field(default=256, ge=0)
    """Evaluated before and after the run; 0 skips the test."""
    test_samples: _PositiveInt = 32
    problem_seed: int = 0
    """Which validation and test problems are drawn; not tied to the run's seed, so that runs are comparable."""


class TrainConfig(_Settings):
    """All settings of one run."""

    name: str = ""
    """Label in legends; empty: the control's type."""
    seed: int = Field(default=0, ge=0)
    steps: _PositiveInt = 160
    """Rollout steps."""
    threads: _PositiveInt = 1
    """CPU threads of torch. The same seed gives the same run, bit for bit, at one thread count."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    task: Annotated[AnyTaskSettings, Field(discriminator="name")] = ClockSettings()
    verifier: VerifierSettings = VerifierSettings()
    reward: RewardSettings = RewardSettings()
    model: ModelSettings = ModelSettings()
    warm_start: WarmStartSettings = WarmStartSettings()
    rollout: RolloutSettings = RolloutSettings()
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
    """One entropy control, or a list of them that act together."""
    optimizer: OptimizerSettings = OptimizerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    probe_prompts: int = Field(default=48, ge=0)
    """Prompts whose responses under the start policy are the fixed probe states; 0 for no probes."""
    stop_when_gain_below: float | None = Field(default=None, gt=0, le=1)
    """Stop early once the law is identified and the upper end of its forecast for the last step lies less than this
    above the mean of the last 3 validation accuracies; a fraction. None: never stop early."""
    attribute_every: int = Field(default=0, ge=0)
    """Every so many optimizer steps, split the entropy change on the probe states by cause (docs/attribution.md).
    It costs some more backward passes and changes nothing in the run; 0: never."""
    samples_kept: int = Field(default=4, ge=0)
    """Responses kept with token columns at each validation, for the report."""

    @model_validator(mode="after")
    def _attribution_has_states(self) -> Self:
        if self.attribute_every and not self.probe_prompts:
            raise ValueError(
                f"attribute_every = {self.attribute_every} splits the entropy change on the probe states, and"
                f" probe_prompts = 0 makes none. Set probe_prompts to 1 or more, or attribute_every to 0"
            )
        return self

    @property
    def label(self) -> str:
        return self.name or " + ".join({"ppo_clip": "grpo"}.get(each.type, each.type) for each in self.controls)

    @property
    def controls(self) -> tuple[AnyControl, ...]:
        return self.control if isinstance(self.control, tuple) else (self.control,)


_DEFAULT_TAGS = {"task": {"name": "clock"}, "control": {"type": "ppo_clip"}}
"""What a section without its tag means, so that `task.preset=hard` alone can be said."""

_TAGS = {f"{section}.{name}" for section, tag in _DEFAULT_TAGS.items() for name in tag}

_SECTIONS = {"task": AnyTaskSettings, "control": get_args(Control)[0]}


def load_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The settings of a YAML file with `key=value` overrides on top; keys may be dotted.

    Raises:
      MissingPathError: the file is not there.
      ConfigError: not YAML, not `key=value`, an unknown setting (with a suggestion), or a value out of range.
    """
    if not path.is_file():
        raise MissingPathError(f"No config file at '{path}'. Give the path of a YAML file such as recipes/clock.yaml.")
    try:
        settings = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not a YAML file: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"'{path}' must hold settings as 'name: value' lines; it holds a {type(settings).__name__}.")
    # A tag decides which settings its section has, so it comes first wherever it stands.
    for override in sorted(overrides, key=lambda override: override.partition("=")[0] not in _TAGS):
        _override(settings, override)
    return parse_config(settings, source=str(path))


def parse_config(settings: dict[str, Any], *, source: str) -> TrainConfig:
    """Validate nested settings. Raises: ConfigError that lists every problem with its place and what is allowed."""
    for section, tag in _DEFAULT_TAGS.items():
        if isinstance(settings.get(section), dict):
            settings = {**settings, section: {**tag, **settings[section]}}
    try:
        return TrainConfig.model_validate(settings)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{source}: {'; '.join(problems)}") from error


def config_yaml(config: TrainConfig) -> str:
    """The settings as YAML that `covent train` reads."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text


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


def _override(settings: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"'{override}' is not an override. Write key=value, for example optimizer.lr=0.0003.")
    *parents, last = name.split(".")
    place: Any = settings
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            what = "a list" if isinstance(place, list) else "a single value"
            raise ConfigError(f"'{name}': '{parent}' is {what} in the config file, it has no part '{last}'.")
    before = place.get(last, _DEFAULT_TAGS.get(parents[0], {}).get(last) if parents else None)
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{override}': the value is not valid YAML: {error}") from error
    if isinstance(place[last], str):
        # YAML reads 3e-4 as text because it has no dot; a number was meant.
        with contextlib.suppress(ValueError):
            place[last] = float(place[last])
    if name in _TAGS and place[last] != before:
        # Another kind of task or control: the settings that the file gave the old kind are not meant for it.
        settings[parents[0]] = {last: place[last]}


def _explain(problem: Any) -> str:
    """One pydantic problem as: where, what was given, what is allowed, what to do."""
    # Pydantic names the branch of "one control or several" in the location; nobody wrote it.
    problem = {**problem, "loc": tuple(part for part in problem["loc"] if part not in (_ONE, _SEVERAL))}
    fields, path = _walk(problem["loc"])
    given = problem["input"]
    kind = problem["type"]
    if kind == "extra_forbidden":
        word = str(problem["loc"][-1])
        return f"unknown setting '{path}'. {_owner(str(problem['loc'][0]), word) or suggestion(word, fields)}"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        tag, name = str(context["tag"]), context["discriminator"].strip("'")
        known = [word.strip(" '") for word in context["expected_tags"].split(",")]
        return f"'{path}.{name}' = {tag!r} is unknown. {suggestion(tag, known)}"
    if kind == "union_tag_not_found":
        tag = problem["ctx"]["discriminator"].strip("'")
        return f"'{path}.{tag}' is missing: it says which one is meant."
    message = problem["msg"].removeprefix("Value error, ")
    message = message.replace("Input should", "must").replace("Field required", "is missing")
    message = re.sub(r"Tuple should have at least 1 item.*", "must name at least one", message)
    message = re.sub(
        "a valid dictionary or (instance of .*|object to .*)", "a section with settings of its own", message
    )
    hint = ""
    if kind in ("less_than_equal", "less_than") and problem["ctx"].get("le", problem["ctx"].get("lt")) == 1:
        hint = f" It is a fraction between 0 and 1, not percent: did you mean {float(given) / 100:g}?"
    shown = "" if isinstance(given, dict | BaseModel) else f" = {given!r}"
    return f"'{path or 'settings'}'{shown}: {message}.{hint}"


def _owner(section: str, word: str) -> str:
    """Where an unknown setting belongs, if another task or control of the same section has it."""
    if section not in _DEFAULT_TAGS:
        return ""
    (tag,) = _DEFAULT_TAGS[section]
    owners = [name for name, model in _models_by_tag(_SECTIONS[section]).items() if word in model.model_fields]
    return f"It belongs to {section}.{tag} = {owners[0]}; set that too." if owners else ""


def _walk(location: tuple[int | str, ...]) -> tuple[list[str], str]:
    """The names that would have been known at a location, and its dotted path without union tags."""
    model: Any = TrainConfig
    path: list[str] = []
    fields = list(TrainConfig.model_fields)
    for part in location:
        if isinstance(part, int):
            path.append(str(part))
        elif isinstance(model, type) and issubclass(model, BaseModel):
            fields = list(model.model_fields)
            path.append(part)
            model = model.model_fields[part].annotation if part in model.model_fields else None
        elif model is not None and (choices := _models_by_tag(model)) and part in choices:
            model = choices[part]
        else:
            path.append(part)
    if isinstance(model, type) and issubclass(model, BaseModel) and len(location) > 1:
        fields = list(model.model_fields)
    return fields, ".".join(path)


def _models_by_tag(annotation: Any) -> dict[str, Any]:
    """Members of a discriminated union, or of a list of them, by their tag (the default of `type` or `name`)."""
    found: dict[str, Any] = {}
    for member in get_args(annotation):
        fields = getattr(member, "model_fields", None)
        if fields is None:
            found |= _models_by_tag(member)
            continue
        for tag in ("type", "name"):
            if tag in fields:
                found[str(fields[tag].default)] = member
    return found
