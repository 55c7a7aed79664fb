"""The benchmark over paired seeds: finished runs are used for their own settings only, and the result says what ran."""

import json
from pathlib import Path

import pytest

from benchmarks.paired_seeds import collect, planned, refuse_other_settings
from covent.errors import ConfigError
from covent.store.schema import SCHEMA_VERSION, RunHeader
from covent.store.writer import RunWriter
from covent.train.demo import DemoRun
from tests.support.synthetic import write_run

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "paired_seeds.json"


def finish(run: DemoRun) -> None:
    """A finished run folder with the settings of a planned run, and nothing else in it."""
    header = RunHeader(
        schema_version=SCHEMA_VERSION,
        name=run.name,
        created="2026-11-21T00:00:00+00:00",
        config=run.config.model_dump(mode="json"),
        seed=run.config.seed,
        threads=1,
        versions={},
        commit=None,
        hardware="",
        num_parameters=1,
        start_model=None,
    )
    with RunWriter.create(run.folder, header, "", num_steps=run.config.steps) as writer:
        writer.status("finished", step=run.config.steps)


def test_a_finished_run_of_the_same_settings_is_used(tmp_path: Path) -> None:
    runs = planned(tmp_path, 3, ["steps=5"])
    refuse_other_settings(runs)
    assert list(tmp_path.iterdir()) == []
    for run in runs:
        finish(run)
    refuse_other_settings(planned(tmp_path, 3, ["steps=5"]))
    refuse_other_settings(planned(tmp_path, 4, ["steps=6"]))


def test_a_finished_run_of_other_settings_is_refused_with_the_difference(tmp_path: Path) -> None:
    runs = planned(tmp_path, 3, ["steps=5"])
    for run in runs[:2]:
        finish(run)
    with pytest.raises(ConfigError) as refused:
        refuse_other_settings(planned(tmp_path, 3, ["evaluation.every=7"]))
    message = str(refused.value)
    assert "steps 5 there, 160 asked; evaluation.every 5 there, 7 asked" in message
    assert str(runs[0].folder) in message and str(runs[1].folder) in message and str(runs[2].folder) not in message


def test_a_setting_that_one_side_does_not_know_is_a_difference(tmp_path: Path) -> None:
    run = planned(tmp_path, 3, [])[0]
    finish(run)
    path = run.folder / "run.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    del header["config"]["warm_start"]["max_rounds"]
    path.write_text(json.dumps(header), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"warm_start.max_rounds \(no such setting\) there, 3 asked"):
        refuse_other_settings([run])


def test_the_result_says_of_each_run_what_it_was(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, method="grpo", seed=seed) for name, seed in (("a", 0), ("b", 1))]
    path = folders[1] / "run.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    header["commit"] = "another"
    header["config"]["evaluation"]["test_problems"] = 512
    path.write_text(json.dumps(header), encoding="utf-8")
    result = collect(folders, [])
    first, second = (run["own"] for run in result["runs"])
    assert second["commit"] == "another" != first["commit"]
    assert second["config.evaluation.test_problems"] == 512
    assert set(second) - set(first) <= {"config.evaluation.test_problems"}
    # What the first run alone would have been taken to say of both.
    alone = collect(folders[:1], [])
    assert alone["runs"][0]["own"] == {} and alone["common"].keys() == (result["common"] | first).keys()


def test_the_published_result_names_both_commits() -> None:
    """Seeds 19 to 23 ran at a later commit than 12 to 18, with two more settings of the warm start (docs/log.md)."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["common"]["config.evaluation.problem_seed"] == 1
    by_commit: dict[str, set[int]] = {}
    for run in result["runs"]:
        by_commit.setdefault(run["own"]["commit"], set()).add(run["seed"])
        assert run["seed"] == run["own"]["config.seed"] and run["method"] == run["own"]["config.name"]
        assert ("config.warm_start.max_rounds" in run["own"]) == (run["seed"] >= 19)
    assert list(by_commit.values()) == [set(range(12, 19)), set(range(19, 24))]
