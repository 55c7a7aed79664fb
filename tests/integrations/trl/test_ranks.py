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

from tests.integrations.launch import launch
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
RUNS: dict[str, tuple[int, int, str]] = {
    "recording": (1, 4, "window"),
    "one": (1, 4, "window"),
    "undivided": (1, 1, "window"),
    "divided": (1, 8, "window"),
    "two": (2, 2, "window"),
    "rank": (2, 2, "rank"),
    "micro": (2, 2, "micro"),
}
"""Name → (ranks, micro-batches a rank, scope). The recording samples; all others replay it."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    chosen: dict[int, set[tuple[int, ...]]]
    """(prompt, sample, position) of the chosen tokens of each optimizer step."""
    weights: torch.Tensor
    log: list[dict[str, float]]

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        chosen: dict[int, set[tuple[int, ...]]] = {step: set() for step in range(STEPS)}
        for path in folder.glob("chosen-*.json"):
            for step, *token in json.loads(path.read_text()):
                chosen[step].add(tuple(token))
        weights = load_file(folder / "weights.safetensors")
        flat = torch.cat([weights[name].flatten() for name in sorted(weights)])
        return cls(chosen, flat, json.loads((folder / "log.json").read_text()))

    def distance(self, other: Outcome) -> float:
        """Largest difference of a weight."""
        return float((self.weights - other.weights).abs().max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of all controls, those on as many ranks in one program."""
    folder = tmp_path_factory.mktemp("recorded")
    for world in (1, 2):
        runs = []
        for name, control in CONTROLS.items():
            for run, (ranks, accumulation, scope) in RUNS.items():
                if ranks == world:
                    (folder / name / run).mkdir(parents=True)
                    own = {"folder": str(folder / name / run), "completions": str(folder / name / "completions.json")}
                    split = {"world": world, "accumulation": accumulation}
                    runs.append({**own, **split, "control": control, "scope": scope, "steps": STEPS})
        (folder / f"runs-{world}.json").write_text(json.dumps(runs))
        launch("tests.integrations.trl.recorded", str(folder / f"runs-{world}.json"), world=world)
    return folder


@pytest.fixture(params=CONTROLS)
def outcomes(request: pytest.FixtureRequest, folder: Path) -> dict[str, Outcome]:
    return {run: Outcome.of(folder / request.param / run) for run in RUNS}


@pytest.mark.parametrize("split", ["two", "undivided", "divided"])
def test_however_it_is_split_it_is_one_run(outcomes: dict[str, Outcome], split: str) -> None:
    one, other = outcomes["one"], outcomes[split]
    assert all(one.chosen[step] for step in range(STEPS))
    assert other.chosen == one.chosen
    assert other.distance(one) <= TRL_RANKS


@pytest.mark.parametrize("scope", ["rank", "micro"])
def test_chosen_rank_by_rank_or_micro_batch_by_micro_batch_it_is_another(
    outcomes: dict[str, Outcome], scope: str
) -> None:
    one, wrong = outcomes["one"], outcomes[scope]
    assert wrong.chosen != one.chosen
    assert wrong.distance(one) > 1e3 * TRL_RANKS


def test_the_log_says_how_often_was_chosen(outcomes: dict[str, Outcome]) -> None:
    for run, expected in {"one": 1.0, "two": 2.0, "rank": 2.0, "micro": 4.0}.items():
        said = [row["covent/num_selections"] for row in outcomes[run].log if "covent/num_selections" in row]
        assert said == [expected] * STEPS
