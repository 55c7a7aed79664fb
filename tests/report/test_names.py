"""Long names are shortened wherever they are shown, stay apart, and are there in full for those who point at them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from covent.logs.results import all_series
from covent.logs.series import Choice
from covent.report.compare import labels
from covent.report.names import MOST, all_short, short
from covent.report.page import page
from covent.store.reader import Run

LONG = "a" * 3000


def named(run: Run, name: str) -> Run:
    return Run(**(vars(run) | {"header": run.header.model_copy(update={"name": name})}))


@pytest.fixture(scope="module")
def light(runs: dict[str, Run]) -> Run:
    return Run(**(vars(runs["grpo"]) | {"updates": [], "samples": [], "verdicts": []}))


def test_only_long_names_are_shortened() -> None:
    assert short("x" * MOST) == "x" * MOST
    assert len(short("x" * (MOST + 1))) == MOST and "…" in short("x" * (MOST + 1))
    assert short(f"{LONG} lr=1e-6").endswith(" lr=1e-6")


def test_names_stay_apart_and_equal_ones_equal() -> None:
    first, second = f"{LONG}b{LONG}", f"{LONG}c{LONG}"
    found = all_short([first, second, first, "grpo"])
    assert found[0] == found[2] != found[1] and found[3] == "grpo"
    assert max(map(len, found)) <= MOST + 4
    assert short(first) == short(second)


def test_labels_of_long_names_are_unique(light: Run) -> None:
    found = labels([named(light, f"{LONG}b{LONG}"), named(light, f"{LONG}c{LONG}")])
    assert len(set(found)) == 2 and max(map(len, found)) < 200


def test_a_page_shows_a_long_name_short_and_whole_in_a_title(light: Run) -> None:
    text = page([named(light, LONG)])
    header = text[text.index("<header>") : text.index("</header>")]
    shown = re.sub("<[^>]*>", " ", header)
    assert short(LONG) in shown and "a" * (MOST + 1) not in shown
    assert f'<bdi title="{LONG}">{short(LONG)}</bdi>' in header
    # The control: a name that fits has no title.
    plain = page([light])
    assert "<bdi>grpo</bdi>" in plain and "<bdi title=" not in plain


def test_the_same_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / f"{'l' * 200}.csv"
    rows = [f"{step},{1.2 * 0.93**step},{0.3 + 0.01 * step}" for step in range(20)]
    log.write_text("step,entropy,val/acc\n" + "\n".join(rows) + "\n", encoding="utf-8")
    text = page([], all_series([log], Choice(metric="val/acc", entropy="entropy")))
    header = text[text.index("<header>") : text.index("</header>")]
    assert "l" * (MOST + 1) not in re.sub("<[^>]*>", " ", header)
    assert f'title="{"l" * 200}' in header
