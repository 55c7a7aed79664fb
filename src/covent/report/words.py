"""What happened in a run, in plain sentences. Each is built from the summary and carries its numbers.

A sentence claims no more than its numbers: one seed is called one seed, an interval that holds 0 is said to hold 0,
and a fit that its rival matches is said to be matched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from covent.law import Forecast
from covent.law.series import counted
from covent.logs.explain import COLLAPSED, ROSE, Explanation
from covent.logs.phrases import law_text, typographic
from covent.logs.run_folder import END_POINTS, END_STEPS
from covent.report import numbers as n
from covent.report.accuracy import AccuracyChange, Difference
from covent.report.agreement import TREND_WINDOW
from covent.report.compare import Comparison
from covent.report.phases import Fate, fate_of
from covent.report.summary import (
    LawSummary,
    ProbeSummary,
    RunSummary,
    Thirds,
)

CLOSE = 0.02
"""Forecast error in accuracy, two points, that counts as close."""

AGREES = 0.95
"""Correlation from which Lemma 1 counts as accounting for the change; the slope must be within 0.2 of 1 as well."""

ONE_SIDED = 0.75
"""From this share of one sign on, what Lemma 1 leaves over is said to add up; errors of both signs would give 0.5."""

MOSTLY = 0.5
"""From this share of updates on in which a control took every candidate, the page says it with caution."""

PREDICTS = 0.3
"""Correlation below which a prediction is said not to predict."""

MOST_SETTINGS = 4
"""Settings that are named where runs differ in more than their control."""

Tone = Literal["plain", "good", "caution"]


@dataclass(frozen=True)
class Finding:
    """A sentence or two under one heading."""

    topic: str
    text: str
    tone: Tone = "plain"


def verdict(labels: Sequence[str], fates: Sequence[Fate | None], kinds: Sequence[str] = ()) -> str:
    """The page in one line: what became of the entropy of which runs.

    Args:
        labels: of the runs.
        fates: None where nothing is known.
        kinds: the method of each run; where all runs of a method fared alike, the method is named instead of them.
    """
    alike: dict[str, list[str]] = {}
    for label, told in zip(labels, fates, strict=True):
        if told is not None:
            alike.setdefault(told.verb, []).append(label)
    if not alike:
        return "Nothing measured yet"
    methods = dict(zip(labels, kinds or labels, strict=True))
    parts = [f"{verb} in {_named(_together(names, methods), len(labels))}" for verb, names in alike.items()]
    return f"Entropy {', '.join(parts)}"


def _together(names: Sequence[str], methods: Mapping[str, str]) -> list[str]:
    """Names of runs, with one name for all runs of a method where all are there."""
    found: dict[str, None] = {}
    for name in names:
        kind = methods[name]
        members = [label for label, method in methods.items() if method == kind]
        whole = len(members) > 1 and all(label in names for label in members)
        how_many = "both" if len(members) == 2 else f"all {len(members)}"
        found[f"{how_many} runs of {kind}" if whole else name] = None
    return list(found)


def headline(labels: Sequence[str], summaries: Sequence[RunSummary], found: Sequence[Comparison]) -> str:
    """What the page says in a few sentences: the runs against each other, or one run by itself."""
    if not found or len(found) > 3:
        known = [part for label, s in zip(labels, summaries, strict=True) if (part := _short(label, s))]
        # Many runs are better read in the table below.
        return " ".join(known[:3]) or "No rollout step was recorded yet, so there is nothing to say about entropy."
    parts = [_lead(comparison) for comparison in found]
    if len({summary.seed for summary in summaries}) == 1:
        parts.append("One seed for each: leads, not results.")
    return " ".join(parts)


def _lead(comparison: Comparison) -> str:
    """A run against its baseline: entropy, then the clear differences in accuracy before those that are not."""
    text = f"{comparison.label} ends with {n.times(_ratio(*comparison.end_entropy))} the entropy of"
    text += f" {comparison.baseline}."
    text += " They differ in more than the control." if comparison.other_settings else ""
    told = sorted(_told(comparison), key=lambda item: not item[1].shown)
    if not told:
        return text
    return f"{text} On the test problems {'; '.join(_clearly(name, value) for name, value in told)}."


def _told(comparison: Comparison) -> list[tuple[str, Difference]]:
    """avg@k, and pass@k at the largest k."""
    items = list(comparison.differences.items())
    return [item for item in items[:-1] if item[0].startswith("avg")] + items[-1:]


def _clearly(name: str, value: Difference) -> str:
    if not value.shown:
        return f"{name} shows no clear difference ({n.difference(value)})"
    return f"{name} is clearly {'higher' if value.value > 0 else 'lower'} ({n.difference(value)})"


def findings(summary: RunSummary) -> list[Finding]:
    """What happened in one run, in the order in which a reader asks."""
    found = [_ended(summary), _missing(summary), _entropy(summary), _gain(summary.thirds), *_held_out(summary)]
    found += [_law(summary.main_law), _forecast(summary.main_law), _control(summary)]
    found += [_accounted(summary), _predicted(summary.probe), _advice(summary)]
    return [finding for finding in found if finding is not None]


def log_findings(told: Explanation) -> list[Finding]:
    """What happened in the run behind a log, as `covent explain` says it."""
    found = [Finding(finding.topic, typographic(finding.text)) for finding in told.findings]
    next_step = Finding("What next", typographic(f"{told.advice} Reason: {told.reason}"))
    warned = [Finding("About the log", typographic(" ".join(told.warnings)), "caution")] if told.warnings else []
    return [*found, next_step, *warned]


def comparison_findings(
    found: Sequence[Comparison], summaries: Sequence[RunSummary], kinds: Sequence[str]
) -> list[Finding]:
    """What the runs say against each other, and how far that carries; `kinds` are the experiments of the runs."""
    lines = [_against(comparison) for comparison in found]
    seeds = _seeds(summaries, kinds, compared=bool(found)) if len(summaries) > 1 else None
    return lines if seeds is None else [*lines, seeds]


def _named(names: Sequence[str], num_runs: int) -> str:
    """A list of names as a person would say it, or a count where they are many."""
    if len(names) > 4:
        return f"{len(names)} of {num_runs} runs"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(label: str, summary: RunSummary) -> str:
    entropy = summary.entropy
    told = fate_of(summary)
    if told is None:
        return ""
    if entropy is None or entropy.ratio is None:
        return f"{label}: entropy {told.verb}."
    left = n.factor(entropy.ratio) if entropy.ratio > ROSE else n.share(entropy.ratio)
    change = f"from {n.plain(entropy.first)} to {n.nats(entropy.last)}, {left} of its start"
    return f"{label}: entropy went {change}; it {told.verb}."


def _ended(summary: RunSummary) -> Finding | None:
    status = summary.status
    if status.state == "finished":
        return None
    why = f" ({status.message})" if status.message else ""
    how = {"running": "is still running, or was killed,", "interrupted": "was interrupted"}.get(status.state, "failed")
    return Finding(
        "Not a whole run",
        f"The run {how}{why} after {max(summary.num_steps, status.step)} of {status.num_steps} rollout steps; all here"
        " is about those.",
        "caution",
    )


def _missing(summary: RunSummary) -> Finding | None:
    sentences = [note for note in summary.notes if ".jsonl" in note and "missing" in note]
    sentences += [sentence for found in summary.gaps.values() for sentence in found]
    if not sentences:
        return None
    sentences.append("Counts and means on this page are of the rows that are there.")
    return Finding("Rows are missing", " ".join(sentences), "caution")


def _entropy(summary: RunSummary) -> Finding | None:
    entropy = summary.entropy
    told = fate_of(summary)
    if entropy is None or entropy.ratio is None or told is None:
        return None
    steps = min(END_STEPS, summary.num_steps)
    text = (
        f"Policy entropy went from {n.plain(entropy.first)} to {n.nats(entropy.last)} (mean of the last {steps}"
        f" steps): {n.share(entropy.ratio)} of its start is left"
    )
    text += f". It {told.verb}: {told.rule}."
    text += "" if entropy.half_life is None else f" Half of it was gone by rollout step {entropy.half_life}."
    return Finding("Entropy", text, "caution" if entropy.ratio < COLLAPSED or entropy.ratio > ROSE else "plain")


def _gain(thirds: Thirds | None) -> Finding | None:
    if thirds is None:
        return None
    if thirds.gain_shares is None:
        text = f"{_sentence(thirds.measure)} did not rise: {n.points(thirds.gain)} over the run."
        return Finding("Accuracy", text, "caution")
    first, _, last = thirds.gain_shares
    text = f"{_sentence(thirds.measure)} rose by {n.fixed(100 * thirds.gain, 1)} points, from"
    text += f" {n.percent(thirds.start_accuracy)} to {n.percent(thirds.end_accuracy)} (mean of the last {END_POINTS}"
    text += " points of the law)."
    text += f" The first third of the run won {n.percent(first, 0)} of that"
    if thirds.entropy_shares is not None:
        text += f" and spent {n.percent(thirds.entropy_shares[0], 0)} of the entropy that was spent; the last third won"
        return Finding("Accuracy", f"{text} {n.percent(last, 0)} and spent {n.percent(thirds.entropy_shares[2], 0)}.")
    text += f"; the last third won {n.percent(last, 0)}."
    return Finding("Accuracy", text)


def _held_out(summary: RunSummary) -> list[Finding]:
    test = [change for change in summary.accuracy if change.split == "test" and change.start and change.end]
    if not test:
        return []
    shown = [change for change in test if change.measure == "greedy" or change.measure.startswith("avg")]
    text = f"On {test[0].num_problems} test problems: " + "; ".join(map(_change, shown)) + "."
    widest = [change for change in test if change.measure.startswith("pass")][-1:]
    tone: Tone = "plain"
    for change in widest:
        text += f" {_coverage(change)}"
        tone = "caution" if change.difference is not None and change.difference.high < 0 else "plain"
    return [Finding("Held-out problems", text, tone)]


def _change(change: AccuracyChange) -> str:
    assert change.start is not None
    return f"{change.measure} {n.percent(change.start.value)} → {n.estimate(change.end)}"


def _coverage(change: AccuracyChange) -> str:
    """pass@k at the largest k asks whether the policy still reaches what it could reach."""
    start, paired = change.start, change.difference
    assert start is not None
    text = f"{change.measure}, which asks what the policy can still reach, went {_change(change).partition(' ')[2]}"
    if paired is None:
        return text + "."
    if not paired.shown:
        return f"{text}: paired by problem {n.difference(paired)}, an interval that holds 0, so no change is shown."
    return f"{text}: paired by problem {n.difference(paired)}, {'a gain' if paired.value > 0 else 'a loss'}."


def _law(law: LawSummary) -> Finding | None:
    if law.fit is None:
        return Finding("The law", f"No law: {law.reason}", "caution")
    of = "" if law.source == "validation" else "On the training reward, since no validation accuracy gives a point: "
    return Finding("The law", of + law_text(law.fit), "plain" if law.fit.is_sound else "caution")


def _forecast(law: LawSummary) -> Finding | None:
    lines = [line for forecast in law.forecasts if (line := forecast_text(forecast))]
    if not lines:
        return None
    errors = [f.unconditional.end_error for f in law.forecasts if f.unconditional.end_error is not None]
    close = bool(errors) and abs(errors[-1]) <= CLOSE
    return Finding("Forecast", " ".join(lines), "good" if close else "plain")


def forecast_text(forecast: Forecast, scale: float = 1.0) -> str:
    """What one first part of a run foretold, and what then happened.

    Args:
        forecast: from that part.
        scale: what its accuracies are divided by to be fractions.
    """
    error, given = forecast.unconditional.end_error, forecast.conditional.end_error
    start = f"From the first {n.percent(forecast.fraction, 0)} ({counted(forecast.num_prefix, 'point')})"
    if error is None:
        return f"{start} no forecast is possible."
    text = f"{start} the end was forecast {_missed(error / scale)}"
    if forecast.unchanged.end_error is not None:
        text += f"; “no change from there” would be {_missed(forecast.unchanged.end_error / scale)}"
    if given is not None:
        text += f"; told the later entropy, which a forecast is not, the law would be {_missed(given / scale)}"
    return text + ("." if forecast.identified else ". These points do not determine the law: it carries no weight.")


def _missed(error: float) -> str:
    size = n.fixed(100 * abs(error), 1)
    return "right to 0.1 points" if float(size) == 0 else f"{size} points too {'high' if error > 0 else 'low'}"


def _control(summary: RunSummary) -> Finding | None:
    control = summary.control
    if control is None:
        return None
    if control.asked_frac is None:
        return Finding("Control", f"The control {control.name} selects no tokens: entropy was left to itself.")
    text = (
        f"{control.name} was asked for {n.share(control.asked_frac)} of the tokens and touched"
        f" {n.share(control.realised_frac)} ({counted(control.num_selected, 'token')} in"
        f" {counted(control.num_updates, 'update')}{_not_all(summary)})."
    )
    if control.took_all_frac > 0:
        text += f" In {n.share(control.took_all_frac)} of the updates it took every candidate token: there the"
        text += " share no longer decides, the choice of candidates does."
    if control.no_candidate_frac:
        text += f" In {n.share(control.no_candidate_frac)} of the updates there was no candidate at all."
    for note, count in control.notes.items():
        text += f" Its note in {count} of {control.num_updates} updates: “{note}”"
    return Finding("Control", text, "caution" if control.took_all_frac > MOSTLY else "plain")


def _not_all(summary: RunSummary) -> str:
    made = summary.num_updates_made
    return f", of {made} made: the rest is missing" if summary.num_updates < made else ""


def _accounted(summary: RunSummary) -> Finding | None:
    probe = summary.probe
    if probe is None:
        return None
    whole = probe.agreement("accounted", "optimizer step", "kept")
    if whole.correlation is None or whole.slope is None:
        return None
    good = whole.correlation >= AGREES and abs(whole.slope - 1) <= 0.2
    accounted = probe.explained["accounted"]
    text = (
        f"On {probe.num_states} fixed probe states, Lemma 1 {'accounts' if good else 'does not account'} for the change"
        f" of entropy step by step: correlation {n.fixed(whole.correlation, 3)}, slope {n.fixed(whole.slope)} over"
        f" {whole.num_points} optimizer steps{fewer_updates(summary)}. In all it gives {n.nats(accounted)}, observed"
        f" were {n.plain(probe.observed)}."
    )
    if probe.one_sided_frac is not None and probe.one_sided_frac >= ONE_SIDED:
        text += (
            f" The rest, {n.signed(probe.observed - accounted, 3)} nats, is of second order, and"
            f" {n.percent(probe.one_sided_frac, 0)} of it has one sign, so it adds up over the run."
        )
    return Finding("Explained", text, "good" if good else "caution")


def fewer_updates(summary: RunSummary) -> str:
    """Why fewer optimizer steps are recorded than one would think: rows are missing, or fewer were made."""
    recorded, made, planned = summary.num_updates, summary.num_updates_made, summary.num_updates_planned
    if recorded < made:
        return f" (of {made} made: the rows of the others are missing)"
    if planned is None or made >= planned:
        return ""
    return f" (of {planned} planned: a rollout with few groups of mixed rewards gives fewer)"


def _predicted(probe: ProbeSummary | None) -> Finding | None:
    if probe is None:
        return None
    whole = probe.agreement("theorem 2", "rollout step", "kept")
    bare = probe.agreement("theorem 2", "rollout step", "removed")
    if whole.correlation is None:
        return None
    text = (
        "Minus the covariance before each step (Theorem 2) correlates with the change that followed by"
        f" {n.fixed(whole.correlation)} over {whole.num_points} rollout steps."
    )
    if bare.correlation is None:
        return Finding("Predicted", f"{text} The run is too short to remove the common trend.")
    text += f" With the common trend removed ({TREND_WINDOW}-step moving mean), {n.fixed(bare.correlation)} is left"
    if whole.correlation < PREDICTS:
        return Finding("Predicted", f"{text}: it does not predict this run.", "caution")
    mostly = bare.correlation < whole.correlation / 2
    return Finding("Predicted", text + (": most of the agreement is the common trend." if mostly else "."))


def _advice(summary: RunSummary) -> Finding | None:
    if summary.advice is None:
        return None
    return Finding("What next", f"{summary.advice.text} Reason: {summary.advice.reason}")


def _against(comparison: Comparison) -> Finding:
    mine, theirs = comparison.end_entropy
    my_mean, their_mean = comparison.mean_entropy
    text = (
        f"Entropy at the end {n.nats(mine)} against {n.plain(theirs)}; mean over the {comparison.num_steps} common"
        f" steps {n.plain(my_mean)} against {n.plain(their_mean)}."
    )
    for measure, value in _told(comparison):
        verdict = "" if value.shown else "; the interval holds 0, so no difference is shown"
        text += f" {measure} on the test problems: {n.difference(value)}{verdict}."
    if comparison.common_start is False:
        text += " The two runs did not start from the same weights."
    if comparison.other_settings:
        some = ", ".join(comparison.other_settings[:MOST_SETTINGS])
        more = len(comparison.other_settings) - MOST_SETTINGS
        text += f" Besides the control they differ in {some}{f' and {more} more settings' if more > 0 else ''}, so the"
        text += " control alone does not explain this."
    return Finding(f"{comparison.label} against {comparison.baseline}", text)


def _seeds(summaries: Sequence[RunSummary], kinds: Sequence[str], *, compared: bool) -> Finding | None:
    """How much the runs on this page can carry; nothing where one seed of one method is compared with nothing."""
    known = list(zip(summaries, kinds, strict=True))
    counts = {kind: len({s.seed for s, other in known if other == kind}) for kind in kinds}
    if max(counts.values()) == 1 and not compared:
        return None
    if max(counts.values()) == 1:
        text = (
            "One seed for each method. The intervals are about the choice of problems, not about training again: with"
            " another seed any of these differences may change size or sign."
        )
        return Finding("How far this carries", text, "caution")
    seeds = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    widest = max(counts, key=lambda kind: counts[kind])
    text = f"Seeds: {seeds}. Compare within a seed first; "
    return Finding("How far this carries", text + _spread([s for s, kind in known if kind == widest], widest))


def _spread(summaries: Sequence[RunSummary], kind: str) -> str:
    ends = [s.entropy.last for s in summaries if s.entropy is not None]
    if not ends:
        return "no entropy was recorded."
    return f"over the seeds of {kind} alone the final entropy runs from {n.plain(min(ends))} to {n.nats(max(ends))}."


def _ratio(mine: float, theirs: float) -> float | None:
    return mine / theirs if theirs > 0 else None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
