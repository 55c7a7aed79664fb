"""Loads and calls a user's reward function, in a child process only: it may raise, hang, exit, change its arguments."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

_TRL, _VERL = {"completions"}, {"solution_str", "ground_truth"}
_MODULE = "covent_user_reward"


def load(settings: Any) -> Callable[[Any], Any]:
    """The handler of requests to the function of `settings["file"]` with `settings["name"]`."""
    function = _loaded(Path(settings["file"]), settings["name"])
    parameters = list(inspect.signature(function).parameters.values())
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}

    def handle(request: Any) -> Any:
        if request == "describe":
            return _description(function, names)
        arguments = request["arguments"]
        if request["signature"] == "trl":
            # TRL hands these over as well; here they do nothing.
            arguments |= {"trainer_state": None, "log_extra": _ignore, "log_metric": _ignore}
        passed = {name: value for name, value in arguments.items() if open_ended or name in names}
        plain = {name: value for name, value in passed.items() if not callable(value)}
        before = copy.deepcopy(plain)
        returned = function(**passed)
        changed = [name for name, value in plain.items() if not _same(value, before[name])]
        read = _scores if request["signature"] == "trl" else _one_score
        return read(returned, request["count"]) | {"changed": changed}

    return handle


def _loaded(path: Path, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location(_MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[_MODULE] = module
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not callable(function):
        known = sorted(each for each, value in vars(module).items() if callable(value) and not each.startswith("_"))
        raise AttributeError(f"{path.name} has no function '{name}'; it has {', '.join(known) or 'none'}")
    found: Callable[..., Any] = function
    return found


def _description(function: Callable[..., Any], names: set[str]) -> Any:
    return {
        "trl": names >= _TRL,
        "verl": names >= _VERL,
        "parameters": sorted(names),
        "is_async": asyncio.iscoroutinefunction(function),
    }


def _ignore(*arguments: Any, **named: Any) -> None:
    pass


def _same(value: Any, before: Any) -> bool:
    try:
        return bool(value == before)
    except Exception:
        return False


def _scores(returned: Any, count: int) -> dict[str, Any]:
    """What a function of TRL's form returned: one entry a completion."""
    if not isinstance(returned, list | tuple):
        return {"fault": f"returned {_shown(returned)}; a list of {count} numbers or None is needed{_advice(returned)}"}
    if len(returned) != count:
        return {"fault": f"returned {len(returned)} rewards for {count} completions"}
    return {"scores": [_score(value) for value in returned]}


def _one_score(returned: Any, count: int) -> dict[str, Any]:
    """What a function of verl's form returned: a number, or a dict with `score`."""
    if isinstance(returned, dict):
        if "score" not in returned:
            return {"fault": f"returned a dict without 'score'; it has {', '.join(map(str, returned)) or 'nothing'}"}
        score = _score(returned["score"])
        if "acc" in returned and isinstance(returned["acc"], Real):
            score["right"] = bool(returned["acc"])
        return {"scores": [score]}
    return {"scores": [_score(returned)]}


def _score(value: Any) -> dict[str, Any]:
    if value is None:
        return {"score": None}
    if not isinstance(value, Real):
        return {"fault": f"returned {_shown(value)}; a number or None is needed{_advice(value)}"}
    number = float(value)
    return {"score": number} if math.isfinite(number) else {"fault": f"returned {number}"}


def _shown(value: Any) -> str:
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    try:
        return f"{name} {str(value)[:60]!r}" if isinstance(value, str | bytes) else name
    except Exception:
        return name


def _advice(value: Any) -> str:
    return " (call .tolist() on it)" if hasattr(value, "tolist") else ""
