"""What `covent doctor --verl` looks at: whether verl has covent's plugin, which it would not say itself."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

import torch

from covent.errors import CoventError
from covent.integrations.verl.settings import LOSSES

GROUP, NAME = "verl.plugins", "covent"


def verl_facts() -> dict[str, Any]:
    """Versions and plugins, as far as they can be known without importing verl."""
    return {
        **{name: _version(name) for name in ("verl", "ray", "TransferQueue", "tensordict")},
        "verl_plugins": ", ".join(sorted(found.name for found in entry_points(group=GROUP))) or "none",
    }


def verl_problems() -> list[str]:
    """Everything that keeps covent from acting in verl here, as sentences; verl itself says nothing of it."""
    if _version("verl") is None:
        return ["verl is not installed in this environment; covent supports 0.9.1: pip install 'covent[verl]'"]
    problems = [problem for found in entry_points(group=GROUP) if (problem := _plugin_problem(found))]
    if NAME not in {found.name for found in entry_points(group=GROUP)}:
        problems.append(
            f"covent is on the path but not installed, so it has no entry point in the group {GROUP}: pip install it in"
            " the environment of verl"
        )
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip()
    if policy.lower() != "auto" and NAME not in {name.strip() for name in policy.lower().split(",")}:
        problems.append(f"VERL_USE_EXTERNAL_PLUGINS is '{policy}', which leaves covent out; unset it or add {NAME}")
    return problems + _registration_problems()


def _plugin_problem(found: EntryPoint) -> str:
    """What verl hides: a plugin, anyone's, that cannot be loaded."""
    try:
        found.load()
    except (Exception, SystemExit) as error:
        return f"the plugin '{found.name}' of verl ({found.value}) fails, and verl goes on in silence: {error!r}"
    return ""


def _registration_problems() -> list[str]:
    """What is missing after verl was imported, the way its own processes do it."""
    try:
        from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
    except Exception as error:
        return [f"verl cannot be imported: {error!r}"]
    from covent.integrations.verl.losses import policy_loss

    missing = [name for name in LOSSES if POLICY_LOSS_REGISTRY.get(name) is not policy_loss]
    if missing:
        return [f"verl does not know the losses {', '.join(missing)}, or knows others of that name"]
    return _trainer_problems() + _loss_problems(POLICY_LOSS_REGISTRY)


def _trainer_problems() -> list[str]:
    try:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
    except Exception as error:
        return [f"verl's trainer cannot be imported, so only the scope 'micro' is there: {error!r}"]
    if "covent" not in TRAINER_REGISTRY:
        return ["verl does not know the trainer mode 'covent', so only the scope 'micro' is there"]
    from covent.integrations.verl.compatibility import HOOKS, hook_problem

    return [problem for place in HOOKS if (problem := hook_problem(place))]


def _loss_problems(registry: Any) -> list[str]:
    """One micro-batch through verl's registered loss and its own KL-Cov, which must agree."""
    from verl.workers.config import FSDPActorConfig

    from covent.integrations.verl.config import CoventPolicyLossConfig

    generator = torch.Generator().manual_seed(0)
    column = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    inputs = {
        "old_log_prob": column - 0.1 * column.flip(0),
        "advantages": column[:, :1].expand(4, 8),
        "response_mask": torch.ones(4, 8),
        "loss_agg_mode": "token-mean",
    }
    loss = CoventPolicyLossConfig(scope="micro", kl_cov_ratio=0.2, ppo_kl_coef=1.0, loss_mode="covent_kl_cov")
    actor = FSDPActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, policy_loss=loss)
    try:
        found = [registry[name](log_prob=column, config=actor, **inputs)[0] for name in (LOSSES[1], "kl_cov")]
    except (CoventError, RuntimeError, TypeError, ValueError) as error:
        return [f"the loss {LOSSES[1]} cannot be called as verl calls it: {error!r}"]
    ours, theirs = map(float, found)
    if abs(ours - theirs) > 1e-12:
        return [f"covent's KL-Cov in the scope 'micro' is {ours}, and verl's own {theirs}"]
    return []


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
