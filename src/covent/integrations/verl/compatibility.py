"""Which verl this is: refused loudly where it is not the one whose hooks covent was tested with."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from covent.errors import EngineError

TESTED = ("0.9.1",)
"""The releases that the tests were run with."""

HOOKS: dict[str, tuple[str, ...]] = {
    "verl.workers.engine_workers:TrainingWorker.set_loss_fn": ("loss_fn",),
    "verl.workers.engine_workers:TrainingWorker.infer_batch": ("data",),
    "verl.workers.engine_workers:TrainingWorker.train_batch": ("data",),
    "verl.workers.engine_workers:ActorRolloutRefWorker.save_checkpoint": (
        "local_path", "hdfs_path", "global_step", "max_ckpt_to_keep",
    ),
    "verl.workers.engine_workers:ActorRolloutRefWorker.load_checkpoint": (
        "local_path", "hdfs_path", "del_local_after_load",
    ),
    "verl.workers.utils.losses:ppo_loss": ("model_output", "data", "dp_group"),
    "verl.trainer.ppo.core_algos:agg_loss": (
        "loss_mask", "loss_agg_mode", "dp_size", "batch_num_tokens", "global_batch_size", "loss_scale_factor",
    ),
    "verl.trainer.ppo.v1:PPOTrainerSync.fit": ("agent_loop_manager",),
    "verl.trainer.ppo.v1:PPOTrainerSync._init_resource_pool_mgr": (),
    "verl.trainer.ppo.v1:PPOTrainerSync._load_checkpoint": (),
    "verl.trainer.ppo.v1:PPOTrainerSync._submit_batch_to_rollout": ("batch",),
    "verl.trainer.ppo.v1:PPOTrainerSync._step_once": ("metrics", "timing_raw", "sample_batch_size"),
    "verl.trainer.ppo.v1:PPOTrainerSync._compute_advantage": ("batch", "metrics"),
    "verl.trainer.ppo.v1:PPOTrainerSync._update_actor": ("batch", "metrics"),
    "verl.trainer.ppo.v1:PPOTrainerSync._val_metrics_update": (
        "data_sources", "sample_uids", "reward_extra_infos_dict", "sample_turns", "expected_acc_counts",
    ),
}  # fmt: skip
"""What covent overrides or calls, with the parameters after the first (`self`, the config, the loss matrix)."""

_log = logging.getLogger(__name__)


def require_hooks() -> None:
    """Refuse a verl whose methods are not the ones covent knows.

    Raises: EngineError that names the method, what was expected and what was found.
    """
    for place in HOOKS:
        problem = hook_problem(place)
        if problem:
            raise EngineError(f"{problem} Install verl=={TESTED[-1]}.")


def hook_problem(place: str) -> str:
    """What is wrong with one hook, as a sentence; empty for nothing.

    Args:
      place: a key of `HOOKS`, `module:name` or `module:class.method`.
    """
    found = _found(place)
    if found is None:
        return f"verl has no {place}, which covent hooks into."
    parameters = tuple(inspect.signature(found).parameters)[1:]
    if parameters != HOOKS[place]:
        return f"{place} takes {parameters} and covent knows it with {HOOKS[place]}: this verl has changed."
    return ""


def say_untested(version: str) -> None:
    """Log that a release was not tested."""
    if version not in TESTED:
        _log.warning(
            "verl %s is not one covent was tested with (%s). The hooks are there; run covent doctor --verl, and watch"
            " the first steps.",
            version,
            ", ".join(TESTED),
        )


def _found(place: str) -> Callable[..., Any] | None:
    module, _, path = place.partition(":")
    thing: Any = import_module(module)
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing  # type: ignore[no-any-return]  # verl has no types
