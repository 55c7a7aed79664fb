"""The page in a browser: everything is there and works, nothing leaves it, and everybody can read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from covent.report.page import write_report
from covent.store.reader import read_run
from tests.browser.conftest import Watched, until

pytestmark = pytest.mark.browser

SLOTS = """() => [...document.querySelectorAll('#law .plot, #forecast .plot')]
    .filter((plot) => plot.dataset.run === '0')
    .flatMap((plot) => plot.data.filter((trace) => trace.meta?.slot))
    .map((trace) => [trace.meta.slot, [...trace.y]])"""

PLACE_OF_42 = """(plot) => {
    const at = plot.data[2].x.indexOf(42), { xaxis, yaxis } = plot._fullLayout;
    return [xaxis.d2p(42) + xaxis._offset, yaxis.d2p(plot.data[2].y[at]) + yaxis._offset];
}"""

DRAWN_FROM = {
    "demo": {
        *("curves", "law", "forecast", "change", "agreement", "attribution", "covariance", "histogram", "tail"),
        *("control", "polarity", "tests", "groups", "verifier"),
    },
    "trl": {"curves", "law", "covariance", "histogram", "tail", "control", "polarity", "groups", "verifier"},
    "csv": {"curves", "law", "forecast"},
}
"""Sections that must have data on each page; the others must say what they lack."""


def plots_of(watched: Watched, section: str) -> list[int]:
    """Points of each plot of a section, as drawn."""
    found: list[int] = watched.page.evaluate(
        """(section) => [...document.querySelectorAll(`#${section} .plot`)].map((plot) =>
            plot.querySelectorAll("path.js-line, path.point").length)""",
        section,
    )
    return found


@pytest.mark.parametrize("name", DRAWN_FROM)
def test_every_section_is_there_with_its_data_or_says_what_it_lacks(
    name: str, pages: dict[str, Path], opened: Any
) -> None:
    watched = opened(pages[name]).ready()
    watched.draw_everything()
    sections = watched.page.evaluate("[...document.querySelectorAll('main > section')].map((one) => one.id)")
    assert DRAWN_FROM["demo"] <= set(sections)
    for section in DRAWN_FROM["demo"]:
        drawn = plots_of(watched, section)
        if section in DRAWN_FROM[name]:
            assert drawn and all(drawn), f"{section}: {drawn}"
        elif not drawn:
            assert "Not here" in watched.page.locator(f"#{section}").inner_text()
    # The runs of the demo were tested before and after and the log has an accuracy; TRL's run has its reward alone.
    assert watched.page.locator("#verdict .answer").count() == {"demo": 5 * 3, "csv": 5, "trl": 4}[name]
    for question in ("Phase", "Entropy spent", "Ceiling", "What to do"):
        assert question in watched.page.locator("#verdict").inner_text()
    assert watched.page.locator("#verdict .sure").count() == watched.page.locator("#verdict .answer").count()
    has_rollouts = watched.page.locator("#rollouts .sample").count()
    assert bool(has_rollouts) == (name != "csv")


def test_the_slider_moves_fit_and_forecast_and_says_the_error(pages: dict[str, Path], opened: Any) -> None:
    watched = opened(pages["demo"]).ready()
    watched.draw_everything()
    sliders = watched.page.evaluate("JSON.parse(document.getElementById('sliders').textContent)")
    told = watched.page.locator("#forecast .prefix-told").first
    for percent in (30, 60, 90):
        watched.page.locator("#law input.prefix").fill(str(percent))
        position = next(each for each in sliders["0"]["positions"] if each["percent"] == percent)
        assert told.locator(".error-made").inner_text() == position["error"]
        assert position["text"][:24] in told.inner_text()
        for section in ("law", "forecast"):
            assert watched.page.locator(f"#{section} output").first.inner_text() == f"{percent} %"
        drawn = watched.page.evaluate(SLOTS)
        assert len(drawn) == 7
        for slot, y in drawn:
            assert y == position["slots"][slot]["y"], slot


def test_rollouts_are_sorted_and_filtered(pages: dict[str, Path], opened: Any, demo: list[Path]) -> None:
    watched = opened(pages["demo"]).ready()
    page = watched.page
    rows = [json.loads(line) for run in demo for line in (run / "samples.jsonl").read_text("utf-8").splitlines()]
    section = page.locator("#rollouts")
    assert section.get_attribute("data-shown") == str(len(rows))
    assert page.locator(".sample").count() == 20

    def shown(name: str) -> list[float]:
        # Not the inner text: what is not yet on the screen has none.
        found = page.locator(".sample-head").all_text_contents()
        told = [re.search(rf"{name} (−?[\d.]+)", text) for text in found]
        return [float(match[1].replace("−", "-")) for match in told if match is not None]

    page.select_option("[name=order]", "covariance")
    page.check("[name=descending]")
    truth = sorted((sum(row["covariances"]) / len(row["covariances"]) for row in rows), reverse=True)[:20]
    assert shown("mean covariance") == pytest.approx(truth, rel=5e-3)
    page.select_option("[name=order]", "disagreement")
    assert shown("disagreement")[0] == 1.0
    for name, field, wanted in (("reward-from", "reward", 1.0), ("disagreement-from", None, 1.0)):
        page.click("text=Show all")
        page.fill(f"[name={name}]", str(wanted))
        if field is None:
            truth_count = sum(
                sum(reward != row["reward"] for reward in row["group_rewards"]) == len(row["group_rewards"]) - 1
                for row in rows
            )
        else:
            truth_count = sum(row[field] >= wanted for row in rows)
        assert 0 < truth_count < len(rows)
        assert section.get_attribute("data-shown") == str(truth_count)
    page.click("text=Show all")
    page.select_option("[name=verdict]", "wrong")
    page.select_option("[name=run]", "1")
    wrong = [line for line in (demo[1] / "samples.jsonl").read_text("utf-8").splitlines() if '"wrong"' in line]
    assert section.get_attribute("data-shown") == str(len(wrong))
    page.fill("[name=covariance-from]", "1e9")
    assert "No rollout fits" in section.inner_text()


def test_tokens_are_coloured_and_tell_their_values(pages: dict[str, Path], opened: Any, demo: list[Path]) -> None:
    page = opened(pages["demo"]).ready().page
    row = json.loads((demo[0] / "samples.jsonl").read_text("utf-8").splitlines()[0])
    first = page.locator(".tokens").first
    assert first.locator(".token").all_inner_texts() == row["tokens"]
    colours = {}
    for mode in page.locator("[name=mode] option").evaluate_all("(all) => all.map((one) => one.value)"):
        page.select_option("[name=mode]", mode)
        colours[mode] = first.locator(".token").evaluate_all("(all) => all.map((one) => one.style.background)")
    assert (len(colours) == 10 and len({tuple(value) for value in colours.values()}) == 10) or not any(row["cut"])
    place = max(range(len(row["tokens"])), key=lambda at: row["entropies"][at])
    first.locator(".token").nth(place).hover()
    told = page.locator("#token-card").inner_text()
    assert f"{row['entropies'][place]:.3g}" in told and "Most likely here" in told
    assert all(token in told for token, _ in row["alternatives"][place])
    page.keyboard.press("Escape")
    assert page.locator("#token-card").is_hidden()
    first.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert page.locator("#token-card .token-title").inner_text() == row["tokens"][-2]


def test_a_point_leads_to_its_step_and_its_rollouts(pages: dict[str, Path], opened: Any, demo: list[Path]) -> None:
    watched = opened(pages["demo"]).ready()
    page = watched.page
    page.locator("#covariance").scroll_into_view_if_needed()
    page.wait_for_selector("#covariance .plot .main-svg")
    plot = page.locator("#covariance .plot").first
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    place = plot.evaluate(PLACE_OF_42)
    page.mouse.move(box["x"] + place[0], box["y"] + place[1])
    # A click means the point that the pointer was last found to be at, which takes a moment.
    until(page, "document.querySelector('#covariance .plot')._hoverdata?.[0]?.x === 42")
    page.mouse.click(box["x"] + place[0], box["y"] + place[1])
    page.wait_for_selector("#step:not([hidden])")
    assert page.evaluate("location.hash") == "#run=0&step=42"
    lines = (demo[0] / "steps.jsonl").read_text("utf-8").splitlines()
    row = next(row for row in map(json.loads, lines) if row["step"] == 42)
    entropy = row["entropy"]["sum"] / row["entropy"]["count"]
    assert f"{float(f'{entropy:.4g}'):g}" in page.locator("#step").inner_text()
    steps = set(page.locator(".sample-head a").all_text_contents())
    assert steps == {"step 42"}
    # From a table, by keyboard.
    page.locator("#groups details").first.locator("summary").click()
    page.locator("#groups details a").nth(7).press("Enter")
    until(page, "document.querySelector('#step h2').textContent === 'Step 7 of grpo'")


def test_light_and_dark_and_print(pages: dict[str, Path], opened: Any) -> None:
    watched = opened(pages["demo"], color_scheme="light").ready()
    page = watched.page
    page.locator("#curves").scroll_into_view_if_needed()
    page.wait_for_selector("#curves .plot .main-svg")

    def colours() -> tuple[str, str]:
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("document.querySelector('#curves .plot').layout.font.color")
        return paper, ink

    light = colours()
    page.emulate_media(color_scheme="dark")
    dark = colours()
    assert light[0] != dark[0] and light[1] != dark[1]
    page.click("#theme-switch")
    assert colours() == light
    page.click("#theme-switch")
    page.wait_for_selector("html[data-plotly]")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert colours() == ("rgb(255, 255, 255)", light[1]), "paper is white"
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('#curves .plot, #law .plot')].map((plot) =>
            [plot, plot.querySelector('.main-svg')].map((one) => one.getBoundingClientRect().toJSON()))"""
    )
    assert boxes
    for box, image in boxes:
        assert image["height"] <= box["height"] + 1 and image["width"] <= box["width"] + 1
    assert page.locator("nav").is_hidden() and page.locator("#rollouts form").is_hidden()
    assert page.locator("#verdict").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", DRAWN_FROM)
