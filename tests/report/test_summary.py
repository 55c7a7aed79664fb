"""The summary of synthetic runs whose truth is known, and of runs that are too short to say much."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from covent.report import numbers as n
from covent.report.compare import baseline_method, comparisons, labels
from covent.report.probes import by_rollout_step, probe_series
from covent.report.summary import END_STEPS, RunSummary, summarise
from covent.report.tables import ceiling_marks, glance, short_ceiling
from covent.store.reader import Run, read_run
from tests.support.synthetic import SHAPES, UPDATES_PER_STEP, write_run
from tests.support.tolerances import TIGHT


def test_entropy_is_that_of_the_rows(runs: dict[str, Run], summaries: dict[str, RunSummary]) -> None:
    values = [row.entropy.value or 0.0 for row in runs["grpo"].steps]
    entropy = summaries["grpo"].entropy
    assert entropy is not None
    assert entropy.first == values[0]
    assert entropy.last == pytest.approx(sum(values[-END_STEPS:]) / END_STEPS, rel=TIGHT)
    assert entropy.mean == pytest.approx(sum(values) / len(values), rel=TIGHT)
    below = [step for step in range(4, 160) if sum(values[step - 4 : step + 1]) / 5 <= values[0] / 2]
    assert entropy.half_life == below[0]
    kept = summaries["clip_cov"].entropy
    assert kept is not None and kept.ratio is not None and entropy.ratio is not None
    assert entropy.ratio < 0.1 < 0.3 < kept.ratio


def test_law_finds_the_constants_that_made_the_run(summaries: dict[str, RunSummary]) -> None:
    shape = SHAPES["grpo"]
    law = summaries["grpo"].law("validation").fit
    assert law is not None and law.a is not None and law.ceiling_interval is not None
    assert law.a == pytest.approx(shape.slope, rel=0.15)
    assert law.ceiling == pytest.approx(shape.ceiling, abs=0.02)
    # The control: the accuracy of the controlled run drifts with time, which the law takes for a higher ceiling.
    drifting = summaries["clip_cov"].law("validation").fit
    assert drifting is not None and drifting.ceiling is not None and drifting.ceiling > 1
    assert summaries["grpo"].law("validation").num_points == 32


def test_forecasts_use_the_stated_shares(summaries: dict[str, RunSummary]) -> None:
    first, second = summaries["grpo"].law("validation").forecasts
    assert (first.fraction, second.fraction) == (0.15, 0.30)
    assert (first.num_prefix, second.num_prefix) == (4, 9)
    assert second.unconditional.end_error is not None and second.conditional.end_error is not None


def test_gain_by_thirds_adds_up(summaries: dict[str, RunSummary]) -> None:
    thirds = summaries["grpo"].thirds
    assert thirds is not None and thirds.gain_shares is not None and thirds.entropy_shares is not None
    assert sum(thirds.gain_shares) == pytest.approx(1, abs=TIGHT)
    assert sum(thirds.entropy_shares) == pytest.approx(1, abs=TIGHT)
    assert thirds.gain_shares[0] > 0.7 and thirds.gain_shares[2] < 0.2


def test_probe_statistics_tell_accounting_from_predicting(summaries: dict[str, RunSummary]) -> None:
    probe = summaries["grpo"].probe
    assert probe is not None
    accounted = probe.agreement("accounted", "optimizer step", "removed")
    predicted = probe.agreement("theorem 2", "optimizer step", "removed")
    assert accounted.correlation is not None and accounted.slope is not None and predicted.correlation is not None
    assert accounted.correlation > 0.95 and accounted.slope == pytest.approx(1, abs=0.2)
    assert abs(predicted.correlation) < 0.5
    assert probe.num_updates == 160 * UPDATES_PER_STEP


def test_changes_add_up_over_the_updates_of_a_rollout_step(runs: dict[str, Run]) -> None:
    series = probe_series(runs["kl_cov"])
    assert series is not None
    summed = by_rollout_step(series)
    assert summed.observed[3] == pytest.approx(series.observed[12:16].sum(), rel=TIGHT)
    assert len(summed.step) == 160


def test_control_shares_are_ratios_of_sums(runs: dict[str, Run], summaries: dict[str, RunSummary]) -> None:
    control = summaries["clip_cov"].control
    assert control is not None and control.realised_frac is not None
    readings = [row.control for row in runs["clip_cov"].updates]
    assert control.realised_frac == sum(r.num_selected for r in readings) / sum(r.num_tokens for r in readings)
    assert control.took_all_frac == np.mean([r.took_all_candidates for r in readings])
    assert summaries["grpo"].control is not None and summaries["grpo"].control.realised_frac is None


def test_a_summary_is_json(summaries: dict[str, RunSummary]) -> None:
    for summary in summaries.values():
        again = RunSummary.model_validate_json(summary.model_dump_json())
        assert again == summary
        json.loads(summary.model_dump_json())


@pytest.mark.parametrize("steps", [0, 1, 3, 7, 24])
def test_short_runs_are_summarised_as_far_as_they_go(tmp_path: Path, steps: int) -> None:
    run = read_run(write_run(tmp_path / "run", stop_after=steps))
    summary = summarise(run)
    assert summary.status.state == "interrupted" and summary.num_steps == steps
    law = summary.law("validation")
    assert (law.fit is None) == (steps < 5)
    assert law.fit is not None or law.reason
    assert (summary.entropy is None) == (steps == 0)


def test_runs_without_evaluation_settings_have_a_reason_and_no_law(runs: dict[str, Run]) -> None:
    run = runs["grpo"]
    summary = summarise(replace(run, header=run.header.model_copy(update={"config": {}})))
    assert "evaluation.every" in (summary.law("validation").reason or "")
    assert summary.method == "grpo"
    silent = summarise(replace(run, evaluations=[]))
    assert "no validation evaluation" in (silent.law("validation").reason or "")
    assert silent.law("training").fit is not None and silent.accuracy == []


def test_an_accuracy_before_and_none_after_is_kept(runs: dict[str, Run]) -> None:
    early = replace(runs["grpo"], evaluations=[row for row in runs["grpo"].evaluations if row.step == 0])
    change = summarise(early).change("test", "avg@32")
    assert change is not None and change.start is not None and change.end is None and change.difference is None
    assert glance(["grpo"], [summarise(early)])[1][0][4] == f"{n.fixed(100 * change.start.value, 1)} → –"


def test_labels_are_unique(runs: dict[str, Run]) -> None:
    run = runs["grpo"]
    other = replace(run, header=run.header.model_copy(update={"seed": 1}))
    assert labels([run, runs["kl_cov"]]) == ["grpo", "kl_cov"]
    assert labels([run, other]) == ["grpo · seed 0", "grpo · seed 1"]
    assert len(set(labels([run, run, other, other]))) == 4
    again = replace(run, folder=run.folder.with_name("clock-2"))
    assert labels([run, again]) == [f"grpo · {run.folder.name}", "grpo · clock-2"]


def test_runs_are_compared_within_a_seed_against_the_one_without_control(runs: dict[str, Run]) -> None:
    ordered = [runs["clip_cov"], runs["grpo"], runs["kl_cov"]]
    assert baseline_method(ordered) == "grpo"
    found = comparisons(ordered)
    assert [(c.label, c.baseline) for c in found] == [("clip_cov", "grpo"), ("kl_cov", "grpo")]
    first = found[0]
    assert first.end_entropy[0] > 5 * first.end_entropy[1] and first.num_steps == 160 and first.common_start
    mine = [row for row in runs["clip_cov"].evaluations if row.split == "test"][-1]
    theirs = [row for row in runs["grpo"].evaluations if row.split == "test"][-1]
    assert first.differences["avg@32"].value == pytest.approx(mine.avg.value - theirs.avg.value, abs=TIGHT)
    # The controls: another seed is no partner, and other problems are not compared.
    header = runs["grpo"].header.model_copy(update={"seed": 7})
    assert comparisons([replace(runs["grpo"], header=header), runs["kl_cov"]]) == []
    others = [row.model_copy(update={"problem": f"x{row.problem}"}) for row in runs["grpo"].verdicts]
    assert comparisons([replace(runs["grpo"], verdicts=others), runs["kl_cov"]])[0].differences == {}


def test_a_ceiling_is_a_number_only_where_the_points_give_one(summaries: dict[str, RunSummary]) -> None:
    law = summaries["grpo"].law("validation").fit
    assert law is not None and law.rivals and law.ceiling is not None and law.ceiling < 1
    sound = law.model_copy(update={"rivals": []})
    impossible = sound.model_copy(update={"ceiling": 1.157})
    unknown = impossible.model_copy(update={"identified": False})
    ahead = law.rivals[0].model_copy(update={"name": "power of H", "aicc": -20.0})
    behind = ahead.model_copy(update={"name": "law", "aicc": -15.0})
    beaten = sound.model_copy(update={"rivals": [ahead, behind]})
    tie = sound.model_copy(update={"rivals": [ahead, behind.model_copy(update={"aicc": -16.5})]})
    number = n.percent(law.ceiling)
    assert [short_ceiling(each) for each in (sound, impossible, unknown, beaten, tie)] == [
        number,
        "not determined *",
        "not identified",
        f"{number} †",
        number,
    ]
    assert ceiling_marks([sound, tie]) == []
    assert [mark[:1] for mark in ceiling_marks([impossible, beaten, unknown])] == ["*", "†", "n"]
    assert [each.is_sound for each in (sound, impossible, unknown, beaten, tie)] == [True, False, False, False, True]
