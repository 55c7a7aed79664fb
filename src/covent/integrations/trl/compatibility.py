"""Which TRL this is: refused loudly where it is not the one whose hooks covent was tested with."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from covent.errors import EngineError

OLDEST = (1, 14)
NEWEST = (1, 16)
"""First and last minor release that the tests were run with."""

CLIPPED = frozenset({"grpo", "bnpo", "dr_grpo", "dapo", "luspo"})
"""Loss types with a clip of the ratio on both sides."""

LOSS_TYPES = CLIPPED | {"cispo", "sapo", "vespo"}

HOOKS: dict[str, tuple[str, ...]] = {
    "_prepare_inputs": ("generation_batch",),
    "_generate_and_score_completions": ("inputs",),
    "_calculate_rewards": ("inputs", "prompts", "completions", "completion_ids_list"),
    "_compute_loss": ("model", "inputs"),
    "_get_grad_norm": ("model", "grad_norm"),
    "_save_checkpoint": ("model", "trial"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
}
"""The methods covent overrides and hands on, with their parameters. `_get_per_token_logps_and_entropies` is handed on
as it is called; its parameters change with every other release."""

ATTRIBUTES = ("_step", "_buffered_inputs", "_metrics", "num_generations", "reward_weights", "reward_func_names")
"""What covent reads of a trainer."""

_log = logging.getLogger(__name__)


def require_version(version: str) -> None:
    """Refuse a TRL older than the tested ones, and say so of a newer one.

    Raises: EngineError.

    Example:
      >>> require_version("1.15.0")
    """
    release = tuple(int(part) for part in version.split(".")[:2])
    span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
    if release < OLDEST:
        raise EngineError(
            f"TRL {version} is older than covent supports ({span}). With Liger it computes its loss past the method"
            f" that covent overrides, so a control would do nothing and nothing would say so. Install trl>=1.14."
        )
    if release > NEWEST:
        _log.warning("TRL %s is newer than covent was tested with (%s). The hooks are there; watch the first steps, and"
                     " run covent's own tests: make test-trl.", version, span)  # fmt: skip


def require_hooks(trainer: type) -> None:
    """Refuse a trainer class whose methods are not the ones covent overrides.

    Raises: EngineError that names the method, what was expected and what was found.
    """
    for name, expected in HOOKS.items():
        found = _parameters(_method(trainer, name))
        if found != expected:
            raise EngineError(
                f"{trainer.__name__}.{name} takes {found}, and covent knows it with {expected}: this TRL has changed"
                f" what covent hooks into. Install trl>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}."
            )
    scores = inspect.signature(_method(trainer, "_get_per_token_logps_and_entropies")).parameters
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in scores.values())
    if "compute_entropy" not in scores and not takes_any:
        raise EngineError(
            f"{trainer.__name__}._get_per_token_logps_and_entropies no longer takes compute_entropy, which is how"
            f" covent asks for entropies. Install trl>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}."
        )


def require_attributes(trainer: Any) -> None:
    """Refuse a trainer that lacks what covent reads, or has a loss covent does not know.

    Raises: EngineError.
    """
    missing = [name for name in ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise EngineError(f"This TRL's trainer has no {', '.join(missing)}, which covent reads. Use a tested release.")
    loss_type = getattr(trainer, "loss_type", None)
    if loss_type is not None and loss_type not in LOSS_TYPES:
        raise EngineError(
            f"loss_type = '{loss_type}' is not one covent knows ({', '.join(sorted(LOSS_TYPES))}), so it cannot say how"
            f" a control would act in it. Choose one of these."
        )


def _method(trainer: type, name: str) -> Callable[..., Any]:
    found = getattr(trainer, name, None)
    if found is None:
        raise EngineError(
            f"{trainer.__name__} has no method {name}, which covent hooks into. Use a tested TRL release."
        )
    return found  # type: ignore[no-any-return]  # TRL has no types here


def _parameters(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]
