"""The tables of the report: all runs at a glance, and each run's numbers with a line on how to read each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from covent.law.criterion import DECISIVE_AICC
from covent.law.series import FULL_MARKS, counted
from covent.logs.phrases import ceiling_text, curve_text, typographic
from covent.logs.results import FitResult
from covent.logs.run_folder import END_STEPS, TRAINING_REWARD
from covent.report import numbers as n
from covent.report.accuracy import AccuracyChange
from covent.report.agreement import TREND_WINDOW, Quantity
from covent.report.attribution import LEFT_OVER, AttributionSummary
from covent.report.summary import (
    ControlSummary,
    EntropySummary,
    LawSummary,
    ProbeSummary,
    RolloutSummary,
    RunSummary,
)

Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Reading:
    """A number of one run, and how to read it."""

    name: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Group:
    """Readings under one heading."""

    title: str
    readings: list[Reading]


QUANTITIES: dict[Quantity, tuple[str, str]] = {
    "accounted": (
        "accounted (Lemma 1)",
        "From the logits before and after the step: correlation and slope 1 would be perfect.",
    ),
    "theorem 1": (
        "predicted (Theorem 1)",
        "Before the step, for the plain gradient. Adam's steps are larger: so is the slope.",
    ),
    "theorem 2": (
        "predicted (Theorem 2)",
        "Before the step, for the natural gradient. Filtered groups count as states that do not change.",
    ),
}
"""Name and meaning of what should explain an entropy change."""

GLANCE = ["run", "entropy, nats", "left", "greedy", "avg@k", "pass@k", "ceiling", "forecast error"]
"""Columns of the table of all runs, as far as there are numbers for them."""


def glance(labels: Sequence[str], summaries: Sequence[RunSummary]) -> tuple[list[str], list[list[str]]]:
    """Columns and one row for each run; columns in which no run has a number are left out.

    Accuracies are of the last evaluation on the test problems.
    """
    rows = [_glance_row(label, summary) for label, summary in zip(labels, summaries, strict=True)]
    kept = [place for place in range(len(GLANCE)) if any(row[place] != n.MISSING for row in rows)]
    columns = [_with_its_k(GLANCE[place], summaries) for place in kept]
    return columns, [[row[place] for place in kept] for row in rows]


def _with_its_k(column: str, summaries: Sequence[RunSummary]) -> str:
    """`avg@k` with the k that all runs have; of pass@k the largest."""
    kind, _, k = column.partition("@")
    if k != "k":
        return column
    test = [[c.measure for c in summary.accuracy if c.split == "test"] for summary in summaries]
    last = {found[-1] for names in test if (found := [name for name in names if name.startswith(kind)])}
    return last.pop() if len(last) == 1 else column


def readings(summary: RunSummary) -> list[Group]:
    """All numbers of one run in groups; groups without numbers are left out."""
    groups = [
        Group("Entropy", _entropy(summary.entropy)),
        Group("Accuracy on test problems", _accuracy(summary.accuracy, "test")),
        Group("Accuracy on validation problems", _accuracy(summary.accuracy, "validation")),
        Group("Law on validation accuracy", _law(summary.law("validation"))),
        Group("Law on training reward", _law(summary.law("training"))),
        Group("Entropy change on the probe states", _probe(summary.probe)),
        Group("Entropy change by cause", _attribution(summary.attribution)),
        Group("Control", _control(summary.control)),
        Group("Rollouts", _rollout(summary.rollout)),
        Group("Cost", _cost(summary)),
    ]
    return [group for group in groups if group.readings]


def _glance_row(label: str, summary: RunSummary) -> list[str]:
    entropy, law = summary.entropy, summary.main_law
    test = [change for change in summary.accuracy if change.split == "test"]
    average = next((c for c in test if c.measure.startswith("avg")), None)
    widest = next((c for c in reversed(test) if c.measure.startswith("pass")), None)
    last = law.forecasts[-1] if law.forecasts else None
    return [
        label,
        n.MISSING if entropy is None else f"{n.plain(entropy.first)} → {n.plain(entropy.last)}",
        n.MISSING if entropy is None or entropy.ratio is None else n.share(entropy.ratio),
        _arrow(summary.change("test", "greedy")),
        _arrow(average),
        _arrow(widest),
        n.MISSING if law.fit is None else short_ceiling(law.fit),
        n.MISSING if last is None else n.points(last.unconditional.end_error),
    ]


def short_ceiling(law: FitResult) -> str:
    """A ceiling in a cell: the number only where the points determine one, marked where it is not to be relied on.

    `*` an impossible one; `†` a rival fits clearly better; `‡` a ceiling of the training reward.
    """
    if not law.identified:
        return "not identified"
    if not law.is_possible:
        return f"not determined *{_of_reward(law)}"
    return f"{n.percent(_fraction(law))}{' †' if law.is_beaten else ''}{_of_reward(law)}"


def _of_reward(law: FitResult) -> str:
    return " ‡" if law.metric == TRAINING_REWARD else ""


def ceiling_marks(laws: Sequence[FitResult]) -> list[str]:
    """What the marks of `short_ceiling` mean, as far as these laws carry them."""
    shown = [law for law in laws if law.identified]
    possible = [law for law in shown if law.is_possible]
    marks = {
        "* above 100 %: impossible; the points do not fix the ceiling": len(possible) < len(shown),
        "† another curve fits clearly better: do not rely on this ceiling": any(law.is_beaten for law in possible),
        "‡ of the training reward, for want of validation accuracy": any(_of_reward(law) for law in shown),
        "not identified: no ceiling can be read off; the report says why": len(shown) < len(laws),
    }
    return [mark for mark, carried in marks.items() if carried]


def _fraction(law: FitResult) -> float | None:
    return None if law.ceiling is None else law.ceiling / FULL_MARKS[law.unit]


def glance_notes(columns: Sequence[str], summaries: Sequence[RunSummary]) -> list[str]:
    """What these columns of the table at a glance mean, with the numbers that differ from page to page filled in."""
    test = [change.measure for summary in summaries for change in summary.accuracy if change.split == "test"]
    sampled = list(dict.fromkeys(measure for measure in test if measure.startswith("avg")))
    sampled += [measure for measure in dict.fromkeys(test) if measure.startswith("pass")][-1:]
    notes = {
        "entropy, nats": f"entropy: first step → mean of the last {END_STEPS} steps; left: their ratio",
        "greedy": f"greedy, avg, pass: test problems before → after; {' and '.join(sampled)}",
        "ceiling": "ceiling: what the law, fitted to all points of the run, gives at zero entropy; covent watch"
        " shows the last live forecast of it instead",
        "forecast error": "forecast error: forecast of the end from the first 30 % minus what happened",
    }
    marks = ceiling_marks([law.fit for summary in summaries if (law := summary.main_law).fit is not None])
    return [note for column, note in notes.items() if column in columns] + marks


def _arrow(change: AccuracyChange | None) -> str:
    if change is None:
        return n.MISSING
    end = n.MISSING if change.end is None else n.percent(change.end.value)
    return end if change.start is None else f"{n.fixed(100 * change.start.value, 1)} → {end}"


def _entropy(entropy: EntropySummary | None) -> list[Reading]:
    if entropy is None:
        return []
    never = "not within the run"
    return [
        Reading("definition", entropy.definition, "Entropies of another definition cannot be compared with these."),
        Reading("first → last", f"{n.plain(entropy.first)} → {n.nats(entropy.last)}", _last_meaning()),
        Reading("left", n.share(entropy.ratio), "Last over first. Under 10 % is called collapse here."),
        Reading(
            "half gone by step",
            never if entropy.half_life is None else str(entropy.half_life),
            "The first step at which the mean of the last 5 steps is at most half of the first.",
        ),
        Reading("mean over the run", n.nats(entropy.mean), "The area under the curve: how long entropy was kept."),
    ]


def _last_meaning() -> str:
    return f"0 nats: always the same token; ln 2 = 0.69: a coin toss. Last is the mean of {END_STEPS} steps."


def _accuracy(changes: Sequence[AccuracyChange], split: str) -> list[Reading]:
    return [
        Reading(
            change.measure,
            n.estimate(change.end)
            if change.start is None
            else f"{n.estimate(change.start)} → {n.estimate(change.end)}",
            _accuracy_meaning(change),
        )
        for change in changes
        if change.split == split
    ]


def _accuracy_meaning(change: AccuracyChange) -> str:
    kind, _, k = change.measure.partition("@")
    what = {
        "greedy": "Share of problems solved by the most likely tokens.",
        "avg": f"Share of {k} sampled responses a problem that are right.",
        "pass": f"Chance that at least one of {k} sampled responses is right, unbiased.",
    }[kind]
    if change.difference is None:
        return f"{what} {change.num_problems} problems."
    held = "" if change.difference.shown else ", which holds 0"
    return f"{what} Paired by problem: {n.difference(change.difference)}{held}."


def _law(law: LawSummary) -> list[Reading]:
    fitted = law.fit
    if fitted is None:
        return [Reading("fit", n.MISSING, law.reason or "")]
    if fitted.a is None or fitted.ceiling is None:
        return [Reading("fit", n.MISSING, typographic(" ".join(fitted.verdict)))]
    found = [
        Reading("fit", curve_text(fitted), f"{fitted.n} points, each entropy a {law.window}-step mean."),
        Reading("ceiling b − a", ceiling_text(fitted), "The law at zero entropy, with 95 % interval."),
        Reading(
            "R² law / straight line",
            f"{n.fixed(fitted.r2, 3)} / {n.fixed(fitted.line_r2, 3)}",
            "Share of the variance of accuracy explained; averaging over steps raises it by itself.",
        ),
        Reading("for and against", "", typographic(" ".join(fitted.verdict)) or "Nothing speaks against the law."),
        *_rivals(fitted),
    ]
    for forecast in law.forecasts:
        found.append(
            Reading(
                f"forecast from {n.percent(forecast.fraction, 0)}: error at the end",
                n.points(forecast.unconditional.end_error),
                f"From {counted(forecast.num_prefix, 'point')}; the end is the mean of the last"
                f" {counted(len(forecast.end_steps), 'point')}. Given the later entropy"
                f" {n.points(forecast.conditional.end_error)}; “nothing changes”"
                f" {n.points(forecast.unchanged.end_error)}."
                + ("" if forecast.identified else " The points do not determine the law."),
            )
        )
    return found


def _rivals(law: FitResult) -> list[Reading]:
    if not law.rivals:
        return []
    best = law.rivals[0].aicc
    told = ", ".join(f"{rival.name} +{n.fixed(rival.aicc - best, 1)}" for rival in law.rivals[1:])
    meaning = (
        "Akaike's criterion above that of the best: misfit, plus a charge for each coefficient. Lower is better, and"
        f" {DECISIVE_AICC:g} is clear."
    )
    return [Reading("AICc", f"{law.rivals[0].name} best; {told}", meaning)]


def _attribution(found: AttributionSummary | None) -> list[Reading]:
    if found is None:
        return []
    steps = f"Sum over {found.num_updates} optimizer steps on {found.num_states} probe states, first order."
    left_over = [Reading(name, n.nats(value), LEFT_OVER[name]) for name, value in found.left_over.items()]
    whole = Reading("observed", n.nats(found.observed), "The sum of all lines above.")
    return [*(Reading(cause, n.nats(part), steps) for cause, part in found.parts.items()), *left_over, whole]


def _probe(probe: ProbeSummary | None) -> list[Reading]:
    if probe is None:
        return []
    found = [
        Reading(
            "observed in all",
            n.nats(probe.observed),
            f"{probe.num_states} states, {probe.num_updates} optimizer steps; Lemma 1 accounts for"
            f" {n.plain(probe.explained['accounted'])}.",
        )
    ]
    for agreement in probe.agreements:
        title, meaning = QUANTITIES[agreement.quantity]
        if agreement.trend == "removed":
            title, meaning = f"{title}, trend removed", _trend_meaning()
        if agreement.correlation is None:
            meaning = f"Too few points, or no spread: {agreement.num_points} points."
        found.append(
            Reading(
                f"{title}, per {agreement.per}",
                f"r {n.fixed(agreement.correlation)}, slope {n.plain(agreement.slope)}",
                meaning,
            )
        )
    return found


def _trend_meaning() -> str:
    return f"Both minus their centred {TREND_WINDOW}-step mean: what is left when both merely shrink together."


def _control(control: ControlSummary | None) -> list[Reading]:
    if control is None:
        return []
    if control.asked_frac is None:
        return [Reading("control", control.name, "Selects no tokens.")]
    found = [
        Reading("control", control.name, f"{control.num_updates} optimizer steps."),
        Reading(
            "share asked / touched",
            f"{n.share(control.asked_frac)} / {n.share(control.realised_frac)}",
            f"Of the tokens that carry gradient; {control.num_selected} tokens in all.",
        ),
        Reading(
            "took every candidate",
            f"{n.share(control.took_all_frac)} of updates",
            "There the share does not decide, the number of candidates does.",
        ),
    ]
    if control.no_candidate_frac is not None:
        found.append(Reading("no candidate", f"{n.share(control.no_candidate_frac)} of updates", "Nothing to select."))
    for note, count in list(control.notes.items())[:3]:
        found.append(Reading("remark", counted(count, "update"), note))
    return found


def _rollout(rollout: RolloutSummary | None) -> list[Reading]:
    if rollout is None:
        return []

    def shares(pair: Pair) -> str:
        return f"{n.percent(pair[0])} → {n.percent(pair[1])}"

    lengths = f"{n.fixed(rollout.response_length[0], 1)} → {n.fixed(rollout.response_length[1], 1)} tokens"
    return [
        Reading("training reward", shares(rollout.reward), f"Means over the first and the last {END_STEPS} steps."),
        Reading("groups all right", shares(rollout.all_right), "No signal: every response has the same reward."),
        Reading("groups all wrong", shares(rollout.all_wrong), "No signal either; problems out of reach."),
        Reading("response length", lengths, "Prompt not counted."),
        Reading("cut off by length", shares(rollout.truncated), "Responses without an end token."),
        Reading("no answer found", shares(rollout.unparsable), "The verifier could not read an answer."),
        Reading(
            "largest sampler gap",
            n.nats(rollout.largest_sampler_gap),
            "Between sampler and learner log-probs of the same tokens: the two code paths agree when it is tiny.",
        ),
    ]


def _cost(summary: RunSummary) -> list[Reading]:
    phases = ", ".join(f"{phase} {n.minutes(value)}" for phase, value in summary.seconds.items())
    return [
        Reading("wall time", n.minutes(summary.status.seconds), f"By phase: {phases}." if phases else "Whole run."),
        Reading(
            "steps",
            f"{summary.num_steps} rollout, {summary.num_updates} optimizer",
            f"{counted(summary.status.num_steps, 'rollout step')} were asked for.{_updates_meaning(summary)}",
        ),
    ]


def _updates_meaning(summary: RunSummary) -> str:
    recorded, made, planned = summary.num_updates, summary.num_updates_made, summary.num_updates_planned
    if recorded < made:
        return f" {made} optimizer steps were made; the rows of the others are missing."
    if planned is None or made >= planned:
        return ""
    return f" {planned} optimizer steps were planned; a rollout with few groups of mixed rewards gives fewer."
