"""A hundred hostile strings in every place that takes text from a run: none runs, fetches, or breaks the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from covent.logs import Choice, all_series
from covent.report.page import write_report
from covent.store.reader import Run, read_run
from covent.store.schema import VerifierFaultRow
from tests.browser.conftest import DATA
from tests.browser.hostile import HOSTILE
from tests.support.synthetic import write_run

pytestmark = pytest.mark.browser


def with_texts(run: Run) -> Run:
    """The strings in settings, versions, notes, prompts, answers, verdicts, tokens, alternatives and faults."""
    whole = next(row for row in run.samples if row.alternatives)
    samples = []
    for place, text in enumerate(HOSTILE):
        tokens = [text, "is", text]
        columns = {name: value[:3] for name, value in whole if isinstance(value, list) and name != "group_rewards"}
        told = [[(text, -0.1), ("a", -3.0)]] * 3
        texts = {"prompt": text, "answer": text, "verdict": text, "tokens": tokens, "alternatives": told}
        samples.append(whole.model_copy(update=columns | texts | {"group": place}))
    faults = [
        VerifierFaultRow(
            phase="train", step=0, group=0, sample=place, prompt=text, response=text, verdict=text, reason=text
        )
        for place, text in enumerate(HOSTILE)
    ]
    config = run.header.config | {f"{place} {text}": text for place, text in enumerate(HOSTILE)}
    header = run.header.model_copy(
        update={"config": config, "hardware": HOSTILE[2], "versions": {text: text for text in HOSTILE[:20]}}
    )
    status = run.status.model_copy(update={"state": "failed", "message": " ".join(HOSTILE[:40])})
    parts = {"samples": samples, "verifier_faults": faults, "header": header, "status": status, "notes": HOSTILE}
    return Run(**(vars(run) | parts))


@pytest.fixture(scope="module")
def hostile_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    one = read_run(write_run(folder / "one", "clip_cov", num_steps=30))
    short = read_run(write_run(folder / "short", "grpo", num_steps=2))
    named = [
        replace(short, header=short.header.model_copy(update={"name": text, "config": {"control": text}, "seed": 0}))
        for text in HOSTILE
    ]
    (log,) = all_series([DATA / "run.csv"], Choice())
    few = replace(log, step=log.step[:12], entropy=log.entropy[:12], accuracy=log.accuracy[:12])
    logs = [
        replace(few, name=text, label=text, accuracy_metric=text, entropy_metric=text, warnings=[text])
        for text in (" ".join(HOSTILE[place::8]) for place in range(8))
    ]
    return {
        "one run": write_report([with_texts(one)], folder / "one.html"),
        "a hundred names": write_report(named, folder / "names.html"),
        "logs": write_report([], folder / "logs.html", logs),
    }


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("name", ["one run", "a hundred names", "logs"])
def test_no_string_runs_fetches_or_breaks_the_layout(
    name: str, width: int, hostile_pages: dict[str, Path], opened: Any
) -> None:
    watched = opened(hostile_pages[name], width=width).ready()
    page = watched.page
    watched.draw_everything()
    for details in page.locator("details summary").all()[:8]:
        if details.is_visible():
            details.click()
    if name == "one run":
        for _ in range(5):
            for mode in ("covariance", "chosen"):
                page.select_option("[name=mode]", mode)
            for place in (0, 5, 11):
                token = page.locator(".token").nth(place)
                if token.is_visible():
                    token.hover(force=True)
            page.locator("#rollouts .next").click(force=True)
        page.evaluate("location.hash = 'run=0&step=7'")
        page.wait_for_selector("#step:not([hidden])")
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelectorAll('main img, main iframe, main object, main link, base').length") == 0
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], [onclick], [onfocus]').length") == 0
    assert page.locator("footer").bounding_box()["width"] > 0


def test_the_watch_would_notice(opened: Any, tmp_path: Path) -> None:
    """The control: without escaping and without a policy the same strings do run and do fetch."""
    bad = tmp_path / "bad.html"
    bad.write_text("<meta charset=utf-8><title>x</title>" + "".join(HOSTILE[:70]), "utf-8")
    watched = opened(bad)
    watched.page.wait_for_timeout(500)
    assert any(fault.startswith("dialog") for fault in watched.faults)
    assert any(fault.startswith("request") for fault in watched.faults)
    watched.faults.clear()


@pytest.mark.parametrize("damage", ["torn last line", "no status", "interrupted", "no rows"])
def test_a_half_written_run_gives_a_page_with_a_banner(damage: str, opened: Any, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", num_steps=40, stop_after=17)
    if damage == "torn last line":
        with (folder / "updates.jsonl").open("a") as file:
            file.write('{"update": 68, "st')
    elif damage == "no status":
        (folder / "status.json").unlink()
    elif damage == "no rows":
        for path in folder.glob("*.jsonl"):
            path.unlink()
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"step": 0}))
    page = opened(write_report([read_run(folder)], tmp_path / "page.html")).ready().page
    assert page.locator(".banner[role=note]").count() >= 1
    assert "interrupted" in page.locator(".banner").first.inner_text()