def test_axe_finds_no_serious_fault(name: str, scheme: str, pages: dict[str, Path], opened: Any, axe: str) -> None:
    watched = opened(pages[name], color_scheme=scheme).ready()
    watched.draw_everything()
    watched.page.locator("details[data-table] summary").first.click()
    watched.page.evaluate(axe)
    found = watched.page.evaluate("axe.run({resultTypes: ['violations']})")
    told = [f"{fault['impact']} {fault['id']}: {fault['nodes'][0]['html'][:200]}" for fault in found["violations"]]
    assert [line for line in told if line.startswith(("serious", "critical"))] == []


@pytest.mark.parametrize("width", [320, 400, 700, 2400])
@pytest.mark.parametrize("name", DRAWN_FROM)
def test_nothing_is_wider_than_the_window(name: str, width: int, pages: dict[str, Path], opened: Any) -> None:
    """700 is 1400 at a zoom of 200 %."""
    page = opened(pages[name], width=width).ready().page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").bounding_box()["width"] > 0.5 * min(width, 1180)


def test_a_table_saves_as_csv(pages: dict[str, Path], opened: Any, demo: list[Path]) -> None:
    page = opened(pages["demo"], accept_downloads=True).ready().page
    page.locator("#curves details").first.locator("summary").click()
    with page.expect_download() as saved:
        page.locator("#curves").get_by_text("Save as CSV").first.click()
    lines = Path(saved.value.path()).read_text("utf-8").splitlines()
    rows = [json.loads(line) for run in demo for line in (run / "steps.jsonl").read_text("utf-8").splitlines()]
    assert lines[0].startswith("run,step,") and len(lines) == 1 + len(rows)
    first = rows[0]["entropy"]
    assert float(lines[1].split(",")[2]) == pytest.approx(first["sum"] / first["count"], rel=1e-5)


