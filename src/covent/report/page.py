"""One self-contained page about one or several runs. It opens from disk and never asks the network for anything.

Text from a run is data: jinja escapes it, its control characters are written out, and names, tokens and messages stand
in `bdi` elements, so that they cannot reorder their neighbours. JSON sits in inert script elements with `<` escaped,
and the content security policy names the two scripts of the page by their hashes, so that nothing else can run and
nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from covent import __version__
from covent.errors import ConfigError
from covent.report import numbers as n
from covent.report import plots
from covent.report.chart import FAINT, INK, MUTED, Chart, Style, styles
from covent.report.compare import comparisons, labels
from covent.report.samples import shown_samples
from covent.report.summary import RunSummary, summarise
from covent.report.tables import glance, glance_notes, readings
from covent.report.words import comparison_findings, findings, headline, verdict
from covent.store.durable import disk_errors, replace
from covent.store.reader import Run
from covent.visible import visible

PROBLEM_STATES = {"interrupted", "failed", "running"}


@dataclass(frozen=True)
class Section:
    """A heading with plots under it."""

    anchor: str
    title: str
    intro: str
    charts: list[Chart]

    @property
    def alike(self) -> bool:
        """Whether all plots are read in the same way, so that one caption serves them all."""
        return len(self.charts) > 1 and len({chart.anchor for chart in self.charts}) == 1


def write_report(runs: Sequence[Run], path: Path | str) -> Path:
    """Write the page about these runs as one HTML file.

    Args:
        runs: at least one run; they may be short, interrupted, or without evaluations.
        path: the file to write; its folder is made if it is missing. An old file is replaced in one piece.

    Returns:
        The path of the file.

    Raises:
        ConfigError: no run was given.
        DiskError: it could not be written; an older file of that name is as it was.
    """
    path = Path(path)
    text = page(runs)
    with disk_errors(f"Writing {path}", "then: call again"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            # A pipe or a device, which cannot be replaced.
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            replace(path.resolve(), text, synced=False)
    return path


def page(runs: Sequence[Run]) -> str:
    """The HTML of the page about these runs.

    Raises:
        ConfigError: no run was given.
    """
    if not runs:
        raise ConfigError("A report needs at least one run folder; none was given.")
    names, looks, summaries = labels(runs), styles(runs), [summarise(run) for run in runs]
    found = comparisons(runs)
    glance_columns, glance_rows = glance(names, summaries)
    scripts = {"plotly": _script(get_plotlyjs()), "page": _script(_asset("page.js"))}
    environment = Environment(
        loader=PackageLoader("covent", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"unbroken": _unbroken, "isolated": isolated}
    return environment.get_template("page.html.j2").render(
        version=__version__,
        policy=_policy(list(scripts.values())),
        scripts=scripts,
        style=Markup(_asset("page.css")),  # noqa: S704 - a file of this package
        title=" · ".join(names),
        verdict=verdict(names, summaries),
        headline=headline(names, summaries, found),
        banners=_banners(names, summaries),
        glance_columns=glance_columns,
        glance=glance_rows,
        glance_notes=glance_notes(glance_columns, summaries),
        looks=looks,
        stories=list(zip(looks, [findings(summary) for summary in summaries], strict=True)),
        against=comparison_findings(found, summaries),
        sections=_sections(runs, looks, summaries),
        figure_json=figure_json,
        samples=[(look, shown_samples(run)) for look, run in zip(looks, runs, strict=True) if run.samples],
        numbers=list(zip(looks, [readings(summary) for summary in summaries], strict=True)),
        provenance=_provenance(runs),
        same_settings=_settings(runs)[0],
        other_settings=_settings(runs)[1],
        names=names,
        ink=INK,
        muted=MUTED,
        theme=Markup(json.dumps({"ink": INK, "muted": MUTED, "faint": FAINT})),  # noqa: S704 - constants of ours
    )


def figure_json(chart: Chart) -> Markup:
    """The figure as JSON that is safe inside a script element. Trace names are escaped too, as plotly reads markup."""
    data: dict[str, Any] = json.loads(chart.figure.to_json())
    for trace in data["data"]:
        trace["name"] = html.escape(trace.get("name") or "")
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704 - escaped


def isolated(text: str) -> Markup:
    """Text from a run as an element of its own: whatever its script, what stands beside it keeps its order."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def _unbroken(text: str) -> str:
    """As `numbers.unbroken`; what is escaped already stays so."""
    unbroken = n.unbroken(text)
    return Markup(unbroken) if isinstance(text, Markup) else unbroken  # noqa: S704 - only spaces were replaced


def _sections(runs: Sequence[Run], looks: Sequence[Style], summaries: Sequence[RunSummary]) -> list[Section]:
    def each(chart: Callable[[Run, Style], Chart | None]) -> list[Chart | None]:
        return [chart(run, look) for run, look in zip(runs, looks, strict=True)]

    law = {id(run): summary.law("validation") for run, summary in zip(runs, summaries, strict=True)}
    made: list[tuple[str, str, str, list[Chart | None]]] = [
        (
            "curves",
            "Entropy and accuracy",
            "The paper's claim: accuracy is paid for with entropy, and where the entropy is gone, the gain ends.",
            [plots.entropy_chart(runs, looks), plots.accuracy_chart(runs, looks)],
        ),
        (
            "law",
            "Accuracy against entropy: the law",
            "If accuracy is a function of entropy, R = −a·exp(H) + b, the run has a ceiling b − a that can be read off"
            " early. The straight line in H is the rival to beat. Curves are compared by AICc, their misfit plus a"
            " charge for each coefficient: lower is better, and a difference of 4 is clear.",
            each(lambda run, look: plots.law_chart(run, look, law[id(run)])),
        ),
        (
            "forecast",
            "The rest of the run, forecast from its first part",
            "A forecast may use what lies before its vertical line and nothing else.",
            each(lambda run, look: plots.forecast_chart(run, look, law[id(run)])),
        ),
        (
            "change",
            "Each step's change of entropy",
            "The entropy of one fixed set of states before and after every optimizer step.",
            each(plots.entropy_change_chart),
        ),
        (
            "agreement",
            "Accounted and predicted against observed",
            "The same numbers, step against step.",
            each(plots.agreement_chart),
        ),
        (
            "covariance",
            "Token covariance",
            "Entropy falls where likely tokens are rewarded: where log-prob and advantage vary together.",
            each(plots.covariance_chart),
        ),
        (
            "control",
            "What the controls did",
            "A control selects a share of the tokens that carry gradient. What was asked for may not be there to take.",
            [plots.share_chart(runs, looks)],
        ),
        ("tests", "Held-out accuracy", "On problems that no run trained on.", [plots.pass_chart(runs, looks)]),
    ]
    sections = [Section(a, title, intro, [c for c in charts if c is not None]) for a, title, intro, charts in made]
    return [section for section in sections if section.charts]


def _banners(names: Sequence[str], summaries: Sequence[RunSummary]) -> list[Markup]:
    lines = []

    def say(sentence: str, *texts: str) -> None:
        lines.append(escape(sentence).format(*map(isolated, texts)))

    for name, summary in zip(names, summaries, strict=True):
        status = summary.status
        if status.state in PROBLEM_STATES:
            state = "is not finished" if status.state == "running" else f"was {status.state}"
            state = "failed" if status.state == "failed" else state
            sentence = f"{{}} {state} after {summary.num_steps} of {status.num_steps} rollout steps"
            say(f"{sentence}: {{}}." if status.message else f"{sentence}.", name, status.message)
        elif summary.law("validation").fit is None and summary.num_steps:
            say("{} has no law: {}", name, summary.law("validation").reason or "")
        if not summary.num_steps:
            say("{} has no rollout step yet.", name)
        for note in summary.notes:
            say("{}: {}", name, note)
    definitions = {summary.entropy.definition for summary in summaries if summary.entropy is not None}
    if len(definitions) > 1:
        say("The entropies of these runs are not comparable; their definitions differ: {}", "; ".join(definitions))
    return lines


def _provenance(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What produced each run: rows of a table with one column a run."""
    headers = [run.header for run in runs]
    versions = sorted({name for header in headers for name in header.versions})
    return [
        ("folder", [run.folder.name for run in runs]),
        ("created", [header.created for header in headers]),
        ("seed", [str(header.seed) for header in headers]),
        ("threads", [str(header.threads) for header in headers]),
        ("commit", [header.commit or "not a checkout" for header in headers]),
        ("hardware", [header.hardware for header in headers]),
        ("parameters", [f"{header.num_parameters:,}".replace(",", " ") for header in headers]),
        ("start model", [header.start_model or n.MISSING for header in headers]),
        *((name, [header.versions.get(name, n.MISSING) for header in headers]) for name in versions),
    ]


def _settings(runs: Sequence[Run]) -> tuple[str, list[tuple[str, list[str]]]]:
    """Settings that all runs share, as YAML, and those that differ, one row a setting and one column a run."""
    flat = [_flat(run.header.config) for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    same = {key: flat[0][key] for key in keys if all(key in s and s[key] == flat[0][key] for s in flat)}
    shared = yaml.safe_dump(_nested(same), sort_keys=False, allow_unicode=True) if same else ""
    differing = [(".".join(key), [_scalar(s.get(key)) for s in flat]) for key in keys if key not in same]
    return shared, differing


def _flat(config: dict[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Settings by path; a path is no text with dots, since a name may hold one."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= _flat(value, (*above, key))
        else:
            found[(*above, key)] = value
    return found


def _nested(flat: dict[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*parents, leaf), value in flat.items():
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = value
    return tree


def _scalar(value: object) -> str:
    return (
        n.MISSING if value is None else json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    )


def _asset(name: str) -> str:
    return files("covent.report").joinpath(name).read_text(encoding="utf-8")


def _script(source: str) -> Markup:
    """A script of ours, ready to be inlined. The parser of HTML turns \\r\\n into \\n, so the hash must be of that."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    assert "</script" not in source.lower() and "<!--" not in source
    return Markup(source)  # noqa: S704 - plotly's and our own script


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'" for source in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none';"
        " form-action 'none'"
    )
