"""The page as a browser would see it: complete, closed to the network, and deaf to hostile text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from covent.errors import ConfigError
from covent.logs import Choice, all_series
from covent.report.page import page, write_page, write_report
from covent.report.tokens import packed_rollouts
from covent.store.reader import Run, read_run
from tests.report.test_tokens import unpacked
from tests.support.synthetic import write_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&lt;b&gt;\"'{{7*7}}\u2028"
SECTIONS = [
    *("verdict", "happened", "curves", "law", "forecast", "change", "agreement", "attribution", "covariance"),
    *("histogram", "tail", "control", "polarity", "tests", "groups", "verifier", "rollouts", "numbers", "settings"),
]


class Reader(HTMLParser):
    """Collects what a page holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[tuple[str, str]] = []
        self.policy = ""
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self._kind: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]
        if found.get("id"):
            self.ids.append(found["id"] or "")
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        if tag == "script":
            self._kind = found.get("type") or "text/javascript"
            self.scripts.append((self._kind, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._kind = None

    def handle_data(self, data: str) -> None:
        if self._kind is None:
            self.text += data
        else:
            self.scripts[-1] = (self._kind, self.scripts[-1][1] + data)


@pytest.fixture(scope="module")
def reader(runs: dict[str, Run]) -> Reader:
    return Reader(page(list(runs.values())))


def test_every_section_is_there_and_every_id_once(reader: Reader) -> None:
    assert [anchor for anchor in SECTIONS if anchor not in reader.ids] == []
    assert len(reader.ids) == len(set(reader.ids))
    inner = [link.removeprefix("#") for link in reader.links if link.startswith("#")]
    assert set(inner) <= set(reader.ids)
    assert "Entropy collapsed in grpo" in reader.text or "Entropy fell in" in reader.text


def test_nothing_is_fetched_and_only_our_scripts_may_run(reader: Reader) -> None:
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert not reader.handlers
    # The form of filters has nowhere to go: no action, and the policy forbids any.
    assert reader.tags.isdisjoint({"iframe", "object", "embed", "base", "img"})
    assert "form-action 'none'" in reader.policy
    running = [text for kind, text in reader.scripts if kind == "text/javascript"]
    assert len(running) == 3
    # Plotly lies there compressed; what comes out of it may run too.
    plotly = get_plotlyjs()
    (packed,) = [text for kind, text in reader.scripts if kind == "application/octet-stream" and len(text) > 10**6]
    assert zlib.decompress(base64.b64decode(packed)).decode() == plotly
    running.append(plotly)
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in running}
    directives = dict(part.strip().split(" ", 1) for part in reader.policy.split(";"))
    assert set(directives["script-src"].split()) == hashes
    assert directives["default-src"] == "'none'" and "connect-src" not in directives


def test_figures_are_json_with_a_table_each(reader: Reader) -> None:
    figures = [json.loads(text) for kind, text in reader.scripts if kind == "application/json"]
    drawn = [figure for figure in figures if "data" in figure]
    # Ten kinds of plot for each of three runs, attribution for one of them, and five that show all runs.
    assert len(drawn) == 10 * 3 + 1 + 5
    assert all(figure["data"] for figure in drawn)
    tables = [figure for figure in figures if isinstance(figure, dict) and "rows" in figure]
    assert len(tables) == len(drawn) and all(table["rows"] for table in tables)


def test_hostile_text_is_shown_and_never_markup(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", "clip_cov", num_steps=20, text=lambda text: text + HOSTILE))
    config = run.header.config | {HOSTILE: HOSTILE}
    header = run.header.model_copy(
        update={"config": config, "hardware": HOSTILE, "commit": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    )
    hostile = Run(**(vars(run) | {"header": header, "notes": [HOSTILE]}))
    text = page([hostile])
    reader = Reader(text)
    assert len([kind for kind, _ in reader.scripts if kind == "text/javascript"]) == 3
    assert not reader.handlers and "img" not in reader.tags
    assert "alert(1)</script>" not in text and "<img" not in text
    assert HOSTILE.split("\u2028")[0] in reader.text
    for kind, script in reader.scripts:
        if kind == "application/json":
            assert "<" not in script and "&" not in script
            found = json.loads(script)
            for trace in found.get("data", []) if isinstance(found, dict) else []:
                assert "<" not in trace["name"]
    # The control: the same text unescaped would have been found.
    bad = Reader(f"<p>{HOSTILE}</p>")
    assert "img" in bad.tags and bad.handlers == ["onerror"]


STEERING = "\x1b[31m\x07\u202e\u2066 12"


def test_control_characters_are_written_out_and_other_scripts_stand_alone(tmp_path: Path) -> None:
    hebrew = "\u05d0\u05d1"
    path = write_run(tmp_path / "run", "kl_cov", num_steps=20, text=lambda text: f"{hebrew}{text}{STEERING}")
    (path / "status.json").write_text(
        json.dumps({"state": "failed", "step": 20, "num_steps": 20, "message": f"{hebrew}{STEERING} <i>"}), "utf-8"
    )
    text = page([read_run(path)])
    shown = r"\x1b[31m\x07\u202e\u2066 12"
    # Plotly's own script holds some as text; the data of the run is in the rest.
    ours = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", ours)
    assert f"<h3><bdi>{hebrew}kl_cov{shown}</bdi></h3>" in ours
    assert f"failed after 20 of 20 rollout steps: <bdi>{hebrew}{shown} &lt;i&gt;</bdi>." in ours
    strings = unpacked(packed_rollouts([read_run(path)]).data).header["strings"]
    tokens = [text for text in strings if text.startswith(hebrew)]
    assert len(tokens) > 10 and all(token.endswith(shown) for token in tokens)
    # A plot's line and the button of its legend are one group.
    groups = set(re.findall(r'data-group="([^"]*)"', ours))
    figures = [json.loads(data) for kind, data in Reader(text).scripts if kind == "application/json"]
    traces = [trace for figure in figures if isinstance(figure, dict) for trace in figure.get("data", [])]
    drawn = {trace["legendgroup"] for trace in traces}
    assert groups <= drawn and any(shown in group for group in groups)


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_short_runs_still_give_a_page_with_a_banner(tmp_path: Path, steps: int) -> None:
    run = read_run(write_run(tmp_path / "run", stop_after=steps))
    text = Reader(page([run])).text
    assert f"interrupted after {steps} of 160 rollout steps" in text
    assert "Ctrl-C" in text


def test_runs_without_evaluations_or_samples_give_a_page(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run", num_steps=12, evaluate=False))
    text = Reader(page([Run(**(vars(run) | {"samples": [], "updates": []}))])).text
    # The law is then one of the training reward, everywhere on the page.
    assert "On the training reward, since no validation accuracy gives a point" in text
    assert "has no law" not in text and "No law:" not in text
    short = read_run(write_run(tmp_path / "short", num_steps=2, evaluate=False))
    assert "has no law: 2 rollout steps are less than one block" in Reader(page([short])).text


def test_entropies_of_different_definition_are_not_compared_unnoticed(runs: dict[str, Run]) -> None:
    one, other = (Run(**(vars(runs[name]) | {"updates": [], "samples": []})) for name in ("grpo", "kl_cov"))
    assert "not comparable" not in Reader(page([one, other])).text
    step = other.steps[0]
    sampled = step.model_copy(update={"entropy": step.entropy.model_copy(update={"estimator": "sampled"})})
    changed = Run(**(vars(other) | {"steps": [sampled, *other.steps[1:]]}))
    assert "not comparable" in Reader(page([one, changed])).text


def test_many_runs_of_one_method_fit_on_a_page(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / str(seed), "grpo", seed=seed, num_steps=10)) for seed in range(5)]
    text = Reader(page(runs)).text
    assert "grpo · seed 4" in text and "Seeds: grpo 5" in text


def test_the_file_is_written_and_no_run_is_an_error(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / "run", num_steps=5))]
    path = write_report(runs, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8").lstrip().startswith("<!doctype html>")
    with pytest.raises(ConfigError, match="at least one run"):
        page([])


def test_a_page_is_replaced_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, link = tmp_path / "real.html", tmp_path / "report.html"
    real.write_text("the old page")
    link.symlink_to(real)
    short = [read_run(write_run(tmp_path / "run", num_steps=5))]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("covent.report.page.page_of", lambda shown, **_: "the new page")
    with monkeypatch.context() as patched:
        patched.setattr("os.replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_report(short, link)
    assert link.read_text() == "the old page"
    write_report(short, link)
    assert real.read_text() == "the new page\n" and link.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real.html", "report.html", "run"]


def test_a_page_can_go_into_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covent.report.page.page_of", lambda shown, **_: "page")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        write_page([], pipe)
        assert read.result(timeout=30) == "page"


def test_a_log_of_another_engine_has_every_section_and_says_what_it_lacks(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    entropy = [1.2 * 0.93**step for step in range(40)]
    lines = [
        f"{step},{h},{100 * (0.9 - 0.2 * (math.exp(h) - 1) + 0.01 * (-1) ** step)}" for step, h in enumerate(entropy)
    ]
    log.write_text("step,entropy,val/acc\n" + "\n".join(lines) + "\n")
    reader = Reader(page([], all_series([log], Choice(metric="val/acc", entropy="entropy"))))
    assert [anchor for anchor in SECTIONS if anchor not in reader.ids] == []
    drawn = [json.loads(text) for kind, text in reader.scripts if kind == "application/json"]
    assert len([figure for figure in drawn if isinstance(figure, dict) and "data" in figure]) == 4
    assert "Entropy collapsed in" in reader.text and reader.text.count("Not here:") >= 10
    assert "covent measure DUMP" in reader.text


def test_paper_is_white_keeps_cards_whole_and_has_room_for_every_column() -> None:
    css = files("covent.report").joinpath("page.css").read_text(encoding="utf-8")
    screen, _, paper = css.partition("@media print {")

    def holds(rules: str, selector: str, declaration: str) -> bool:
        found = re.findall(r"([^{}]+)\{([^{}]*)\}", rules)
        return any(selector in map(str.strip, head.split(",")) and declaration in body for head, body in found)

    for selector, declaration in (
        (":root", "--paper: #ffffff"),
        (".verdict-card", "break-inside: avoid"),
        (".provenance", "table-layout: fixed"),
        (".provenance td", "min-width: 0"),
    ):
        assert holds(paper, selector, declaration)
        # The control: the screen has none of it.
        assert not holds(screen, selector, declaration)
