"""vLLM itself: as the embedded trainer's sampler, and beside TRL in one process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; `make test-vllm` sets up its own environment")

import torch

from covent.cli.main import main as covent
from covent.core.keys import key
from covent.rollout.batch import Responses, score
from covent.store.reader import read_run
from covent.tasks import ClockSettings, ClockTask, problems
from covent.train.config import ModelSettings, SamplerSettings
from covent.train.model import LanguageModel, load_model
from tests.integrations.launch import launch
from tests.support.tiny import SETTINGS

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

GAP = 1e-3
"""Between vLLM's log-probs and the learner's in float32, nats; 4e-6 was seen."""
SAMPLER = {"engine": "vllm", "gpu_memory_utilization": 0.05}
# vLLM's attention on a CPU knows heads of 32 and more.
MODEL = {"hidden_size": 64, "num_layers": 1, "num_heads": 2, "intermediate_size": 96}


@pytest.fixture(scope="module")
def model() -> Iterator[LanguageModel]:
    task = ClockTask(ClockSettings(), corpus_seed=0)
    made = load_model(ModelSettings(**MODEL), task, seed=0, dtype=torch.float32, device="cpu")
    yield made.sampled_by(SamplerSettings(**SAMPLER), responses_per_forward=32)


def draw(model: LanguageModel, temperature: float = 1.0) -> Responses:
    task = ClockTask(ClockSettings(), corpus_seed=0)
    chosen = {number: problem for number, problem in zip(range(8), problems(task, "train", 1), strict=False)}
    return model.sample(chosen, num_samples=8, max_tokens=12, key=key(0, "rollout"), temperature=temperature)


def gap(model: LanguageModel, drawn: Responses, temperature: float = 1.0) -> float:
    with torch.no_grad():
        own, _ = score(model.network, drawn, temperature=temperature)
    return float((own - drawn.logprobs)[drawn.mask].abs().max())


@torch.no_grad()
def move(model: LanguageModel) -> None:
    for weight in model.network.parameters():
        weight.mul_(1.3)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_are_the_learners(model: LanguageModel, temperature: float) -> None:
    drawn = draw(model, temperature)
    assert gap(model, drawn, temperature) < GAP
    assert gap(model, drawn, temperature + 0.1) > 10 * GAP


def test_each_answer_is_of_the_weights_as_they_are(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        move(model)
        assert gap(model, draw(model)) < GAP
    move(model)
    assert model.engine is not None
    monkeypatch.setattr(model.engine, "_take_weights", lambda network: None)
    assert gap(model, draw(model)) > 10 * GAP


def test_the_samples_are_of_the_policy(model: LanguageModel) -> None:
    """The mean log-prob of many tokens is minus their mean entropy, within 5 standard errors."""
    drawn = draw(model)
    difference = (drawn.logprobs + drawn.entropies)[drawn.mask].double()
    assert abs(float(difference.mean())) < 5 * float(difference.std()) / math.sqrt(len(difference))
    # Of the most likely tokens alone it would not be.
    greedy = draw(model, temperature=0.0)
    difference = (greedy.logprobs + greedy.entropies)[greedy.mask].double()
    assert abs(float(difference.mean())) > 5 * float(difference.std()) / math.sqrt(len(difference))


def test_a_run_and_its_evaluation(tmp_path: Path) -> None:
    """Warm start, RL, test, and `covent eval` of what was trained; a process has one engine."""
    settings = {**SETTINGS, "sampler": SAMPLER, "model": MODEL}
    (tmp_path / "recipe.yaml").write_text(json.dumps(settings), encoding="utf-8")
    launch("covent", "train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run"), world=1)
    run = read_run(tmp_path / "run")
    assert run.status.state == "finished"
    gaps = [row.sampler_gap for row in run.steps if row.sampler_gap is not None]
    assert gaps
    assert max(gaps) < GAP
    assert {row.entropy.policy for row in run.steps} == {"learner"}
    rows = [{"prompt": f"Q 1 + {number} A", "answer": str(number + 1)} for number in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = [str(tmp_path / "run"), str(tmp_path / "rows.jsonl"), "--json"]
    settings = ["max_response_tokens=16", "sampler.engine=vllm", "sampler.gpu_memory_utilization=0.05"]
    launch("covent", "eval", *words, *settings, world=1)
    assert covent(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize("control", ["clip_cov", "kl_cov", "truncated_importance"])
def test_beside_trl(control: str, tmp_path: Path) -> None:
    """The engines differ by rounding; the run is whole, entropy moves, and the measures are finite."""
    launch("tests.integrations.vllm.colocate", str(tmp_path), control, world=1)
    run = read_run(tmp_path / "run")
    assert run.status.state == "finished"
    assert len(run.updates) == 30
    assert all(math.isfinite(row.entropy.value) for row in run.steps if row.entropy.value is not None)
    assert run.steps[0].entropy.value != run.steps[-1].entropy.value
    if control == "truncated_importance":
        # TRL measures the difference for its own correction alone, which is off here; covent's reads the log-probs.
        return
    assert any(row.control.num_selected > 0 for row in run.updates)
    log = json.loads((tmp_path / "log.json").read_text(encoding="utf-8"))
    differences = [row[name] for row in log for name in row if name == "sampling/sampling_logp_difference/max"]
    assert differences
    assert max(differences) < 0.1
