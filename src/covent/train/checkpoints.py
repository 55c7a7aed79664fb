"""From the state of a run to a checkpoint, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from covent.errors import NonFiniteError, StoreError
from covent.store import checkpoint
from covent.store.checkpoint import Checkpoint
from covent.store.durable import disk_errors
from covent.train.config import TrainConfig
from covent.train.state import Position, RunState, Tensors
from covent.train.step import first_bad

STATE = "state.json"
_SHARD_BYTES = 1 << 30


def save_checkpoint(folder: Path, state: RunState, conditions: Mapping[str, str], *, keep: int) -> Path:
    """Write a checkpoint of a run.

    Args:
      folder: the run folder, whose rows are on the disk already.
      state: at its position.
      conditions: what must be the same when the run is taken up again.
      keep: newest checkpoints to keep.
    Returns: the folder of the checkpoint.
    Raises:
      NonFiniteError: a weight or something the optimizer remembers is NaN or infinite; nothing is written.
      DiskError: it could not be written; older ones are as they were.
    """
    tensors = state.tensors()
    for section in ("model", "optimizer"):
        if name := first_bad(tensors.get(section, {}).items()):
            raise NonFiniteError(
                f"'{name}' is not finite, so no checkpoint is written. The last one is from before: lower optimizer.lr"
                f" and go on from it by `covent resume {folder} --allow optimizer.lr optimizer.lr=...`."
            )
    text = json.dumps({**state.facts(), "conditions": dict(conditions)}, allow_nan=False, indent=1)

    def files() -> Iterator[tuple[str, bytes]]:
        for section, found in tensors.items():
            for number, shard in enumerate(_shards(found), start=1):
                yield f"{section}-{number}.safetensors", save({n: t.contiguous() for n, t in shard.items()})
        yield STATE, text.encode()

    with disk_errors(f"Saving a checkpoint in {folder}", f"then: covent resume {folder}"):
        return checkpoint.save(folder / checkpoint.FOLDER, state.at.label, files(), keep=keep)


def position_of(found: Checkpoint) -> Position:
    """Where the run stood. Raises: StoreError when this covent does not know such a checkpoint."""
    try:
        return Position.model_validate(_facts(found)["position"])
    except ValueError as error:
        raise StoreError(f"{found.path} was written by another version of covent: {error}") from error


def conditions_of(found: Checkpoint) -> dict[str, str]:
    """Under which conditions the run ran."""
    return dict(_facts(found)["conditions"])


def restore(found: Checkpoint, state: RunState, config: TrainConfig) -> None:
    """Bring a fresh state to where a checkpoint stands.

    Raises: StoreError when the checkpoint is of another model.
    """
    tensors: dict[str, Tensors] = {}
    try:
        for name in sorted(found.files):
            section, dash, _ = name.partition("-")
            if dash and name.endswith(".safetensors"):
                tensors.setdefault(section, {}).update(load(found.read(name)))
        state.restore(tensors, _facts(found), config)
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise StoreError(f"{found.path} does not fit the model of these settings: {error}.") from error


def _facts(found: Checkpoint) -> dict[str, Any]:
    """What `save_checkpoint` wrote beside the tensors. Raises: StoreError when it is something else."""
    try:
        facts = found.json(STATE)
        return {name: facts[name] for name in ("position", "pending", "conditions")}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{found.path / STATE} is not what covent writes: {type(error).__name__}: {error}") from error


def _shards(tensors: Tensors) -> Iterator[Tensors]:
    """All tensors, some at a time, so that only some are in memory twice."""
    shard: Tensors = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard
