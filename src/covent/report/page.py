"""One self-contained page about one or several runs. It opens from disk and never asks the network for anything.

Text from a run is data: jinja escapes it, its control characters are written out, and names, tokens and messages stand
in `bdi` elements, so that they cannot reorder their neighbours. JSON sits in inert script elements with `<` escaped,
and the content security policy names the scripts of the page by their hashes, so that nothing else can run and
nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from covent import __version__
from covent.errors import ConfigError
from covent.logs.explain import Explanation
from covent.logs.phrases import typographic
from covent.logs.series import LogSeries
from covent.report import numbers as n
from covent.report.chart import FAINT, INK, MUTED, Chart
from covent.report.compare import comparisons
from covent.report.experiments import SAME
from covent.report.law_plots import FRACTIONS, prefixes, slider_data
from covent.report.methods import methods, repeated
from covent.report.names import short
from covent.report.phases import are_steps_lost, fate_of_subject
from covent.report.sections import missing_rows, sections
from covent.report.settings import differing, flat, nested, scalar
from covent.report.subject import Subject, subjects
from covent.report.summary import RunSummary
from covent.report.tables import glance, glance_notes, readings
from covent.report.tokens import compressed, packed_rollouts
from covent.report.verdicts import answers
from covent.report.words import comparison_findings, findings, headline, log_findings, verdict
from covent.store.coverage import is_own
from covent.store.durable import disk_errors, replace
from covent.store.reader import Run
from covent.store.schema import RunHeader
from covent.visible import visible

MOST_SIDE_BY_SIDE = 3
"""With more runs, the plots of single runs show one at a time."""

PROBLEM_STATES = {"interrupted", "failed", "running"}


def write_report(
    runs: Sequence[Run], path: Path | str, logs: Sequence[LogSeries] = (), *, reload_s: int | None = None
) -> Path:
    """Write the page about these runs as one HTML file.

    Args:
        runs: run folders; they may be short, interrupted, or without evaluations.
        path: the file to write; its folder is made if it is missing. An old file is replaced in one piece.
        logs: points of the law of other engines' logs, shown after the runs.
        reload_s: seconds after which the page loads itself again, because it is written anew while the runs go on.
            If not given, it stays as it is.

    Returns:
        The path of the file.

    Raises:
        ConfigError: neither a run nor a log was given.
        DiskError: it could not be written; an older file of that name is as it was.
    """
    return write_page(subjects(runs, logs), path, reload_s=reload_s)


def write_page(
    shown: Sequence[Subject], path: Path | str, *, reload_s: int | None = None, left_out: Sequence[str] = ()
) -> Path:
    """As `write_report`, for subjects that are there already; `left_out` says which are not, and why."""
    path = Path(path)
    text = page_of(shown, reload_s=reload_s, left_out=left_out)
    with disk_errors(f"Writing {path}", "then: call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # A pipe or a device, which cannot be replaced.
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            replace(path.resolve(), text, synced=False)
    return path


def page(runs: Sequence[Run], logs: Sequence[LogSeries] = ()) -> str:
    """The HTML of the page about these runs and logs.

    Raises:
        ConfigError: neither a run nor a log was given.
    """
    return page_of(subjects(runs, logs))


def page_of(shown: Sequence[Subject], *, reload_s: int | None = None, left_out: Sequence[str] = ()) -> str:
    """As `page`, for subjects that are there already; the rest as in `write_page`."""
    if not shown:
        raise ConfigError("A report needs at least one run folder or log; none was given.")
    runs = [subject.run for subject in shown if subject.run is not None]
    parts = [prefixes(subject) for subject in shown]
    sliders = {each.style.run: slider_data(each, part) for each, part in zip(shown, parts, strict=True) if part}
    scripts = {name: _script(_asset(f"{name}.js")) for name in ("page", "tokens", "live")}
    environment = Environment(
        loader=PackageLoader("covent", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": _unbroken, "isolated": partial(isolated, titles=_titles(shown))}
    return environment.get_template("page.html.j2").render(
        version=__version__,
        reload_s=reload_s,
        written=datetime.now().astimezone().strftime("%H:%M:%S"),
        policy=_policy([_script(get_plotlyjs()), *scripts.values()]),
        scripts=scripts,
        library=_library(),
        style=Markup(_asset("page.css")),  # noqa: S704 - a file of this package
        many=len(shown) > MOST_SIDE_BY_SIDE,
        slider_percents=[round(100 * fraction) for fraction in FRACTIONS],
        names=[subject.label for subject in shown],
        folder_names=[subject.label for subject in shown if subject.run is not None],
        **_words(shown, left_out),
        **_run_card(runs),
        sections=sections(shown, parts),
        sliders=set(sliders),
        rollouts=packed_rollouts(runs),
        rollout_gaps=missing_rows("rollouts", [(subject.label, subject.run) for subject in shown]),
        verifier_faults=[
            (s.style, s.run.verifier_faults) for s in shown if s.run is not None and s.run.verifier_faults
        ],
        figure_json=figure_json,
        table_json=table_json,
        slider_json=safe_json(rounded({str(run): data for run, data in sliders.items()})),
        subjects=safe_json([{"label": subject.label} for subject in shown]),
        theme=safe_json({"ink": INK, "muted": MUTED, "faint": FAINT}),
        ink=INK,
        muted=MUTED,
    )


def _words(shown: Sequence[Subject], left_out: Sequence[str]) -> dict[str, Any]:
    """Everything that the page says in sentences and in single numbers."""
    names, _, summaries = _folders(shown)
    copies = [each.label for group in repeated(shown) for each in group.copies]
    counted = [each for each in shown if each.label not in copies]
    own_names, own_runs, own_summaries = _folders(counted)
    found = comparisons(own_runs, own_names)
    over = methods(shown)
    columns, rows = glance(names, summaries)
    told = [each.told for each in shown if each.run is None and each.told is not None]
    lead = (
        over.headline
        if over is not None
        else headline(own_names, own_summaries, found)
        if own_names
        else _lead_of_logs(told)
    )
    return {
        "title": " · ".join(each.label for each in shown),
        "verdict": verdict(
            [each.label for each in counted],
            [fate_of_subject(each) for each in counted],
            [each.experiment for each in counted],
        ),
        "methods": over,
        "headline": lead,
        "banners": [*map(isolated, left_out), *_banners(names, summaries, _titles(shown)), *_twice(shown)],
        "verdicts": [(each.style, answers(each)) for each in shown],
        "glance_columns": columns,
        "glance": rows if len(shown) > 1 or names else [],
        "glance_notes": glance_notes(columns, summaries),
        "stories": [
            (
                each.style,
                findings(each.summary)
                if each.summary is not None
                else []
                if each.told is None
                else log_findings(each.told),
            )
            for each in shown
        ],
        "against": comparison_findings(
            found, own_summaries, [each.experiment for each in counted if each.run is not None]
        ),
        "numbers": [(each.style, readings(each.summary)) for each in shown if each.summary is not None],
    }


def _folders(shown: Sequence[Subject]) -> tuple[list[str], list[Run], list[RunSummary]]:
    """Label, run and summary of each run folder."""
    found = [
        (each.label, each.run, each.summary) for each in shown if each.run is not None and each.summary is not None
    ]
    return [label for label, _, _ in found], [run for _, run, _ in found], [summary for _, _, summary in found]


def _lead_of_logs(told: Sequence[Explanation]) -> str:
    """Of one log its entropy and its accuracy; of several the entropies of the first three."""
    found = told[0].findings[:2] if len(told) == 1 else [each.findings[0] for each in told[:3]]
    return " ".join(typographic(finding.text) for finding in found)


def _run_card(runs: Sequence[Run]) -> dict[str, Any]:
    """What produced the runs, and how to produce them again."""
    same, other = _settings(runs) if runs else ("", [])
    own = [run for run in runs if is_own(run.header.config) and "config" not in run.gaps]
    commands = [
        f"covent train {shlex.quote(str(run.folder / 'config.yaml'))} --out again-{place}"
        for place, run in enumerate(own)
    ]
    return {
        "provenance": _provenance(runs) if runs else [],
        "same_settings": same,
        "other_settings": other,
        "reproduce": "\n".join(commands),
    }


def figure_json(chart: Chart) -> Markup:
    """The figure as JSON that is safe inside a script element. Trace names are escaped too, as plotly reads markup."""
    data: dict[str, Any] = json.loads(chart.figure.to_json())
    for trace in data["data"]:
        trace["name"] = html.escape(trace.get("name") or "")
    return safe_json(rounded(data))


def table_json(chart: Chart) -> Markup:
    """The table under a plot as JSON that is safe inside a script element; its text has no control characters."""
    rows = [[visible(cell) if isinstance(cell, str) else cell for cell in row] for row in chart.table.rows]
    title = visible(f"{chart.title}: {chart.about or chart.y_label}")
    facts = {
        "title": title,
        "anchor": chart.anchor,
        "run": chart.run,
        "columns": chart.table.columns,
        "rows": rounded(rows),
    }
    return safe_json(facts)


def rounded(data: Any) -> Any:
    """Nested data with six significant digits, more than any plot or table shows."""
    if isinstance(data, float):
        return float(f"{data:.6g}")
    if isinstance(data, list | tuple):
        return [rounded(item) for item in data]
    return {key: rounded(value) for key, value in data.items()} if isinstance(data, dict) else data


def safe_json(data: object) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def isolated(text: str, titles: Mapping[str, str] | None = None) -> Markup:
    """Text from a run as an element of its own: whatever its script, what stands beside it keeps its order.

    Args:
        text: to show.
        titles: by label the whole name that it shortens, which is shown to those who point at it.
    """
    whole = (titles or {}).get(text)
    if whole is None:
        return Markup("<bdi>{}</bdi>").format(visible(text))
    return Markup('<bdi title="{}">{}</bdi>').format(visible(whole), visible(text))


def _titles(shown: Sequence[Subject]) -> dict[str, str]:
    """Whole names by label, of those that are shortened."""
    return {each.label: each.name for each in shown if short(each.name) != each.name}


def _unbroken(text: str) -> str:
    """As `numbers.unbroken`; what is escaped already stays so."""
    unbroken = n.unbroken(text)
    return Markup(unbroken) if isinstance(text, Markup) else unbroken  # noqa: S704 - only spaces were replaced


def _banners(names: Sequence[str], summaries: Sequence[RunSummary], titles: Mapping[str, str]) -> list[Markup]:
    lines = []

    def say(sentence: str, *texts: str) -> None:
        lines.append(escape(sentence).format(*(isolated(text, titles) for text in texts)))

    for name, summary in zip(names, summaries, strict=True):
        status = summary.status
        if status.state in PROBLEM_STATES:
            state = "is not finished" if status.state == "running" else f"was {status.state}"
            state = "failed" if status.state == "failed" else state
            made = max(summary.num_steps, status.step)
            sentence = f"{{}} {state} after {made} of {status.num_steps} rollout steps"
            say(f"{sentence}: {{}}." if status.message else f"{sentence}.", name, status.message)
        elif summary.main_law.fit is None and summary.num_steps:
            say("{} has no law: {}", name, summary.main_law.reason or "")
        if not summary.num_steps and not are_steps_lost(summary):
            say("{} has no rollout step yet.", name)
        for note in [*summary.notes, *(sentence for found in summary.gaps.values() for sentence in found)]:
            say("{}: {}", name, note)
    definitions = {summary.entropy.definition for summary in summaries if summary.entropy is not None}
    if len(definitions) > 1:
        say("The entropies of these runs are not comparable; their definitions differ: {}", "; ".join(definitions))
    return lines


def _twice(shown: Sequence[Subject]) -> list[Markup]:
    """Copies of one run: they are shown, and counted once."""
    sentences = [sentence for group in repeated(shown) for sentence in group.left_out if sentence.endswith(SAME)]
    return [isolated(f"{sentence}: counted once.") for sentence in sentences]


def _provenance(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What produced each run: rows of a table with one column a run."""
    versions = sorted({name for run in runs for name in run.header.versions})

    def row(name: str, cell: Callable[[RunHeader], str]) -> tuple[str, list[str]]:
        return name, [n.MISSING if run.is_header_lost else cell(run.header) for run in runs]

    return [
        ("folder", [run.folder.name for run in runs]),
        row("created", lambda header: header.created),
        ("seed", [n.MISSING if run.seed is None else str(run.seed) for run in runs]),
        row("threads", lambda header: str(header.threads)),
        row("commit", lambda header: header.commit or "not a checkout"),
        row("hardware", lambda header: header.hardware),
        row("parameters", lambda header: f"{header.num_parameters:,}".replace(",", " ")),
        row("start model", lambda header: header.start_model or n.MISSING),
        *((name, [run.header.versions.get(name, n.MISSING) for run in runs]) for name in versions),
    ]


def _settings(runs: Sequence[Run]) -> tuple[str, list[tuple[str, list[str]]]]:
    """Settings that all runs share, as YAML, and those that differ, one row a setting and one column a run."""
    settings = [flat(run.header.config) for run in runs]
    other = differing(settings)
    same = {path: value for path, value in settings[0].items() if path not in other}
    shared = yaml.safe_dump(nested(same), sort_keys=False, allow_unicode=True) if same else ""
    return shared, [(".".join(path), [scalar(each.get(path)) for each in settings]) for path in other]


def _asset(name: str) -> str:
    return files("covent.report").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> Markup:
    """A script of ours, ready to be inlined. The parser of HTML turns \\r\\n into \\n, so the hash must be of that."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    assert "</script" not in source.lower() and "<!--" not in source
    return Markup(source)  # noqa: S704 - plotly's and our own script


@cache
def _library() -> str:
    """Plotly as the page holds it: compressed, so that a browser need not read it before it is wanted."""
    return compressed(_script(get_plotlyjs()).encode())


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'" for source in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
        " form-action 'none'"
    )
