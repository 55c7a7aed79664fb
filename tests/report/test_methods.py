"""What the section on methods says where its runs are not all alike: other accuracies, fewer tests, other machines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from covent.logs.results import fit_result, pooled_result
from covent.report.experiments import made_otherwise
from covent.report.methods import method_summary, methods, pooled
from covent.report.page import page
from covent.report.subject import Subject, subjects
from covent.store.reader import Run, read_run
from tests.support.synthetic import write_run


def runs_of(folder: Path, method: str = "grpo", num: int = 3, num_steps: int = 30) -> list[Run]:
    return [read_run(write_run(folder / f"{method}{seed}", method, seed, num_steps=num_steps)) for seed in range(num)]


def without(run: Run, *splits: str, step: int | None = None) -> Run:
    """The run with no evaluation of these splits, or without the one after `step`."""
    path = run.folder / "evaluations.jsonl"
    rows = path.read_text("utf-8").splitlines(keepends=True)
    kept = [r for r in rows if (row := json.loads(r))["split"] not in splits or step not in (None, row["step"])]
    assert len(kept) < len(rows)
    path.write_text("".join(kept), "utf-8")
    return read_run(run.folder)


def along(subject: Subject, curve: Any) -> Subject:
    """The same with points on a curve of entropy, and the fit of those."""
    assert subject.points is not None
    h = subject.points.entropy
    noise = np.random.default_rng(subject.style.run).normal(0, 1e-3, len(h))
    points = replace(subject.points, accuracy=np.asarray(curve(h) + noise))
    return replace(subject, points=points, fit=fit_result(points))


def test_a_law_is_of_one_accuracy_and_says_which_runs_are_not_in_it(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    whole = subjects(runs)
    assert pooled(whole) == whole
    rewarded = subjects([*runs[:2], without(runs[2], "validation")])
    assert rewarded[2].points is not None and rewarded[2].points.accuracy_metric == "training reward"
    assert pooled(rewarded) == rewarded[:2]
    law, alone = method_summary("grpo", rewarded).law, method_summary("grpo", rewarded[:2]).law
    assert law is not None and law == alone and law.metric == "validation avg@4"
    mixed = pooled_result([each.points for each in rewarded if each.points is not None])
    assert mixed.ceiling != law.ceiling and mixed.n > law.n
    found, all_of_them = methods(rewarded), methods(whole)
    assert found is not None and all_of_them is not None
    told = "not in the law of grpo, which is of validation avg@4: grpo · seed 2 has training reward alone"
    assert told in found.notes and not any("not in the law" in note for note in all_of_them.notes)
    assert found.rows[0][6].endswith("(2 of 3 runs)") and "runs)" not in all_of_them.rows[0][6]
    chart = next(chart for chart in found.charts if chart.anchor == "methods-law")
    assert chart.y_label == "R: validation avg@4" and len(chart.table.rows) == law.n
    # Where all have the reward alone, that is pooled.
    both = subjects([without(run, "validation") for run in runs[:2]])
    law = method_summary("grpo", both).law
    assert law is not None and law.metric == "training reward" and pooled(both) == both


def test_a_number_of_fewer_runs_than_the_method_has_says_so(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, num_steps=12)
    whole = methods(subjects(runs))
    assert whole is not None and "of 3 runs)" not in " ".join([whole.headline, *whole.rows[0]])
    assert "too few seeds for an interval" not in whole.intro
    found = methods(subjects([*runs[:2], without(runs[2], "test", step=12)]))
    assert found is not None and found.rows[0][1] == "3"
    entropy, average, gain, widest = found.rows[0][2:6]
    assert re.fullmatch(r"[\d.]+\n\[.*\]", entropy)
    for cell in (average, gain, widest):
        assert re.fullmatch(r".*\n\(.*, .*\)\n\(2 of 3 runs\)", cell)
    assert re.search(r"avg@k [\d.]+ % \([\d., ]+\) \(2 of 3 runs\)", found.headline)
    assert "nats [" in found.headline and "too few seeds for an interval" in found.intro
    (cost,) = (chart for chart in found.charts if chart.anchor == "methods-cost")
    assert cost.note == "grpo: the gain of 2 of 3 runs."


@pytest.mark.parametrize("num", [1, 3])
def test_a_ceiling_that_another_curve_doubts_carries_its_mark(tmp_path: Path, num: int) -> None:
    shown = subjects(runs_of(tmp_path, num=3, num_steps=80))
    beaten = [along(each, lambda h: 0.3 - 0.1 * np.log(h)) for each in shown]
    sound = [along(each, lambda h: 1.2 - 0.5 * np.exp(h)) for each in shown]
    doubted, trusted = method_summary("grpo", beaten[:num]).law, method_summary("grpo", sound[:num]).law
    assert doubted is not None and trusted is not None
    assert doubted.is_beaten and not trusted.is_beaten and trusted.rivals
    assert doubted.n == num * len(beaten[0].points or [])
    if num > 1:
        bad, good = methods(beaten), methods(sound)
        assert bad is not None and good is not None
        assert "†" in bad.rows[0][6] and any(note.startswith("†") for note in bad.notes)
        assert "†" not in good.rows[0][6] and not any("†" in note for note in good.notes)
        charts = [next(c for c in found.charts if c.anchor == "methods-law") for found in (bad, good)]
        assert ["another curve fits clearly better" in chart.note for chart in charts] == [True, False]


def remade(run: Run, **changes: Any) -> Run:
    return replace(run, header=run.header.model_copy(update=changes))


def test_what_besides_the_seed_was_otherwise_is_said(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, num_steps=12)
    same = methods(subjects(runs))
    assert same is not None and not any("not the seed alone" in note for note in same.notes)
    versions = runs[2].header.versions | {"torch": "1.9"}
    other = remade(runs[2], commit="0000", versions=versions, hardware="another", start_model="fff")
    found = methods(subjects([*runs[:2], other]))
    assert found is not None
    assert "not the seed alone: the runs of grpo also differ in commit, torch, hardware, start model" in found.notes


def test_a_start_model_that_the_seed_makes_is_no_other_difference(tmp_path: Path) -> None:
    made = {"task": {"name": "clock"}, "model": {"path": None}, "warm_start": {"steps": 100}}
    runs = [remade(run, config=made, start_model=f"hash {place}") for place, run in enumerate(runs_of(tmp_path, num=2))]
    assert made_otherwise("grpo", runs) == ["each seed of grpo also makes its own start model"]
    # A model that was given, two of one seed, or one of two seeds beside another's, are a difference.
    given = {**made, "model": {"path": "models/other"}, "warm_start": {"steps": 0}}
    (note,) = made_otherwise("grpo", [remade(run, config=given) for run in runs])
    assert note.endswith("also differ in start model")
    (note,) = made_otherwise("grpo", [runs[0], remade(runs[1], seed=runs[0].seed)])
    assert note.endswith("also differ in start model")
    (note,) = made_otherwise("grpo", [*runs, remade(runs[1], seed=5, start_model="hash 0")])
    assert note.endswith("also differ in start model")
    assert made_otherwise("grpo", [runs[0], remade(runs[1], start_model="hash 0")]) == []


def test_intervals_stand_on_a_line_of_their_own(tmp_path: Path) -> None:
    text = page(runs_of(tmp_path, num_steps=12))
    (table,) = re.findall(r'aria-label="Methods over seeds"><table.*?</table>', text, flags=re.DOTALL)
    assert re.search(r"<bdi>[\d.]+</bdi><br><bdi>\[[\d.]+, [\d.]+\]</bdi>", table)
    assert "<br>" not in table.partition("<tbody>")[0]
