"""How accuracies meet entropies, and that every decision about a log is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from covent.logs import Choice, LogError, all_series, log_series
from tests.logs.logfiles import json_lines, law_rows, one_run, series_of
from tests.support.tolerances import TIGHT


def said(warnings: list[str], *parts: str) -> bool:
    """Whether one warning has all the parts."""
    return any(all(part in warning for part in parts) for warning in warnings)


def test_an_accuracy_meets_the_entropies_since_the_one_before(tmp_path: Path) -> None:
    series = series_of(json_lines(tmp_path / "log.jsonl", law_rows(24, every=4)))
    rows = law_rows(24, every=4)
    means = [sum(rows[step - back]["entropy"] for back in range(1, 5)) / 4 for step in (4, 8, 12, 16, 20, 24)]
    assert series.step.tolist() == [4, 8, 12, 16, 20, 24]
    assert series.entropy == pytest.approx(means, rel=TIGHT)
    assert "4 entropies" in series.join
    assert series.window_steps == 4
    # Looking ahead would lower every mean, since entropy falls: the points would not lie on the law any more.
    ahead = [np.mean([rows[min(step + k, 23)]["entropy"] for k in range(-2, 2)]) for step in series.step]
    assert series.entropy != pytest.approx(ahead, rel=TIGHT)


@pytest.mark.parametrize(("every", "width"), [(1, 1), (2, 2), (3, 3), (8, 4), (12, 4)])
def test_the_window_is_at_most_four(every: int, width: int, tmp_path: Path) -> None:
    series = series_of(json_lines(tmp_path / "log.jsonl", law_rows(24, every)))
    rows = law_rows(24, every)
    expected = [np.mean([row["entropy"] for row in rows[step - width : step]]) for step in range(every, 25, every)]
    assert series.entropy == pytest.approx(expected, rel=TIGHT)


def test_a_window_that_is_asked_for(tmp_path: Path) -> None:
    run = one_run(json_lines(tmp_path / "log.jsonl", law_rows(24, every=2)))
    rows = law_rows(24, every=2)
    series = log_series(run, Choice(window=6))
    expected = [np.mean([row["entropy"] for row in rows[max(0, step - 6) : step]]) for step in range(2, 25, 2)]
    assert series.entropy == pytest.approx(expected, rel=TIGHT)
    assert "as asked" in series.join


def test_an_accuracy_before_the_first_entropy_is_no_point(tmp_path: Path) -> None:
    rows = [{"step": 0, "accuracy": 0.1}, *law_rows()]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.step[0] == 4
    assert said(series.warnings, "before the first entropy", "steps 0")


def test_nan_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [dict(row) for row in law_rows()]
    rows[5]["entropy"] = rows[6]["entropy"] = None
    rows[7]["accuracy"] = None
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.step.tolist() == [4, 12, 16, 20, 24]
    assert series.entropies.size == 22
    assert said(series.warnings, "2 rows left out", "'entropy'", "lines 6, 7")
    assert said(series.warnings, "1 row left out", "'accuracy'")


def test_after_a_restart_the_last_of_a_step_counts(tmp_path: Path) -> None:
    before = law_rows(20)
    after = [{**row, "entropy": row["entropy"] + 0.05} for row in law_rows(16)[12:]]
    series = series_of(json_lines(tmp_path / "log.jsonl", [*before, *after]))
    assert series.entropy_steps.tolist() == list(range(1, 17)), "steps 17 to 20 were abandoned"
    assert series.entropies[12:] == pytest.approx([row["entropy"] for row in after], rel=TIGHT)
    assert series.step.tolist() == [4, 8, 12, 16], "the accuracy of step 20 belongs to what was abandoned"
    assert said(series.warnings, "back to step 13", "1 restart", "8 rows")


def test_of_a_step_that_is_logged_twice_the_last_counts_and_its_accuracy_stays(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    for row in law_rows():
        rows += [row, {"step": row["step"], "entropy": row["entropy"] / 2}]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.step.tolist() == [4, 8, 12, 16, 20, 24]
    assert series.entropies == pytest.approx([row["entropy"] / 2 for row in law_rows()], rel=TIGHT)
    assert said(series.warnings, "more than once", "24 rows")
    assert not said(series.warnings, "restart")


def test_two_restarts_one_into_the_other(tmp_path: Path) -> None:
    rows = law_rows(40)
    log = [*rows[:20], *rows[10:16], *rows[4:12]]
    series = series_of(json_lines(tmp_path / "log.jsonl", log))
    assert series.entropy_steps.tolist() == list(range(1, 13))
    assert said(series.warnings, "2 restarts", "step 11, 5")


def test_without_a_restart_nothing_is_said_of_one(tmp_path: Path) -> None:
    series = series_of(json_lines(tmp_path / "log.jsonl", law_rows()))
    assert not said(series.warnings, "restart")


def test_an_evaluation_in_a_row_of_its_own_meets_its_step(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    for row in law_rows():
        rows.append({key: row[key] for key in ("step", "entropy")})
        if "accuracy" in row:
            rows.append({key: row[key] for key in ("step", "accuracy")})
    apart = series_of(json_lines(tmp_path / "apart.jsonl", rows))
    together = series_of(json_lines(tmp_path / "together.jsonl", law_rows()))
    assert apart.entropy.tolist() == together.entropy.tolist()
    assert apart.accuracy.tolist() == together.accuracy.tolist()


def test_zeros_among_entropies_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [{**row, "entropy": 0.0} if index in (3, 9) else row for index, row in enumerate(law_rows())]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.entropies.min() > 0
    assert said(series.warnings, "2 rows left out", "exactly 0", "lines 4, 10")


def test_percent_is_told_from_the_values_and_said(tmp_path: Path) -> None:
    rows = [{k: 100 * v if k == "accuracy" else v for k, v in row.items()} for row in law_rows()]
    percent = series_of(json_lines(tmp_path / "percent.jsonl", rows))
    assert percent.unit == "percent"
    assert said(percent.warnings, "taken as percent", "--unit")
    fraction = series_of(json_lines(tmp_path / "fraction.jsonl", law_rows()))
    assert fraction.unit == "fraction"
    assert not said(fraction.warnings, "--unit")


def test_a_declared_unit_is_taken_at_its_word(tmp_path: Path) -> None:
    run = one_run(json_lines(tmp_path / "log.jsonl", law_rows()))
    assert log_series(run, Choice(unit="percent")).unit == "percent"


def test_a_pattern_averages_what_it_matches(tmp_path: Path) -> None:
    rows = [
        {**row, "val-core/a/acc/mean@1": 0.2, "val-core/b/acc/mean@1": 0.6} if "accuracy" in row else row
        for row in law_rows()
    ]
    run = one_run(json_lines(tmp_path / "log.jsonl", rows))
    series = log_series(run, Choice(metric="val-core/*/acc/mean@1"))
    assert series.accuracy == pytest.approx(0.4, rel=TIGHT)
    assert said(series.warnings, "mean of 2 metrics with equal weight")


def test_a_step_without_all_of_the_averaged_metrics_is_left_out(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = [
        {**row, "val/a/acc": 0.2, **({} if row["step"] == 8 else {"val/b/acc": 0.6})} if "accuracy" in row else row
        for row in law_rows()
    ]
    series = log_series(one_run(json_lines(tmp_path / "log.jsonl", rows)), Choice(metric="val/*/acc"))
    assert 8 not in series.step
    assert said(series.warnings, "1 step left out")


def test_without_validation_the_training_reward_is_said_to_be_one(tmp_path: Path) -> None:
    rows = [{("reward" if k == "accuracy" else k): v for k, v in row.items()} for row in law_rows()]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.kind == "training"
    assert said(series.warnings, "training reward", "validation")


def test_one_reward_under_two_names_is_no_choice(tmp_path: Path) -> None:
    rows = [
        {**row, "eval_reward": row["accuracy"], "eval_rewards/right/mean": row["accuracy"]}
        if "accuracy" in row
        else row
        for row in law_rows()
    ]
    assert series_of(json_lines(tmp_path / "same.jsonl", rows)).accuracy_metric == "eval_rewards/right/mean"
    two = [{**row, "eval_rewards/form/mean": 0.5} if "accuracy" in row else row for row in rows]
    with pytest.raises(LogError, match="2 metrics that could be an accuracy"):
        series_of(json_lines(tmp_path / "two.jsonl", two))


def test_a_table_without_steps_is_taken_in_its_order(tmp_path: Path) -> None:
    lines = ["# made by hand", "entropy;accuracy", *(f"{0.9 - 0.1 * i:.1f};{10 + i}" for i in range(6))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    series = series_of(tmp_path / "log.csv")
    assert series.step.tolist() == [1, 2, 3, 4, 5, 6]
    assert series.entropy == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], rel=TIGHT)
    assert said(series.warnings, "no column of steps")


def test_a_long_table_is_the_wide_one_turned(tmp_path: Path) -> None:
    long = ["key,value,step"]
    for row in law_rows():
        long += [f"{key},{value!r},{row['step']}" for key, value in row.items() if key != "step"]
    (tmp_path / "long.csv").write_text("\n".join(long) + "\n")
    wide = series_of(json_lines(tmp_path / "wide.jsonl", law_rows()))
    turned = series_of(tmp_path / "long.csv")
    assert turned.entropy.tolist() == wide.entropy.tolist()
    assert turned.accuracy.tolist() == wide.accuracy.tolist()


def test_a_byte_order_mark_and_empty_cells_are_no_fault(tmp_path: Path) -> None:
    lines = ["step,entropy,accuracy,note", "1,0.5,,warm", "2,0.4,0.3,", "3,0.3,0.4,", "4,0.2,,end"]
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    series = series_of(tmp_path / "log.csv")
    assert series.step.tolist() == [2, 3]
    assert not said(series.warnings, "left out")


def test_runs_of_one_table_are_told_apart(tmp_path: Path) -> None:
    lines = ["model,step,entropy,accuracy", *(f"{m},{s},0.{s},0.{10 - s}" for m in "ab" for s in range(1, 6))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    both = all_series([tmp_path / "log.csv"], Choice(by="model"))
    assert [one.name for one in both] == ["a", "b"]
    assert both[0].entropy.tolist() == both[1].entropy.tolist()
    mixed = series_of(tmp_path / "log.csv")
    assert said(mixed.warnings, "restart"), (
        "without --by, the second run reads as a restart of the first, and that is said"
    )


def test_seeded_logs_of_any_rhythm_join_as_a_plain_loop_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for trial in range(40):
        steps = np.cumsum(rng.integers(1, 4, 30))
        logged = rng.random(30) < 0.7
        logged[0] = True
        evaluated = rng.random(30) < 0.3
        evaluated[-1] = True
        entropies = rng.uniform(0.1, 1.0, 30)
        rows = []
        for step, entropy, has_h, has_r in zip(steps, entropies, logged, evaluated, strict=True):
            row = (
                {"step": int(step)}
                | ({"entropy": float(entropy)} if has_h else {})
                | ({"accuracy": 0.5} if has_r else {})
            )
            rows.append(row)
        series = series_of(json_lines(tmp_path / f"{trial}.jsonl", rows))
        expected, since = [], 0
        for index in range(30):
            if not evaluated[index]:
                continue
            fresh = [k for k in range(since, index + 1) if logged[k]]
            usual = np.median(np.diff(steps[logged]))
            last = max(k for k in range(index + 1) if logged[k])
            age = steps[index] - steps[last]
            since = index + 1
            if age < usual or (fresh and age <= 4 * usual):
                expected.append(np.mean(entropies[(fresh or [last])[-4:]]))
        assert series.entropy == pytest.approx(expected, rel=TIGHT), trial


def test_a_table_of_several_runs_read_as_one_says_so(tmp_path: Path) -> None:
    """Without steps nothing else would tell that the runs were mixed."""

    def lines(words: list[str]) -> str:
        return "\n".join(
            ["size,entropy,accuracy", *(f"{word},{0.9 - 0.01 * i},0.3" for i, word in enumerate(words)), ""]
        )

    def said(words: list[str], choice: Choice | None = None) -> bool:
        (tmp_path / "log.csv").write_text(lines(words))
        found = all_series([tmp_path / "log.csv"], choice or Choice())
        return any("--by size" in warning for one in found for warning in one.warnings)

    assert said(["small"] * 6 + ["large"] * 6)
    assert not said(["small"] * 6 + ["large"] * 6, Choice(by="size"))
    assert not said(["small"] * 12)
    assert not said([f"note {i}" for i in range(12)]), "a remark in each row tells no runs apart"


def test_an_accuracy_meets_no_stale_entropy(tmp_path: Path) -> None:
    rows = [
        {key: value for key, value in row.items() if key != "entropy" or row["step"] <= 20}
        for row in law_rows(40, every=2)
    ]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.step.tolist() == list(range(2, 21, 2))
    assert series.entropy_lost_after == 20
    assert said(series.warnings, "10 accuracies left out", "steps 22, 24", "no entropy was logged since")
    assert said(series.warnings, "step 20", "go on to step 40")
    asked = log_series(one_run(tmp_path / "log.jsonl"), Choice(window=6))
    assert asked.step.tolist() == series.step.tolist(), "a window does not reach over what was not logged either"


def test_an_entropy_counts_until_the_next_is_due(tmp_path: Path) -> None:
    """Logged every 4 steps, evaluated every 2: the accuracy between two entropies meets the first of them."""
    rows = [
        {key: value for key, value in row.items() if key != "entropy" or row["step"] % 4 == 0}
        for row in law_rows(24, every=2)
    ]
    series = series_of(json_lines(tmp_path / "log.jsonl", rows))
    assert series.step.tolist() == list(range(4, 25, 2))
    assert series.entropy[1] == series.entropy[0]
    assert series.entropy_lost_after is None


def test_entropies_and_accuracies_of_different_counters_do_not_meet(tmp_path: Path) -> None:
    rows = law_rows(24)
    apart = [{"step": row["step"], "entropy": row["entropy"]} for row in rows]
    apart += [{"step": row["step"] + 10_000, "accuracy": row["accuracy"]} for row in rows if "accuracy" in row]
    with pytest.raises(LogError, match="no accuracy 'accuracy' meets an entropy"):
        series_of(json_lines(tmp_path / "log.jsonl", apart))


def csv_file(path: Path, rows: list[dict[str, float]], **changed: str) -> Path:
    """A table of step, entropy and accuracy; `s7="nan"` replaces the entropy of step 7."""
    lines = ["step,entropy,accuracy"]
    for row in rows:
        entropy = changed.get(f"s{row['step']}", repr(row["entropy"]))
        lines.append(f"{row['step']},{entropy},{row.get('accuracy', '')}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("word", ["nan", "inf", "-Infinity", "None"])
def test_nonsense_in_a_table_is_counted_and_an_empty_cell_is_not(word: str, tmp_path: Path) -> None:
    broken = series_of(csv_file(tmp_path / "log.csv", law_rows(), s7=word))
    assert said(broken.warnings, "1 row left out", "'entropy'", "lines 8")
    empty = series_of(csv_file(tmp_path / "log.csv", law_rows(), s7=""))
    assert not said(empty.warnings, "left out")
    assert broken.entropies.tolist() == empty.entropies.tolist()


def test_numbers_written_as_words_are_numbers_and_other_words_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [dict(row) for row in law_rows()]
    plain = series_of(json_lines(tmp_path / "plain.jsonl", rows))
    for row in rows[::2]:
        row |= {key: str(value) for key, value in row.items()}
    words = series_of(json_lines(tmp_path / "words.jsonl", rows))
    assert words.entropy.tolist() == plain.entropy.tolist()
    assert words.accuracy.tolist() == plain.accuracy.tolist()
    rows[7]["accuracy"] = "35.1%"
    percent = series_of(json_lines(tmp_path / "percent.jsonl", rows))
    assert percent.step.tolist() == [4, 12, 16, 20, 24]
    assert said(percent.warnings, "1 row left out", "'accuracy'")


@pytest.mark.parametrize("order", [slice(None, None, -1), [*range(1, 24, 2), *range(0, 24, 2)]])
def test_rows_out_of_order_are_sorted_and_that_is_said(order: slice | list[int], tmp_path: Path) -> None:
    rows = law_rows()
    mixed = rows[order] if isinstance(order, slice) else [rows[place] for place in order]
    series = series_of(json_lines(tmp_path / "log.jsonl", mixed))
    right = series_of(json_lines(tmp_path / "right.jsonl", rows))
    assert series.entropy.tolist() == right.entropy.tolist()
    assert series.accuracy.tolist() == right.accuracy.tolist()
    assert said(series.warnings, "not in the order of steps", "sorted")
    assert not said(right.warnings, "sorted")


def test_steps_that_go_back_and_forth_are_no_run(tmp_path: Path) -> None:
    rows = [row for pair in zip(law_rows(), law_rows()[::-1], strict=True) for row in pair]
    with pytest.raises(LogError, match=r"go back \d+ times in 48 rows.*--by COLUMN"):
        series_of(json_lines(tmp_path / "log.jsonl", rows))


def test_the_column_that_tells_runs_apart_is_named(tmp_path: Path) -> None:
    def hinted(name: str, values: list[object], interleaved: bool = True) -> bool:
        runs = [[{**row, name: value} for row in law_rows()] for value in values]
        rows = [row for rows in zip(*runs, strict=True) for row in rows] if interleaved else [*runs[0], *runs[1]]
        return said(series_of(json_lines(tmp_path / "log.jsonl", rows)).warnings, f"--by {name}.")

    assert hinted("run", ["a", "b"])
    assert hinted("seed", [0, 1])
    assert hinted("seed", [0, 1], interleaved=False)
    assert not hinted("seed", [0, 0]), "a number that does not tell rows of one step apart tells no runs apart"
    rows = law_rows()
    long = ["run_id,key,value,step"]
    long += [
        f"{run},{key},{row[key]},{row['step']}"
        for run in "ab"
        for row in rows
        for key in ("entropy", "accuracy")
        if key in row
    ]
    (tmp_path / "long.csv").write_text("\n".join(long) + "\n")
    assert said(series_of(tmp_path / "long.csv").warnings, "--by run_id")


def test_a_last_row_without_its_end_is_dropped_and_said(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "log.csv", law_rows())
    whole = one_run(path)
    path.write_text(path.read_text() + "25,0.1,0.")
    torn = one_run(path)
    assert torn.rows == whole.rows
    assert said(torn.notes, "log.csv:26", "dropped", "newline")
    path.write_text(path.read_text() + '"\n26,0.1,"0.7"'.replace('"\n', "4\n"))
    assert [row.step for row in one_run(path).rows[-2:]] == [25, 26], "a quote that is closed lost nothing"
