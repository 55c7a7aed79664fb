"""Which runs are one experiment: other seeds count together, other settings and copies do not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from covent.report.compare import labels
from covent.report.experiments import experiments, repetitions
from covent.report.methods import method_summary, methods, repeated
from covent.report.page import page
from covent.report.subject import subjects
from covent.store.coverage import lost_steps
from covent.store.reader import Run, read_run
from covent.store.salvage import salvaged_run
from covent.store.schema import FaultRow
from tests.support.synthetic import write_run


def run_of(folder: Path, method: str = "grpo", seed: int = 0, name: str | None = None, **settings: Any) -> Run:
    """A short run with some settings replaced; dots lead into sections."""
    write_run(folder, method, seed, num_steps=12)
    path = folder / "run.json"
    header = json.loads(path.read_text("utf-8"))
    for key, value in settings.items():
        *sections, leaf = key.split("__")
        place = header["config"]
        for section in sections:
            place = place[section]
        place[leaf] = value
    path.write_text(json.dumps(header | ({} if name is None else {"name": name})), "utf-8")
    return read_run(folder)


def test_seeds_places_and_what_is_only_looked_at_make_no_other_experiment(tmp_path: Path) -> None:
    runs = [
        run_of(tmp_path / "a", seed=0, checkpoint={"every": 10}, samples_kept=8),
        run_of(tmp_path / "b", seed=1, checkpoint={"every": 0}, samples_kept=0, report_to=["wandb"], threads=2),
    ]
    assert experiments(runs) == ["grpo", "grpo"]
    # The control: one setting of the optimizer does.
    runs.append(run_of(tmp_path / "c", seed=2, optimizer__lr=1e-3))
    assert experiments(runs)[2] != experiments(runs)[0] == experiments(runs)[1]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("task", {"name": "clock", "preset": "hard"}, ["task.preset default", "task.preset hard"]),
        ("evaluation__num_samples", 8, ["evaluation.num_samples 32", "evaluation.num_samples 8"]),
        ("model", {"path": "models/other"}, ["model.path –", "model.path models/other"]),
        ("optimizer__lr", 1e-3, ["optimizer.lr 0.0003", "optimizer.lr 0.001"]),
    ],
)
def test_unlike_runs_of_one_method_stand_apart_and_say_how(
    tmp_path: Path, key: str, value: object, words: list[str]
) -> None:
    runs = [run_of(tmp_path / f"a{seed}", seed=seed) for seed in (0, 1)]
    runs += [run_of(tmp_path / f"b{seed}", seed=seed, **{key: value}) for seed in (2, 3)]
    found = methods(subjects(runs))
    assert found is not None
    assert [row[:2] for row in found.rows] == [[f"grpo · {word}", "2"] for word in words]
    (note,) = [note for note in found.notes if note.startswith("not the control alone")]
    assert words[0].split()[0] in note
    # They are drawn apart too.
    assert len({each.style.color for each in subjects(runs)}) == 2
    same = methods(subjects(runs[:2]))
    assert same is not None and not any("not the control alone" in note for note in same.notes)


def test_runs_that_differ_in_many_settings_still_have_two_names(tmp_path: Path) -> None:
    changes = [{"x": i, "y": i, "z": i, "w": j} for i, j in ((1, 1), (2, 1), (2, 2))]
    names = experiments([run_of(tmp_path / str(k), seed=k, **change) for k, change in enumerate(changes)])
    assert len(set(names)) == 3 and all("of 3" in name for name in names)


def test_a_copy_of_a_run_counts_once_and_another_seed_does_not(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", seed=0)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    cut = tmp_path / "copy" / "steps.jsonl"
    cut.write_text("".join(cut.read_text("utf-8").splitlines(keepends=True)[:5]), "utf-8")
    copy, other = read_run(tmp_path / "copy"), run_of(tmp_path / "b", seed=1)
    assert repetitions([copy, first, other]) == ([1, 2], {0: "is the same run as another one"})
    assert repetitions([first, first, other])[0] == [0, 2]
    # Of one seed, but other numbers: another machine's run counts.
    again = run_of(tmp_path / "c", seed=7)
    assert repetitions([first, again, other])[1] == {}
    text = page([first, copy])
    assert "grpo · copy is the same run as another one: counted once." in text
    assert methods(subjects([first, copy])) is None


def test_a_run_that_did_not_reach_its_end_is_left_out_beside_some_that_did(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    short = read_run(write_run(tmp_path / "short", "grpo", 2, num_steps=12, stop_after=6))
    found = methods(subjects([*runs, short]))
    assert found is not None and found.rows[0][1] == "2"
    assert "left out: grpo · seed 2 ended at 6 of 12 rollout steps" in found.notes
    # The control: where all go on, all count.
    others = [read_run(write_run(tmp_path / f"s{seed}", "grpo", seed, num_steps=12, stop_after=6)) for seed in (3, 4)]
    assert [len(group.members) for group in repeated(subjects([short, *others]))] == [3]


def without_rows(run: Run, *steps: int) -> Run:
    """The run with these rows of steps.jsonl gone, read as the report reads it."""
    path = run.folder / "steps.jsonl"
    rows = path.read_text("utf-8").splitlines(keepends=True)
    path.write_text("".join(row for nth, row in enumerate(rows) if nth not in steps), "utf-8")
    return salvaged_run(run.folder)


@pytest.mark.parametrize(
    ("lost", "told"), [((8, 9, 10, 11), "steps 8 to 11"), ((5,), "step 5"), ((0,), "step 0"), ((11,), "step 11")]
)
def test_a_run_that_lacks_rows_is_no_seed(tmp_path: Path, lost: tuple[int, ...], told: str) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in range(3)]
    whole = methods(subjects(runs))
    assert whole is not None and whole.rows[0][1] == "3" and not any("left out" in note for note in whole.notes)
    torn = without_rows(runs[1], *lost)
    assert torn.status.state == "finished"
    found = methods(subjects([runs[0], torn, runs[2]]))
    assert found is not None and found.rows[0][1] == "2"
    assert f"left out: grpo · seed 1 lacks rollout {told} in steps.jsonl" in found.notes
    only = methods(subjects([runs[0], runs[2]]))
    assert only is not None and only.rows == found.rows
    # Where no other is whole, there is no method over seeds.
    assert methods(subjects([torn])) is None


def test_a_step_that_was_not_finite_is_not_lost(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a")
    for name in ("steps", "updates"):
        path = run.folder / f"{name}.jsonl"
        rows = path.read_text("utf-8").splitlines(keepends=True)
        path.write_text("".join(row for row in rows if json.loads(row)["step"] != 5), "utf-8")
    assert lost_steps(read_run(run.folder)) == ([5], range(12))
    fault = FaultRow(step=5, update=None, tensor="loss", message="not finite", in_a_row=1, rollout=None)
    (run.folder / "faults.jsonl").write_text(fault.model_dump_json() + "\n", "utf-8")
    assert lost_steps(read_run(run.folder)) == ([], range(12))


def test_without_a_status_the_rows_tell_whether_a_run_is_whole(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in range(2)]
    runs.append(read_run(write_run(tmp_path / "short", "grpo", 2, num_steps=12, stop_after=6)))
    for run in runs[1:]:
        (run.folder / "status.json").write_text('{"state": "fin', "utf-8")
    half = [runs[0], *(salvaged_run(run.folder) for run in runs[1:])]
    assert repetitions(half) == ([0, 1], {2: "ended at 6 of 12 rollout steps, and status.json cannot be read"})
    runs[1].folder.joinpath("status.json").unlink()
    assert repetitions([runs[0], read_run(runs[1].folder)]) == ([0, 1], {})
    # Its wall time is not known, and not nothing.
    found = method_summary("grpo", subjects(half[:2]))
    assert found.num_runs == 2 and found.seconds is not None and found.seconds.values == [runs[0].status.seconds]
    # A status that is there is believed: it was stopped before its last test.
    told = json.loads((runs[0].folder / "status.json").read_text("utf-8")) | {"state": "interrupted"}
    (runs[1].folder / "status.json").write_text(json.dumps(told), "utf-8")
    stopped = read_run(runs[1].folder)
    assert repetitions([runs[0], stopped])[1] == {1: "is interrupted after the last of its 12 rollout steps"}


def test_of_a_copy_the_whole_one_counts(tmp_path: Path) -> None:
    first = run_of(tmp_path / "a", seed=0)
    shutil.copytree(first.folder, tmp_path / "copy")
    told = json.loads((first.folder / "status.json").read_text("utf-8")) | {"state": "interrupted"}
    (tmp_path / "copy" / "status.json").write_text(json.dumps(told), "utf-8")
    assert repetitions([read_run(tmp_path / "copy"), first]) == ([1], {0: "is the same run as another one"})


def test_a_copy_is_counted_once_in_the_head_of_the_page_too(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in range(2)]
    shutil.copytree(tmp_path / "0", tmp_path / "copy")
    text = page([*runs, read_run(tmp_path / "copy")])
    assert "both runs of grpo" in text and "all 3 runs" not in text and "counted once" in text
    assert "Seeds: grpo 2." in text
    more = page([*runs, run_of(tmp_path / "2", seed=2)])
    assert "all 3 runs of grpo" in more and "counted once" not in more


def test_a_run_set_apart_by_a_setting_has_one_name(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in range(2)]
    assert labels(runs) == ["grpo · seed 0", "grpo · seed 1"]
    other = run_of(tmp_path / "2", seed=2, optimizer__lr=1e-3)
    runs.append(other)
    assert labels(runs) == [
        "grpo · optimizer.lr 0.0003 · seed 0",
        "grpo · optimizer.lr 0.0003 · seed 1",
        "grpo · optimizer.lr 0.001",
    ]
    found = methods(subjects(runs))
    assert found is not None and found.rows[1][0] == "grpo · optimizer.lr 0.001" == found.charts[0].table.rows[-1][0]
    assert "grpo · seed" not in page(runs)


def test_the_head_of_the_page_speaks_of_methods_wherever_one_has_two_runs(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / str(seed), seed=seed) for seed in range(3)]
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page(runs))
    assert lead.startswith("grpo over 3 runs ends with entropy") and "avg@k" in lead and "[" in lead
    (lead,) = re.findall(r'<p class="lead">(.*?)</p>', page(runs[:1]))
    assert lead.startswith("grpo: entropy went from") and "over" not in lead


def test_two_seeds_show_their_own_values_and_no_interval(tmp_path: Path) -> None:
    shown = subjects([run_of(tmp_path / f"{m}{s}", m, s) for m in ("grpo", "kl_cov") for s in range(3)])
    three, two = methods(shown), methods([*shown[:2], *shown[3:]])
    assert three is not None and two is not None
    assert "[" in three.rows[0][2] and "too few seeds" not in three.intro
    assert re.search(r"\(.*, .*\)$", two.rows[0][2]) and "[" not in two.rows[0][2] and "[" in two.rows[1][2]
    assert "too few seeds for an interval" in two.intro
    chart = two.charts[0]
    assert [trace.fill for trace in chart.figure.data].count("tonexty") == 1
    assert [trace.fill for trace in three.charts[0].figure.data].count("tonexty") == 2
    assert {row[3] for row in chart.table.rows if row[0].startswith("grpo")} == {None}
    assert None not in {row[3] for row in chart.table.rows if row[0].startswith("kl_cov")}


def test_the_quantity_over_seeds_is_named_for_what_it_is(tmp_path: Path) -> None:
    tested = [read_run(write_run(tmp_path / f"t{s}", "grpo", s, num_steps=12)) for s in (0, 1)]
    reward = [read_run(write_run(tmp_path / f"r{s}", "kl_cov", s, num_steps=12, evaluate=False)) for s in (0, 1)]
    titles = {}
    for name, runs in (("tested", tested), ("reward", reward), ("mixed", [*tested, *reward])):
        found = methods(subjects(runs))
        assert found is not None
        titles[name] = [(chart.title, chart.y_label, chart.note) for chart in found.charts[1:3]]
    assert titles["tested"][0][:2] == ("Accuracy over seeds", "validation avg@4")
    assert titles["tested"][1][1] == "R: validation avg@4"
    assert titles["reward"][0][:2] == ("Training reward over seeds", "training reward")
    assert titles["reward"][1][1] == "R: training reward"
    assert titles["mixed"][0] == (
        "Accuracy over seeds",
        "validation avg@4",
        "Not here, for want of validation: kl_cov.",
    )
    text = page(reward)
    assert "<h3><bdi>Training reward</bdi></h3>" in text and "<h3><bdi>Accuracy</bdi></h3>" not in text
    assert "<h3><bdi>Accuracy</bdi></h3>" in page(tested)


def test_a_run_has_one_name_everywhere(tmp_path: Path) -> None:
    """The demo calls its runs by their method, and GRPO's control is the PPO clip."""
    runs = [run_of(tmp_path / str(s), seed=s, name="grpo", control={"type": "ppo_clip"}) for s in range(2)]
    text = re.sub(r"<script.*?</script>", "", page(runs), flags=re.DOTALL)
    assert "both runs of grpo" in text and ", 2 runs" in text and "Seeds: grpo 2." in text
    # As a control, and as nothing else, it has the name of its settings.
    told = re.findall(r".{30}ppo_clip", text)
    assert all("control" in words or "type" in words for words in told)
    # Where a name is that of runs of several methods, the methods are named.
    clock = [run_of(tmp_path / f"k{m}", m, 0, name="clock") for m in ("grpo", "kl_cov")]
    assert experiments(clock) == ["grpo", "kl_cov"]


def test_a_comparison_of_unlike_runs_says_so(tmp_path: Path) -> None:
    base, other = run_of(tmp_path / "a"), run_of(tmp_path / "b", "kl_cov", optimizer__lr=1e-3)
    told = "Besides the control they differ in optimizer.lr"
    assert told in page([base, other]) and "They differ in more than the control." in page([base, other])
    assert told not in page([base, run_of(tmp_path / "c", "kl_cov")])
