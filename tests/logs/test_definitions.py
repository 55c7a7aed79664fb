"""Which entropy an engine's metric is, and when two of them may be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from covent.errors import ConfigError
from covent.logs.definitions import ENTROPY_METRICS, EntropyDefinition
from covent.logs.metrics import entropy_metric
from covent.readings import EntropyReading
from tests.logs.logfiles import json_lines, one_run

ENGINES = [
    ({"actor/entropy": 1.0, "actor/pg_loss": 0.1}, "verl", "token", "old"),
    ({"train_entropy/all": 1.0}, "paper", "response", "old"),
    ({"policy/policy_entropy": 1.0}, "SkyRL", "token", "learner"),
    ({"entropy": 1.0, "frac_reward_zero_std": 0.0}, "TRL", "token", "learner"),
    ({"train/entropy": 1.0, "train/completions/mean_length": 9.0}, "TRL", "token", "learner"),
    ({"entropy/all/mean": 1.0, "entropy/math/mean": 1.1}, "prime-rl", "token", "learner"),
    ({"policy/entropy_avg": 1.0}, "open-instruct", "response", "learner"),
    ({"critic/entropy/mean": 1.0}, "ROLL", "token", "old"),
    ({"train/approx_entropy": 1.0}, "NeMo-RL", "token", "learner"),
    ({"optim/entropy": 1.0}, "tinker", "token", "sampler"),
    ({"train/entropy_loss": 1.0}, "slime", "response", "learner"),
]


@pytest.mark.parametrize(("row", "engine", "weighting", "policy"), ENGINES, ids=[case[1] for case in ENGINES])
def test_the_entropy_of_each_engine(
    row: dict[str, float], engine: str, weighting: str, policy: str, tmp_path: Path
) -> None:
    run = one_run(json_lines(tmp_path / "log.jsonl", [{"step": 1, **row}]))
    name, metric, _ = entropy_metric(run)
    assert name == next(iter(row))
    assert (metric.engine, metric.definition.weighting, metric.definition.policy) == (engine, weighting, policy)
    assert metric.caution


def test_a_bare_entropy_in_a_log_of_no_known_engine_is_of_no_known_definition(tmp_path: Path) -> None:
    run = one_run(json_lines(tmp_path / "log.jsonl", [{"step": 1, "entropy": 1.0, "accuracy": 0.5}]))
    _, metric, _ = entropy_metric(run)
    assert metric.definition == EntropyDefinition()
    assert len(metric.definition.unknown) == 5


def test_of_several_entropies_the_choice_is_said(tmp_path: Path) -> None:
    run = one_run(json_lines(tmp_path / "log.jsonl", [{"step": 1, "actor/entropy": 1.0, "actor/entropy_loss": 1.1}]))
    name, _, note = entropy_metric(run)
    assert name == "actor/entropy"
    assert "actor/entropy_loss" in note


def test_the_papers_definition_is_complete_and_converts() -> None:
    (paper,) = (metric.definition for metric in ENTROPY_METRICS if metric.engine == "paper")
    reading = paper.reading(0.42)
    assert isinstance(reading, EntropyReading)
    assert (reading.value, reading.count, reading.temperature) == (0.42, 1, 1.0)
    assert reading.definition == paper.text


def test_what_is_not_known_does_not_convert() -> None:
    with pytest.raises(ConfigError, match=r"does not say the temperature.*--temperature 1"):
        EntropyDefinition(estimator="exact", policy="old", weighting="token", tokens="all responses").reading(0.42)


def test_conflicts_are_between_known_parts_only() -> None:
    token = EntropyDefinition(estimator="exact", weighting="token")
    response = EntropyDefinition(estimator="exact", weighting="response", temperature=1.0)
    assert token.conflicts(response) == ["weighting token / response"]
    assert token.conflicts(token) == []
    assert EntropyDefinition().conflicts(response) == []
