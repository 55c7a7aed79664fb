"""Two gloo ranks with gradient accumulation choose the tokens that one process chooses, and end at its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl", reason="TRL is not installed; `make test-trl` sets up its own environment")

import torch
from safetensors.torch import load_file

from tests.integrations.trl.launch import launch
from tests.support.tolerances import TRL_RANKS

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

STEPS = 4
CONTROLS: dict[str, Any] = {
    "kl_cov": {"type": "kl_cov", "kl_cov_ratio": 0.1},
    "clip_cov": {"type": "clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.05},
    "stack": [
        {"type": "top_entropy", "top_entropy_quantile": 0.5},
        {"type": "clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.05},
        {"type": "entropy_bonus", "use_adaptive_entropy": True, "entropy_coef": 0.01, "entropy_target": 3.0},
    ],
}


@dataclass(frozen=True)
class Outcome:
    chosen: dict[int, set[tuple[int, ...]]]
    """(prompt, sample, position) of the chosen tokens of each optimizer step."""
    weights: torch.Tensor
    log: list[dict[str, float]]


def outcome(folder: Path, control: Any, *, scope: str = "window", world: int, accumulation: int) -> Outcome:
    """A run on the recorded completions beside the folder."""
    folder.mkdir()
    settings = {
        "folder": str(folder),
        "completions": str(folder.parent / "completions.json"),
        "control": control,
        "scope": scope,
        "world": world,
        "accumulation": accumulation,
        "steps": STEPS,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    launch("tests.integrations.trl.recorded", str(folder / "settings.json"), world=world)
    chosen: dict[int, set[tuple[int, ...]]] = {step: set() for step in range(STEPS)}
    for rank in range(world):
        for step, *token in json.loads((folder / f"chosen-{rank}.json").read_text()):
            chosen[step].add(tuple(token))
    weights = load_file(folder / "weights.safetensors")
    flat = torch.cat([weights[name].flatten() for name in sorted(weights)])
    return Outcome(chosen, flat, json.loads((folder / "log.json").read_text()))


@pytest.mark.parametrize("name", CONTROLS)
def test_two_ranks_are_one_process(tmp_path: Path, name: str) -> None:
    control = CONTROLS[name]
    outcome(tmp_path / "recording", control, world=1, accumulation=4)
    one = outcome(tmp_path / "one", control, world=1, accumulation=4)
    two = outcome(tmp_path / "two", control, world=2, accumulation=2)
    assert all(one.chosen[step] for step in range(STEPS))
    assert two.chosen == one.chosen
    assert (two.weights - one.weights).abs().max() <= TRL_RANKS
    # Chosen rank by rank or micro-batch by micro-batch it is another control.
    for scope in ("rank", "micro"):
        wrong = outcome(tmp_path / scope, control, scope=scope, world=2, accumulation=2)
        assert wrong.chosen != one.chosen
        assert (wrong.weights - one.weights).abs().max() > 1e3 * TRL_RANKS
    selections = [row["covent/num_selections"] for row in two.log if "covent/num_selections" in row]
    assert selections == [2.0] * STEPS


def test_the_split_of_one_process_does_not_matter(tmp_path: Path) -> None:
    control = CONTROLS["kl_cov"]
    outcome(tmp_path / "recording", control, world=1, accumulation=4)
    whole = outcome(tmp_path / "whole", control, world=1, accumulation=1)
    parts = outcome(tmp_path / "parts", control, world=1, accumulation=8)
    assert parts.chosen == whole.chosen
    assert (parts.weights - whole.weights).abs().max() <= TRL_RANKS
