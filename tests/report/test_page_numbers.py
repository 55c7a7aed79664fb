"""Numbers of the page, read out of its HTML, against the JSON Lines of the run folder, computed in plain Python."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest

from covent.readings import COVARIANCE_EDGES
from covent.report.page import page
from covent.store.reader import Run, read_run
from tests.support.synthetic import write_run

SIX_DIGITS = 6e-6
"""Relative: what six significant digits leave open."""


class Parts(HTMLParser):
    """The JSON of the page by element, and its words by the class they stand in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.json: dict[str, Any] = {}
        self.says: list[str] = []
        self._open = ""
        self.feed(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._open = ""
        if tag == "script" and found.get("type") == "application/json":
            self._open = found.get("id") or ""
        elif found.get("class") == "says":
            self._open = "says"

    def handle_data(self, data: str) -> None:
        if self._open == "says":
            self.says.append(data.replace("\u00a0", " "))
        elif self._open:
            self.json[self._open] = json.loads(data)
        self._open = ""


@pytest.fixture(scope="module")
def parts(runs: dict[str, Run]) -> Parts:
    return Parts(page([runs["clip_cov"]]))


def rows(run: Run, kind: str) -> list[dict[str, Any]]:
    """The raw rows, not through covent."""
    return [json.loads(line) for line in (Path(run.folder) / f"{kind}.jsonl").read_text("utf-8").splitlines()]


def trace(parts: Parts, figure: str, name: str) -> dict[str, Any]:
    """The strong line of that name."""
    found = [one for one in parts.json[f"plot-{figure}-figure"]["data"] if one["name"] == name]
    return found[-1]


def close(found: Iterable[float], truth: Iterable[float]) -> bool:
    return list(found) == pytest.approx(list(truth), rel=SIX_DIGITS, abs=1e-12)


def value(reading: dict[str, Any]) -> float:
    return float(reading["sum"] / reading["count"])


def test_the_curves_are_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    steps = rows(runs["clip_cov"], "steps")
    entropies = [value(row["entropy"]) for row in steps]
    table = parts.json["plot-curves-1-table"]
    assert close([row[2] for row in table["rows"]], entropies)
    smooth = [fmean(entropies[max(0, place - 4) : place + 1]) for place in range(len(entropies))]
    assert close(trace(parts, "curves-1", "clip_cov")["y"], smooth)
    assert not close(trace(parts, "curves-1", "clip_cov")["y"], entropies)
    validation = [row for row in rows(runs["clip_cov"], "evaluations") if row["split"] == "validation"]
    drawn = trace(parts, "curves-2", "clip_cov, validation avg@4")
    assert drawn["x"] == [row["step"] for row in validation]
    assert close(drawn["y"], [sum(row["num_right"]) / (128 * row["num_samples"]) for row in validation])


def test_the_law_is_a_least_squares_line_in_the_exponential(parts: Parts, runs: dict[str, Run]) -> None:
    run = runs["clip_cov"]
    entropies = [value(row["entropy"]) for row in rows(run, "steps")]
    known = {row["step"]: value_of_avg(row) for row in rows(run, "evaluations") if row["split"] == "validation"}
    blocks = [(fmean(entropies[5 * b : 5 * b + 5]), known[5 * b + 2]) for b in range(32)]
    x, y = np.exp([h for h, _ in blocks]), np.array([r for _, r in blocks])
    slope, b = np.polyfit(x, y, 1)
    law = trace(parts, "law-1", "law")
    assert close(law["y"], [b + slope * math.exp(h) for h in law["x"]])
    ceiling = trace(parts, "law-1", "ceiling")["y"][0] if parts.says[3][0].isdigit() else None
    assert ceiling is None or ceiling == pytest.approx(b + slope, rel=SIX_DIGITS)
    points = parts.json["plot-law-1-table"]["rows"]
    assert close([row[1] for row in points], [h for h, _ in blocks])


def value_of_avg(row: dict[str, Any]) -> float:
    return float(sum(row["num_right"]) / (row["num_problems"] * row["num_samples"]))


def test_the_verdict_is_that_of_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    entropies = [value(row["entropy"]) for row in rows(runs["clip_cov"], "steps")]
    spent = 1 - fmean(entropies[-5:]) / entropies[0]
    assert parts.says[2] == f"{100 * spent:.0f} % spent"
    tests = [value_of_avg(row) for row in rows(runs["clip_cov"], "evaluations") if row["split"] == "test"]
    assert parts.says[1] == f"{100 * tests[0]:.1f} % → {100 * tests[-1]:.1f} %"
    assert parts.says[0] in ("Spending", "Plateau")


def test_entropy_changes_covariances_and_polarity_are_sums_of_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    updates = rows(runs["clip_cov"], "updates")
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in updates:
        by_step.setdefault(row["step"], []).append(row)
    total, observed, accounted = 0.0, [], []
    other = 0.0
    for each in by_step.values():
        total += sum(row["probe"]["observed"] for row in each)
        other += sum(row["probe"]["accounted"] for row in each)
        observed.append(total)
        accounted.append(other)
    assert close(trace(parts, "change-1", "observed")["y"], observed)
    assert close(trace(parts, "change-1", "Lemma 1")["y"], accounted)
    p99 = [median(row["covariance"]["quantiles"]["p99"] for row in each) for each in by_step.values()]
    assert close(trace(parts, "covariance-1", "p99")["y"], p99)
    held = [fmean(row["covariance"]["positive_shares"]["0.02"] for row in each) for each in by_step.values()]
    assert close(trace(parts, "tail-1", "top 2.0 %")["y"], held)
    counts = np.array([row["covariance"]["histogram"] for row in updates if 3 * row["step"] // 160 == 0]).sum(axis=0)
    drawn = trace(parts, "histogram-1", "first third")["y"]
    assert len(drawn) == len(COVARIANCE_EDGES) + 1
    assert close([share or 0.0 for share in drawn], (counts / counts.sum()).tolist())
    raising = [sum(r["polarity"]["raising"] for r in each) / (816 * len(each)) for each in by_step.values()]
    assert close([row[2] for row in parts.json["plot-polarity-1-table"]["rows"]], raising)
    touched = [sum(r["control"]["num_selected"] for r in each) / (816 * len(each)) for each in by_step.values()]
    assert close([row[3] for row in parts.json["plot-control-1-table"]["rows"]], touched)


def test_pass_at_every_k_is_the_share_of_subsets_with_a_right_one(parts: Parts, runs: dict[str, Run]) -> None:
    tests = [row for row in rows(runs["clip_cov"], "evaluations") if row["split"] == "test"]
    for row, name in zip(tests, ("start", "clip_cov"), strict=True):
        truth = [
            fmean(1 - math.prod((32 - right - i) / (32 - i) for i in range(k)) for right in row["num_right"])
            for k in range(1, 33)
        ]
        drawn = [each for each in parts.json["plot-tests-2-table"]["rows"] if each[0] == name]
        assert close([each[2] for each in drawn], truth)


def test_groups_and_verdicts_are_those_of_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    steps = rows(runs["clip_cov"], "steps")
    table = parts.json["plot-groups-1-table"]["rows"]
    assert close([row[1] for row in table], [row["num_all_right"] / row["num_groups"] for row in steps])
    assert close([row[3] for row in table], [row["num_kept_groups"] / row["num_groups"] for row in steps])
    health = parts.json["plot-verifier-1-table"]["rows"]
    assert close([row[2] for row in health], [value(row["unparsable"]) for row in steps])
    attributed = rows(runs["clip_cov"], "attributions")
    rest = sum(row["observed"] - sum(row["parts"].values()) for row in attributed)
    assert trace(parts, "attribution-1", "unexplained rest")["y"][-1] == pytest.approx(rest, rel=1e-4)


def test_the_slider_tells_the_error_that_was_made(parts: Parts, runs: dict[str, Run]) -> None:
    """The forecast that the page draws, scored again here against the raw evaluations."""
    known = {row["step"]: value_of_avg(row) for row in rows(runs["clip_cov"], "evaluations") if row["split"] != "test"}
    for position in parts.json["sliders"]["0"]["positions"]:
        drawn = position["slots"]["forecast"]
        # A point is drawn where it is known, at the end of its block, and was evaluated in the middle.
        observed = [known[round(step) - 2] for step in drawn["x"]]
        error = 100 * (fmean(drawn["y"][-3:]) - fmean(observed[-3:]))
        told = float(position["error"].split()[0].replace("−", "-"))
        assert told == pytest.approx(error, abs=0.051)
        assert all(step >= position["percent"] / 100 * 160 for step in drawn["x"])


def words_of(text: str, start: str) -> str:
    """What a reader sees from a place of the page on, in one line."""
    shown = re.sub(r"<script.*?</script>|<style.*?</style>", "", text[text.index(start) :], flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).split())


def test_every_top_share_and_every_mean_within_it_is_that_of_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in rows(runs["clip_cov"], "updates"):
        by_step.setdefault(row["step"], []).append(row["covariance"])
    columns = parts.json["plot-tail-1-table"]["columns"]
    names = {"0.0002": "0.020 %", "0.002": "0.20 %", "0.02": "2.0 %", "0.2": "20 %", "0.5": "50 %"}
    for share, name in names.items():
        for kind, key in (("top", "positive_shares"), ("mean covariance, top", "top_means")):
            known = [[one[key][share] for one in each if one[key].get(share) is not None] for each in by_step.values()]
            truth = [fmean(each) if each else None for each in known]
            place = columns.index(f"{kind} {name}")
            drawn = [row[place] for row in parts.json["plot-tail-1-table"]["rows"]]
            assert [value is None for value in drawn] == [value is None for value in truth]
            assert close([x for x in drawn if x is not None], [x for x in truth if x is not None])


def test_cells_of_the_glance_and_of_the_run_card_are_those_of_the_files(runs: dict[str, Run]) -> None:
    run = runs["clip_cov"]
    text = page([run])
    entropies = [value(row["entropy"]) for row in rows(run, "steps")]
    tests = [row for row in rows(run, "evaluations") if row["split"] == "test"]
    averages = [100 * value_of_avg(row) for row in tests]
    glance = words_of(text, '<section id="glance">')[:400]
    assert f"{entropies[0]:.3f} → {fmean(entropies[-5:]):.4f}" in glance
    assert f"{averages[0]:.1f} → {averages[1]:.1f} %" in glance
    assert f"{100 * fmean(entropies[-5:]) / entropies[0]:.0f} %" in glance
    header = json.loads((Path(run.folder) / "run.json").read_text("utf-8"))
    card = words_of(text, '<section id="settings">')
    for name in ("created", "seed", "threads", "commit", "hardware"):
        assert f"{name} {header[name]}" in card
    for name, version in header["versions"].items():
        assert f"{name} {version}" in card


def test_the_agreement_is_a_correlation_of_the_rows(parts: Parts, runs: dict[str, Run]) -> None:
    probes = [row["probe"] for row in rows(runs["clip_cov"], "updates")]
    observed, accounted = ([probe[name] for probe in probes] for name in ("observed", "accounted"))
    truth = float(np.corrcoef(observed, accounted)[0, 1])
    told = words_of(page([runs["clip_cov"]]), '<section id="happened">')
    found, *_ = re.findall(r"Lemma 1 accounts .*?correlation (−?[\d.]+)", told)
    assert float(found.replace("−", "-")) == pytest.approx(truth, abs=5.1e-4)


def test_methods_are_means_over_their_seeds(tmp_path: Path) -> None:
    """Of three runs the interquartile mean is the mean; the costs are sums of the rows."""
    folders = [
        write_run(tmp_path / f"{m}-{seed}", m, seed, num_steps=20) for m in ("grpo", "clip_cov") for seed in range(3)
    ]
    shown = [read_run(folder) for folder in folders]
    text = page(shown)
    table = words_of(text, '<section id="methods">')
    for at, method in ((0, "grpo"), (3, "clip_cov")):
        ends, tested, sampled = [], [], []
        for run in shown[at : at + 3]:
            steps = rows(run, "steps")
            ends.append(fmean(value(row["entropy"]) for row in steps[-5:]))
            tested.append(value_of_avg([row for row in rows(run, "evaluations") if row["split"] == "test"][-1]))
            sampled.append(sum(row["reward"]["count"] for row in steps))
        (row,) = re.findall(rf"\b{method} 3 (0\.\d+) \[.*?\] ([\d.]+) % \[", table)
        assert float(row[0]) == pytest.approx(fmean(ends), rel=6e-3)
        assert float(row[1]) == pytest.approx(100 * fmean(tested), abs=0.051)
        assert f"{fmean(sampled):,.0f}".replace(",", " ") in table
        assert "Only 3 runs of a method: leads, not results." in words_of(text, "<h1>")
        assert f"{method} over 3 runs ends with entropy {row[0]} nats" in words_of(text, "<h1>")
    assert "all 3 runs of clip_cov" in words_of(text, "<h1>")[:200]


def test_every_table_says_what_it_holds(runs: dict[str, Run]) -> None:
    """What is no quantity of the vertical axis has a name of its own, and units stand where the axis has another."""
    found = re.findall(r'<script type="application/json" id="[^"]*-table">(.*?)</script>', page(list(runs.values())))
    tables = [json.loads(text) for text in found]
    by_anchor = {table["anchor"]: table for table in tables}
    assert by_anchor["law"]["title"].endswith(": points of the law")
    assert by_anchor["law"]["columns"] == ["known at step", "entropy H, nats", "R, validation avg@4"]
    assert "foretold" in by_anchor["forecast"]["title"] and "forecast − observed" in by_anchor["forecast"]["columns"]
    assert by_anchor["accuracy"]["columns"][-1] == "validation avg@4"
    assert by_anchor["change"]["title"].endswith("entropy change since the start on the probe states, nats")
    assert by_anchor["agreement"]["title"].endswith("of each rollout step on the probe states, nats")
    # By another route: the sum of the steps' changes is the change since the start.
    for change, each in zip(
        [table for table in tables if table["anchor"] == "change"],
        [table for table in tables if table["anchor"] == "agreement"],
        strict=True,
    ):
        assert sum(row[1] for row in each["rows"]) == pytest.approx(change["rows"][-1][1], rel=1e-3)
        assert each["rows"][-1][1] != pytest.approx(change["rows"][-1][1], rel=1e-3)
    # A table whose columns are what the axis says keeps its title.
    assert by_anchor["entropy"]["title"] == "Policy entropy: nats"