def test_a_live_page_loads_itself_again_and_comes_back_as_it_was_left(
    opened: Any, demo: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "live.html"
    write_report([read_run(demo[0])], path, reload_s=3)
    page = opened(path, color_scheme="light").ready().page
    page.click("#theme-switch")
    page.select_option("[name=mode]", "covariance")
    page.select_option("[name=verdict]", "wrong")
    shown = page.locator("#rollouts").get_attribute("data-shown")
    page.locator("#law input.prefix").fill("60")
    page.locator("#groups details summary").first.click()
    page.evaluate("document.getElementById('tail').scrollIntoView(); window.scrollBy(0, 37)")
    place = page.evaluate("document.getElementById('tail').getBoundingClientRect().top")
    # The run ends: the page that is loaded next does not load itself again.
    write_report([read_run(demo[0])], path)
    until(page, "document.documentElement.dataset.plotly && !document.getElementById('live')")
    assert page.evaluate("document.getElementById('tail').getBoundingClientRect().top") == pytest.approx(place, abs=2)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator("#law input.prefix").input_value() == "60"
    assert page.locator("#groups details").first.get_attribute("open") is not None
    page.locator("#rollouts").scroll_into_view_if_needed()
    page.wait_for_selector("#rollouts[data-ready]")
    until(page, "(shown) => document.getElementById('rollouts').dataset.shown === shown", shown)
    assert page.locator("[name=mode]").input_value() == "covariance"
    loaded = page.evaluate("performance.timeOrigin")
    page.wait_for_timeout(6000)
    assert page.evaluate("performance.timeOrigin") == loaded


def test_a_live_page_stays_as_it_is_when_asked_to(opened: Any, demo: list[Path], tmp_path: Path) -> None:
    page = opened(write_report([read_run(demo[0])], tmp_path / "live.html", reload_s=5)).page
    page.click("#live button")
    loaded = page.evaluate("performance.timeOrigin")
    page.wait_for_timeout(9000)
    assert page.evaluate("performance.timeOrigin") == loaded
    page.click("#live button")
    until(page, "(loaded) => performance.timeOrigin > loaded", loaded)
