"""Numbers that are not finite: never applied, named, kept for a person to look at, and three in a row end the run."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter
from safetensors.torch import save

from covent.errors import NonFiniteError
from covent.store.durable import disk_errors
from covent.store.schema import FaultRow
from covent.store.writer import RunWriter
from covent.tasks import Problem
from covent.train.state import RunState, own_tensors, packed
from covent.train.step import first_bad

LIMIT = 3


def leave_out(
    error: NonFiniteError, state: RunState, writer: RunWriter, drawn: dict[int, Problem], *, update: int | None
) -> None:
    """Record that an optimizer step, or a whole rollout, was not applied; the caller moves the run past it.

    Args:
      error: what was found.
      state: with the rollout, if there was one; its fault count rises.
      drawn: problems of the rollout by group number.
      update: number of the optimizer step; None for a rollout.
    Raises:
      NonFiniteError: without a tensor's name, when this is the third in a row.
      DiskError: the rollout could not be kept.
    """
    bad_weight = first_bad(own_tensors(state.model.network).items())
    tensor = f"weight {bad_weight}" if bad_weight else error.tensor
    in_a_row = state.at.faults_in_a_row + 1
    name = f"faults/step-{state.at.step}" + ("" if update is None else f"-update-{update}") + ".json"
    _keep(writer.folder / name, state, drawn)
    row = FaultRow(
        step=state.at.step, update=update, tensor=tensor, message=str(error), in_a_row=in_a_row, rollout=name
    )
    writer.append("faults", row)
    if in_a_row >= LIMIT:
        raise NonFiniteError(
            f"{LIMIT} faults in a row, the last at rollout step {state.at.step}, in {tensor}. {error} None"
            f" was applied; what was sampled is in {writer.folder / 'faults'}. Lower optimizer.lr, or look at the"
            f" rewards, and go on from the last checkpoint: covent resume {writer.folder}"
        )
    state.move(faults_in_a_row=in_a_row)


def _keep(path: Path, state: RunState, drawn: dict[int, Problem]) -> None:
    """The prompts, and as much of the rollout as there is."""
    facts = {"problems": TypeAdapter(dict[int, Problem]).dump_python(drawn, mode="json")}
    with disk_errors(f"Writing {path}", f"then: covent resume {path.parents[1]}"):
        path.parent.mkdir(exist_ok=True)
        if state.pending is not None:
            tensors, more = packed(state.pending)
            facts |= more
            path.with_suffix(".safetensors").write_bytes(save({n: t.contiguous() for n, t in tensors.items()}))
        path.write_text(json.dumps(facts, indent=1), encoding="utf-8")
