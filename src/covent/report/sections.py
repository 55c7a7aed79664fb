"""The sections of the page that are made of plots: what each shows, and what to do where a run did not record it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from covent.report import change_plots, coverage_plots, health_plots, law_plots, plots, token_plots
from covent.report.chart import Chart, Style
from covent.report.subject import Subject
from covent.store.reader import Run


@dataclass(frozen=True)
class Section:
    """A heading with plots under it."""

    anchor: str
    title: str
    intro: str
    charts: list[Chart]
    absent: str
    """Why there is nothing to see, and how to get it; said only where there are no charts."""
    gaps: list[tuple[str, str]]
    """Runs of which rows are missing that this section rests on, and which."""

    @property
    def alike(self) -> bool:
        """Whether all plots are read in the same way, so that one caption serves them all."""
        return len(self.charts) > 1 and len({chart.anchor for chart in self.charts}) == 1


TEXTS: dict[str, tuple[str, str, str]] = {
    "curves": (
        "Entropy and accuracy",
        "The paper's claim: accuracy is paid for with entropy, and where the entropy is gone, the gain ends.",
        "No rollout step was recorded.",
    ),
    "law": (
        "Accuracy against entropy: the law",
        "If accuracy is a function of entropy, R = −a·exp(H) + b, the run has a ceiling b − a that can be "
        "read off early. The straight line in H is the rival to beat. Curves are compared by AICc, their "
        "misfit plus a charge for each coefficient: lower is better, and a difference of 4 is clear.",
        "Too few points of entropy and accuracy for a law.",
    ),
    "forecast": (
        "The rest of the run, forecast from its first part",
        "A forecast may use what lies before its vertical line and nothing else. The slider moves the line, "
        "here and in the plots of the law above.",
        "No first part of the run has points enough for a law.",
    ),
    "change": (
        "Each step's change of entropy",
        "The entropy of one fixed set of states before and after every optimizer step: predicted before the "
        "step, accounted for after it, and observed.",
        "No probe states were recorded. The embedded trainer has them with probe_prompts above 0; runs in TRL"
        " and logs of other engines have none.",
    ),
    "agreement": (
        "Accounted and predicted against observed",
        "The same numbers, step against step.",
        "No probe states were recorded, see above.",
    ),
    "attribution": (
        "Entropy change by cause",
        "Which term of the loss moved the entropy, and what no cause explains.",
        "No step was attributed. Ask for it in the embedded trainer: attribute_every=10.",
    ),
    "covariance": (
        "Token covariance",
        "Entropy falls where likely tokens are rewarded: where log-prob and advantage vary together.",
        "No covariance was logged. Run the training with covent inside TRL, or dump the tokens of a step and "
        "run covent measure DUMP.",
    ),
    "histogram": (
        "Where the covariances lie",
        "Few tokens carry most of the covariance. The controls act between or above the dashed thresholds.",
        "No histogram was recorded; folders written by a newer covent have it.",
    ),
    "tail": (
        "How much the tail holds",
        "The share of all positive covariance that the highest few tokens have.",
        "No covariance was logged.",
    ),
    "control": (
        "What the controls did",
        "A control selects a share of the tokens that carry gradient. What was asked for may not be there to take.",
        "No run on this page has a control that selects tokens.",
    ),
    "polarity": (
        "Polarity",
        "Some tokens push the entropy of their state up, some down. The balance decides.",
        "No polarity was recorded; folders written by a newer covent have it.",
    ),
    "tests": (
        "Held-out accuracy and pass@k",
        "On problems that no run trained on. pass@k asks what a policy still reaches in k tries.",
        "No test problems were evaluated. The embedded trainer does so before and after a run (test_problems).",
    ),
    "groups": (
        "Group health",
        "A group teaches something only if its responses differ in reward.",
        "No groups were recorded.",
    ),
    "verifier": (
        "Verifier health",
        "Rewards are worth as much as the verifier that gives them.",
        "No verdicts were recorded.",
    ),
}
"""By anchor: title, how to look at it, and why it may be absent and how to get it."""

FILES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("curves", "law", "forecast"), ("steps", "evaluations")),
    **dict.fromkeys(("change", "agreement", "covariance", "histogram", "tail", "control", "polarity"), ("updates",)),
    "attribution": ("updates", "attributions"),
    "tests": ("evaluations", "verdicts"),
    "groups": ("steps",),
    "verifier": ("steps", "verifier_faults"),
    "rollouts": ("samples",),
}
"""By anchor: the row files that it is made of."""


def sections(subjects: Sequence[Subject], parts: Sequence[Sequence[law_plots.Prefix]]) -> list[Section]:
    """All sections in the order in which a reader asks.

    Args:
        subjects: the runs and logs of the page.
        parts: for each of them what its first parts foretell.
    """
    folders = [(each.run, each.style) for each in subjects if each.run is not None]
    runs, looks = [run for run, _ in folders], [look for _, look in folders]

    def each(chart: Callable[[Run, Style], Chart | None]) -> list[Chart | None]:
        found = [(chart(run, look), look.run) for run, look in folders]
        return [None if made is None else replace(made, run=place) for made, place in found]

    def of_law(chart: Callable[[Subject, Sequence[law_plots.Prefix]], Chart | None]) -> list[Chart | None]:
        found = [(chart(one, part), one.style.run) for one, part in zip(subjects, parts, strict=True)]
        return [None if made is None else replace(made, run=place) for made, place in found]

    charts: dict[str, Sequence[Chart | None]] = {
        "curves": [plots.entropy_chart(subjects), plots.accuracy_chart(subjects)],
        "law": of_law(law_plots.law_chart),
        "forecast": of_law(law_plots.forecast_chart),
        "change": each(change_plots.entropy_change_chart),
        "agreement": each(change_plots.agreement_chart),
        "attribution": each(change_plots.attribution_chart),
        "covariance": each(token_plots.covariance_chart),
        "histogram": each(token_plots.histogram_chart),
        "tail": each(token_plots.tail_chart),
        "control": [token_plots.share_chart(runs, looks)],
        "polarity": each(token_plots.polarity_chart),
        "tests": [plots.pass_chart(runs, looks), coverage_plots.pass_curves_chart(runs, looks)],
        "groups": each(health_plots.group_chart),
        "verifier": each(health_plots.verifier_chart),
    }
    return [
        _section(anchor, _there(found), missing_rows(anchor, [(one.style.label, one.run) for one in subjects]))
        for anchor, found in charts.items()
    ]


def missing_rows(anchor: str, runs: Sequence[tuple[str, Run | None]]) -> list[tuple[str, str]]:
    """What is missing of the rows that a section is made of, by the label of its run."""
    return [
        (label, sentence)
        for label, run in runs
        if run is not None
        for file in FILES[anchor]
        for sentence in [*(note for note in run.notes if f"{file}.jsonl" in note), *run.gaps.get(file, [])]
    ]


def _section(anchor: str, charts: list[Chart], missing: list[tuple[str, str]]) -> Section:
    title, intro, absent = TEXTS[anchor]
    return Section(anchor, title, intro, charts, "the rows it is made of are missing." if missing else absent, missing)


def _there(charts: Sequence[Chart | None]) -> list[Chart]:
    return [chart for chart in charts if chart is not None]
