"""A real browser, pages that were really made, and a record of everything a page must not do."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from covent.logs import Choice, all_series
from covent.report.page import write_report
from covent.store.reader import read_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
PATIENCE_MS = 120_000
"""On a machine that is busy; how fast a page opens is a test of its own."""

DATA = Path(__file__).parent / "data"


def needed(what: str, how: str) -> str:
    """The name of a file that these tests cannot do without; they fail, and say how to get it, where there is none."""
    named = os.environ.get(what, "")
    if not named or not Path(named).exists():
        pytest.fail(f"The browser tests need {what}, which is '{named}'. {how}")
    return named


def chromium() -> str:
    """Where a system Chromium is."""
    found = os.environ.get("COVENT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    found = found or next((name for name in MAC if Path(name).exists()), None)
    if found is None:
        pytest.fail(
            "The browser tests need Chromium or Chrome, and none was found. Install one (Debian, Ubuntu: apt install"
            " chromium; macOS: brew install --cask chromium), or name it: COVENT_CHROMIUM=/path/to/it make test-report"
        )
    return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container often has no user namespaces to make Chromium's own sandbox of.
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


def until(page: Any, true: str, given: object = None) -> None:
    """Wait until an expression of the page is true. Playwright's own waiting needs eval, which the page forbids."""
    ends = time.monotonic() + PATIENCE_MS / 1000
    while not _is_true(page, true, given):
        assert time.monotonic() < ends, f"never true: {true}"
        page.wait_for_timeout(50)


def _is_true(page: Any, true: str, given: object) -> bool:
    from playwright.sync_api import Error

    try:
        return bool(page.evaluate(true, given))
    except Error as error:
        # The page is just being loaded again.
        if "context" not in str(error):
            raise
        return False


@dataclass
class Watched:
    """A page of the browser, and what went wrong on it."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)

    def ready(self) -> Watched:
        """With its scripts run and its rollouts unpacked, where it has any."""
        self.page.wait_for_selector("html[data-ready]")
        if self.page.locator("#rollout-data").count():
            self.page.locator("#rollouts").scroll_into_view_if_needed()
            self.page.wait_for_selector("#rollouts[data-ready]")
        return self

    def draw_everything(self) -> None:
        """All plots, as for print."""
        self.page.wait_for_selector("html[data-plotly]")
        self.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        self.page.evaluate("window.dispatchEvent(new Event('afterprint'))")


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """A function that opens a file; at the end of the test no page may have had an error, a request or a dialog."""
    contexts, pages = [], []

    def open_file(path: Path, *, place: str = "", width: int = 1400, height: int = 900, **options: Any) -> Watched:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}, **options))
        contexts[-1].set_default_timeout(PATIENCE_MS)
        page = contexts[-1].new_page()
        watched = Watched(page, path.as_uri())

        def dialog(shown: Any) -> None:
            watched.faults.append(f"dialog: {shown.message}")
            shown.dismiss()

        def request(asked: Any) -> None:
            if asked.url.partition("#")[0] != watched.url and not asked.url.startswith(("blob:", "data:")):
                watched.faults.append(f"request: {asked.url}")

        page.on("dialog", dialog)
        page.on("request", request)
        page.on("pageerror", lambda error: watched.faults.append(f"error: {error}"))
        page.on("console", lambda said: watched.faults.append(f"console: {said.text}"))
        page.goto(watched.url + place)
        pages.append(watched)
        return watched

    yield open_file
    for context in contexts:
        context.close()
    assert [fault for watched in pages for fault in watched.faults] == []


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    return Path(needed("COVENT_AXE", "`make test-report` fetches it: npm install axe-core.")).read_text("utf-8")


@pytest.fixture(scope="session")
def demo() -> list[Path]:
    """The run folders of a real demo."""
    folder = Path(needed("COVENT_DEMO", "`make test-report` makes one: covent demo --out FOLDER."))
    return [folder / name for name in ("grpo", "clip_cov", "kl_cov")]


@pytest.fixture(scope="session")
def pages(demo: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page about a real demo, one about a run inside TRL, and one about a CSV of another engine."""
    folder = tmp_path_factory.mktemp("pages")
    return {
        "demo": write_report([read_run(run) for run in demo], folder / "demo.html"),
        "trl": write_report([read_run(DATA / "trl_run")], folder / "trl.html"),
        "csv": write_report([], folder / "csv.html", all_series([DATA / "run.csv"], Choice())),
    }
