"""Settings from a YAML file and `key=value` words, and what is said where they are wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from covent import strict_yaml
from covent.controls import ONE, SEVERAL, Control
from covent.errors import ConfigError, MissingPathError, suggestion
from covent.tasks import AnyTaskSettings
from covent.train.config import TrainConfig

_DEFAULT_TAGS = {"task": {"name": "clock"}, "control": {"type": "ppo_clip"}}
"""What a section without its tag means, so that `task.preset=hard` alone can be said."""

_TAGS = {f"{section}.{name}" for section, tag in _DEFAULT_TAGS.items() for name in tag}

Settings = TypeVar("Settings", bound=BaseModel)

_SECTIONS = {"task": AnyTaskSettings, "control": get_args(Control)[0]}


def load_config(path: Path, overrides: list[str]) -> TrainConfig:
    """The settings of a YAML file with `key=value` overrides on top; keys may be dotted.

    Raises:
      MissingPathError: the file is not there.
      ConfigError: not YAML, nothing in it, not `key=value`, a key twice, an unknown setting (with a suggestion), or a
        value out of range.
    """
    if not path.is_file():
        raise MissingPathError(f"No config file at '{path}'. Give the path of a YAML file such as recipes/clock.yaml.")
    try:
        settings = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"'{path}' is not a YAML file: {error}") from error
    if settings is None:
        if not overrides:
            raise ConfigError(f"'{path}' holds no setting. Start from recipes/clock.yaml, or from one line: 'seed: 0'.")
        settings = {}
    if not isinstance(settings, dict):
        raise ConfigError(f"'{path}' must hold settings as 'name: value' lines; it holds a {type(settings).__name__}.")
    apply_overrides(settings, overrides)
    return parse_config(settings, source=str(path))


def apply_overrides(settings: dict[str, Any], overrides: list[str]) -> None:
    """Put `key=value` words into nested settings. Raises: ConfigError: not of that form, or a key twice."""
    names = [override.partition("=")[0] for override in overrides]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"'{name}' is set {names.count(name)} times on the command line. Set it once.")
    # A tag decides which settings its section has, so it comes first wherever it stands.
    for override in sorted(overrides, key=lambda override: override.partition("=")[0] not in _TAGS):
        _override(settings, override)


def parse_config(settings: dict[str, Any], *, source: str) -> TrainConfig:
    """Validate nested settings. Raises: ConfigError that lists every problem with its place and what is allowed."""
    for section, tag in _DEFAULT_TAGS.items():
        if isinstance(settings.get(section), dict):
            settings = {**settings, section: {**tag, **settings[section]}}
    return parsed(TrainConfig, settings, source=source)


def parsed(kind: type[Settings], settings: dict[str, Any], *, source: str) -> Settings:
    """Settings of a kind from nested values. Raises: ConfigError, see `parse_config`."""
    try:
        config = kind.model_validate(settings)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # A list whose members are all wrong counts as empty too, to pydantic.
        problems = [_explain(each, kind) for each in found if not (each["type"] == "too_short" and each["input"])]
        raise ConfigError(f"{source}: {'; '.join(problems)}") from error
    if problems := [_not_a_number(path, given) for path, given in _changed_booleans(settings, config.model_dump(), "")]:
        raise ConfigError(f"{source}: {'; '.join(problems)}")
    return config


def config_yaml(config: TrainConfig) -> str:
    """The settings as YAML that `covent train` reads."""
    return strict_yaml.dump(config.model_dump(mode="json"))


def _changed_booleans(given: Any, taken: Any, path: str) -> Iterator[tuple[str, bool]]:
    """Booleans that were taken for numbers, as pydantic does, with their places."""
    if isinstance(given, bool) and not isinstance(taken, bool):
        yield path, given
    elif isinstance(given, dict) and isinstance(taken, dict):
        for name, value in given.items():
            yield from _changed_booleans(value, taken.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(given, list | tuple) and isinstance(taken, list | tuple):
        for place, pair in enumerate(zip(given, taken, strict=False)):
            yield from _changed_booleans(*pair, f"{path}.{place}")


def _not_a_number(path: str, given: bool) -> str:
    return f"'{path}' = {str(given).lower()}: must be a number, not true or false"


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
        place[last] = strict_yaml.load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"'{override}': the value is not valid YAML: {error}") from error
    if name in _TAGS and place[last] != before:
        # Another kind of task or control: the settings that the file gave the old kind are not meant for it.
        settings[parents[0]] = {last: place[last]}


def _explain(problem: Any, root: type[BaseModel]) -> str:
    """One pydantic problem as: where, what was given, what is allowed, what to do."""
    # Pydantic names the branch of "one control or several" in the location; nobody wrote it.
    problem = {**problem, "loc": tuple(part for part in problem["loc"] if part not in (ONE, SEVERAL))}
    fields, path = _walk(problem["loc"], root)
    given = problem["input"]
    kind = problem["type"]
    if kind == "extra_forbidden":
        word = str(problem["loc"][-1])
        owner = _owner(str(problem["loc"][0]), word) if root is TrainConfig else ""
        return f"unknown setting '{path}'. {owner or suggestion(word, fields)}"
    if kind == "union_tag_invalid":
        context = problem["ctx"]
        tag, name = str(context["tag"]), context["discriminator"].strip("'")
        known = [word.strip(" '") for word in context["expected_tags"].split(",")]
        return f"'{path}.{name}' = {tag!r} is unknown. {suggestion(tag, known)}"
    if kind == "union_tag_not_found":
        tag = problem["ctx"]["discriminator"].strip("'")
        return f"'{path}.{tag}' is missing: it says which one is meant."
    if isinstance(given, bool) and kind in ("less_than_equal", "less_than", "greater_than_equal", "greater_than"):
        return _not_a_number(path, given)
    message = problem["msg"].removeprefix("Value error, ")
    message = message.replace("Input should", "must").replace("Field required", "is missing")
    message = re.sub(r"Tuple should have at least 1 item.*", "must name at least one", message)
    message = re.sub(
        "a valid dictionary or (instance of .*|object to .*)", "a section with settings of its own", message
    )
    hint = ""
    above_one = kind in ("less_than_equal", "less_than") and problem["ctx"].get("le", problem["ctx"].get("lt")) == 1
    if above_one and given > 1:
        hint = f" It is a fraction between 0 and 1, not percent: did you mean {float(given) / 100:g}?"
    if kind == "string_type" and isinstance(given, int | float):
        written = str(given).lower() if isinstance(given, bool) else given
        hint = f" YAML reads {written} as a {'boolean' if isinstance(given, bool) else 'number'}; for text, quote it in"
        hint += f' the file as "{written}", on the command line as {path}=\'"{written}"\'.'
    shown = "" if isinstance(given, dict | BaseModel) else f" = {given!r}"
    return f"'{path or 'settings'}'{shown}: {message}.{hint}"


def _owner(section: str, word: str) -> str:
    """Where an unknown setting belongs, if another task or control of the same section has it."""
    if section not in _DEFAULT_TAGS:
        return ""
    (tag,) = _DEFAULT_TAGS[section]
    owners = [name for name, model in _models_by_tag(_SECTIONS[section]).items() if word in model.model_fields]
    return f"It belongs to {section}.{tag} = {owners[0]}; set that too." if owners else ""


def _walk(location: tuple[int | str, ...], root: type[BaseModel]) -> tuple[list[str], str]:
    """The names that would have been known at a location, and its dotted path without union tags."""
    model: Any = root
    path: list[str] = []
    fields = list(root.model_fields)
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
