"""The few lines in the terminal say what the report's summary says."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from covent.cli.summary import summary_rows, summary_table, summary_tables
from covent.report import numbers as n
from covent.report.summary import RunSummary, summarise
from covent.store.reader import read_run
from tests.support.synthetic import write_run


def _summary(folder: Path, **shape: int) -> RunSummary:
    return summarise(read_run(write_run(folder, folder.name, **shape)))


def _printed(*summaries: RunSummary) -> str:
    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(summary_table([summary.name for summary in summaries], summaries))
    return console.export_text()


def test_every_number_is_the_summarys(tmp_path: Path) -> None:
    summary = _summary(tmp_path / "grpo")
    rows = summary_rows(summary)
    assert summary.entropy is not None
    assert rows["entropy, end"] == n.nats(summary.entropy.last)
    for measure in ("greedy", "avg@32", "pass@32"):
        change = summary.change("test", measure)
        assert change is not None
        assert rows[f"{measure}, start"] == n.estimate(change.start)
        assert rows[f"{measure}, end"] == n.estimate(change.end)
    law = summary.law("validation").fit
    assert law is not None
    assert (rows["law a"], rows["law b"]) == (n.fixed(law.a), n.fixed(law.b))
    forecasts = summary.law("validation").forecasts
    assert len(forecasts) == 2
    for forecast in forecasts:
        first = n.percent(forecast.fraction, 0)
        assert rows[f"forecast, {first}"] == n.points(forecast.unconditional.end_error)
        assert rows[f"  later H, {first}"] == n.points(forecast.conditional.end_error)


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    printed = _printed(_summary(tmp_path / "grpo"), _summary(tmp_path / "clip_cov"))
    heading = printed.splitlines()[0].split()
    assert heading == ["grpo", "clip_cov"]
    assert "status" not in printed
    assert max(len(line.rstrip()) for line in _printed(*[_summary(tmp_path / "kl_cov")] * 3).splitlines()) <= 80


def test_more_runs_than_fit_stand_below_each_other(tmp_path: Path) -> None:
    names = [f"kl_cov · seed {seed}" for seed in range(9)]
    summaries = [_summary(tmp_path / "kl_cov")] * 9

    def printed(width: int) -> list[str]:
        console = Console(width=width, file=io.StringIO(), record=True)
        console.print(summary_tables(names, summaries, width))
        return console.export_text().splitlines()

    narrow = printed(80)
    assert "…" not in "".join(narrow)
    assert [line.count("seed ") for line in narrow if "kl_cov" in line] == [3, 3, 3]
    assert all(any(name in line for line in narrow) for name in names)
    assert sum(line.startswith("ceiling b − a") for line in narrow) == 3
    # Where there is room they stand in one line; where there is none for even two, one by one.
    assert [line.count("seed ") for line in printed(400) if "kl_cov" in line] == [9]
    assert [line.count("seed ") for line in printed(40) if "kl_cov" in line] == [1] * 9
    # The control: one table of all of them loses most of its letters.
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(summary_table(names, summaries))
    assert "…" in console.export_text()


def test_an_interrupted_run_says_so_and_is_shown(tmp_path: Path) -> None:
    printed = _printed(_summary(tmp_path / "grpo", num_steps=40, stop_after=12), _summary(tmp_path / "clip_cov"))
    (status,) = (line for line in printed.splitlines() if line.startswith("status"))
    assert status.split() == ["status", "interrupted", "at", "12/40", "finished"]


def test_a_run_without_steps_is_shown_too(tmp_path: Path) -> None:
    rows = summary_rows(_summary(tmp_path / "grpo", num_steps=40, stop_after=0))
    assert rows["law"].startswith("no fit: ")
    assert "entropy, end" not in rows


def test_rows_keep_one_order_whatever_the_runs_lack(tmp_path: Path) -> None:
    whole = _summary(tmp_path / "kl_cov")
    short = _summary(tmp_path / "grpo", num_steps=40, stop_after=8)
    alone = list(summary_rows(whole))
    for runs in ([whole, short], [short, whole], [short, whole, short]):
        names = [str(cell) for cell in summary_table([run.name for run in runs], runs).columns[0].cells]
        assert [name for name in names if name in alone] == alone
        assert names.index("  identified") == names.index("ceiling b − a") + 1
        assert len(names) == len(set(names))


def test_whether_the_law_is_identified_is_said_of_every_run(tmp_path: Path) -> None:
    whole = _summary(tmp_path / "grpo")
    law = whole.law("validation")
    assert law.fit is not None and law.fit.identified

    def other(**fields: object) -> RunSummary:
        fitted = law.model_copy(update={"fit": law.fit.model_copy(update=fields)})  # type: ignore[union-attr]  # it is fitted
        return whole.model_copy(update={"laws": [fitted, whole.law("training")]})

    def rows(**fields: object) -> dict[str, str]:
        return summary_rows(other(**fields))

    assert rows()["  identified"] == "yes"
    doubtful = rows(identified=False)
    assert (doubtful["ceiling b − a"], doubtful["  identified"]) == ("not identified", "no")
    assert rows(identified=False, n=2)["  identified"] == "too few points"
    assert rows(ceiling=1.2)["ceiling b − a"] == "not determined *"
    assert "above 100 %: impossible" in _printed(other(ceiling=1.2))
    assert "above 100 %: impossible" not in _printed(whole)
    assert "not identified: no ceiling can be" in _printed(_summary(tmp_path / "clip_cov"))
