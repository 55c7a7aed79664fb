"""verl's engine chooses the same tokens on one rank and on two, and however a mini-batch is divided."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed; `make test-verl` sets up its own environment")

import torch
from safetensors.torch import load_file

from recipes.verl.sums import make_model
from tests.integrations.launch import launch
from tests.integrations.verl.mini_batches import RESPONSES, STEPS
from tests.support.tolerances import VERL_RANKS

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]

LOSSES: dict[str, dict[str, Any]] = {
    "kl_cov": {"loss_mode": "covent_kl_cov", "kl_cov_ratio": 0.1, "ppo_kl_coef": 1.0},
    "clip_cov": {"loss_mode": "covent_clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.1, "clip_cov_ub": 5.0},
    "stack": {
        "loss_mode": "covent",
        "control": [
            {"type": "top_entropy", "top_entropy_quantile": 0.5},
            {"type": "clip_cov", "clip_cov_ratio": 0.1, "clip_cov_lb": 0.05},
            {"type": "entropy_bonus", "use_adaptive_entropy": True, "entropy_coef": 0.01, "entropy_target": 3.0},
        ],
    },
}
RUNS: dict[str, tuple[int, int, str]] = {
    "one": (1, RESPONSES, "window"),
    "by 8": (1, 8, "window"),
    "by 2": (1, 2, "window"),
    "by 1": (1, 1, "window"),
    "two": (2, 8, "window"),
    "two by 2": (2, 2, "window"),
    "two by 1": (2, 1, "window"),
    "rank": (2, 2, "rank"),
    "micro": (2, 2, "micro"),
}
"""Name → (ranks, responses of a micro-batch, scope)."""

ON_POLICY = ("known", "forgotten")
"""Two ranks by 2 on responses that verl has just scored; with the second, covent is not to know that it has."""

SPLIT = [name for name, (_, _, scope) in RUNS.items() if scope == "window" and name != "one"]


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    chosen: dict[int, set[tuple[int, ...]]]
    """(prompt, sample, position) of the chosen tokens of each optimizer step."""
    weights: torch.Tensor
    log: list[dict[str, float]]
    selections: list[list[int]]
    """How often was chosen, of each rank and optimizer step."""
    passes: list[list[int]]
    """How often the mini-batch was measured before, the same."""

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        chosen: dict[int, set[tuple[int, ...]]] = {step: set() for step in range(STEPS)}
        for path in folder.glob("chosen-*.json"):
            for step, *token in json.loads(path.read_text()):
                chosen[step].add(tuple(token))
        weights = load_file(folder / "weights.safetensors")
        flat = torch.cat([weights[name].flatten() for name in sorted(weights)])

        def of_ranks(name: str) -> list[list[int]]:
            return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-*.json"))]

        log = json.loads((folder / "log.json").read_text())
        return cls(chosen, flat, log, of_ranks("selections"), of_ranks("passes"))

    def distance(self, other: Outcome) -> float:
        """Largest difference of a weight."""
        return float((self.weights - other.weights).abs().max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs of all losses, those on as many ranks in one program."""
    folder = tmp_path_factory.mktemp("mini_batches")
    make_model(folder / "model")
    for world in (1, 2):
        runs = []
        for name, loss in LOSSES.items():
            for run, (ranks, micro, scope) in RUNS.items():
                if ranks == world:
                    own = folder / name / run
                    own.mkdir(parents=True)
                    given = {"world": world, "micro": micro, "model": str(folder / "model"), "folder": str(own)}
                    runs.append(given | {"loss": loss | {"scope": scope}, "on_policy": ""})
            for run in ON_POLICY if world == 2 else ():
                own = folder / name / run
                own.mkdir()
                given = {"world": 2, "micro": 2, "model": str(folder / "model"), "folder": str(own)}
                runs.append(given | {"loss": loss | {"scope": "window"}, "on_policy": run})
        (folder / f"runs-{world}.json").write_text(json.dumps(runs))
        launch("tests.integrations.verl.mini_batches", str(folder / f"runs-{world}.json"), world=world, torchrun=True)
    return folder


@pytest.fixture(params=LOSSES)
def outcomes(request: pytest.FixtureRequest, folder: Path) -> dict[str, Outcome]:
    return {run: Outcome.of(folder / request.param / run) for run in (*RUNS, *ON_POLICY)}


@pytest.mark.parametrize("split", SPLIT)
def test_however_it_is_split_it_is_one_run(outcomes: dict[str, Outcome], split: str) -> None:
    one, other = outcomes["one"], outcomes[split]
    assert all(one.chosen[step] for step in range(STEPS))
    assert other.chosen == one.chosen
    assert other.distance(one) <= VERL_RANKS


@pytest.mark.parametrize("scope", ["rank", "micro"])
def test_chosen_rank_by_rank_or_micro_batch_by_micro_batch_it_is_another(
    outcomes: dict[str, Outcome], scope: str
) -> None:
    one, wrong = outcomes["one"], outcomes[scope]
    assert wrong.chosen != one.chosen
    assert wrong.distance(one) > 1e2 * VERL_RANKS


def test_the_log_is_of_the_whole_mini_batch_whatever_the_split(outcomes: dict[str, Outcome]) -> None:
    one = outcomes["one"].log
    for split in SPLIT:
        for expected, found in zip(one, outcomes[split].log, strict=True):
            same = {name: value for name, value in expected.items() if name != "num_selections"}
            assert {name: found[name] for name in same} == pytest.approx(same, rel=1e-3, abs=1e-5)


def test_the_log_counts_the_tokens_that_were_chosen(outcomes: dict[str, Outcome]) -> None:
    for run in ("one", "two by 1", "micro"):
        found = [row["num_selected"] for row in outcomes[run].log]
        assert found == [len(outcomes[run].chosen[step]) for step in range(STEPS)]


def test_how_often_is_chosen(outcomes: dict[str, Outcome]) -> None:
    for run, (ranks, micro, scope) in RUNS.items():
        times = RESPONSES // ranks // micro if scope == "micro" else 1
        assert outcomes[run].selections == [[times] * STEPS] * ranks


def test_the_mini_batch_is_measured_before_only_where_it_must_be(outcomes: dict[str, Outcome]) -> None:
    """One forward pass without gradient, except where the mini-batch is one micro-batch or covent does not need it all
    at once, or verl has just scored it with these weights."""
    for run, (ranks, micro, scope) in RUNS.items():
        divided = micro < RESPONSES // ranks
        assert outcomes[run].passes == [[int(divided and scope != "micro")] * STEPS] * ranks
    assert outcomes["known"].passes == [[0] * STEPS] * 2
    assert outcomes["forgotten"].passes == [[1] * STEPS] * 2


def test_what_verl_has_just_scored_is_as_good_as_a_measurement(outcomes: dict[str, Outcome]) -> None:
    known, measured = outcomes["known"], outcomes["forgotten"]
    assert known.chosen == measured.chosen
    assert known.distance(measured) <= VERL_RANKS
