"""The verdict on a run: phase, accuracy, entropy spent, ceiling, what to do; each with why and how sure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from covent.law.series import in_percent
from covent.logs.explain import Explanation
from covent.logs.join import EDGE_FRAC
from covent.logs.phrases import typographic
from covent.logs.results import FitResult
from covent.logs.run_folder import END_STEPS, TRAINING_REWARD, entropies
from covent.report import numbers as n
from covent.report.phases import are_steps_lost, fate_of_subject
from covent.report.subject import Subject

RESTS_ON = {
    "Phase": ("steps",),
    "Entropy spent": ("steps",),
    "Ceiling": ("steps", "evaluations"),
    "What to do": ("steps", "evaluations"),
}
"""By question: the row files that its answer is made of. The accuracies are each of one row, which is there or not."""

Confidence = Literal["high", "medium", "low", "none"]

FEW_STEPS = 20
"""Fewer entropies tell a phase with low confidence only."""

WIDE = 0.1
"""A ceiling whose interval is wider than this share of it is told with medium confidence."""


@dataclass(frozen=True)
class Answer:
    """One line of the verdict."""

    question: str
    answer: str
    reason: str
    confidence: Confidence
    why: str
    """Why no more and no less confident."""


def answers(subject: Subject) -> list[Answer]:
    """The lines for one run; fewer where something is not known."""
    told, law = subject.told, subject.fit
    if told is None or law is None:
        found = [_phase(subject), _accuracy(subject), *_without_law(subject)]
    else:
        found = [_phase(subject), _accuracy(subject), _spent(subject, told), _ceiling(law), _next(told, law)]
    return [_doubted(answer, subject) for answer in found if answer is not None]


def _without_law(subject: Subject) -> list[Answer]:
    """What a run without a point of the law still says."""
    summary = subject.summary
    if summary is None or summary.entropy is None:
        return []
    reason = f"There is no law: {summary.main_law.reason}"
    none = Answer("Ceiling", "Not identified", reason, "none", "no number")
    entropy = summary.entropy
    spent = 0.0 if entropy.ratio is None else 1 - entropy.ratio
    return [_spent_from(entropy.first, entropy.last, spent, entropy.definition), none]


def _spent_from(first: float, last: float, spent_frac: float, definition: str, *, of_log: bool = False) -> Answer:
    verb = "spent" if spent_frac >= 0 else "gained"
    edge = n.percent(EDGE_FRAC, 0)
    ends = f"means of the first and the last {edge} of the steps" if of_log else f"mean of the last {END_STEPS} steps"
    known = _is_known(definition)
    return Answer(
        "Entropy spent",
        f"{n.share(abs(spent_frac))} {verb}",
        f"From {n.plain(first)} to {n.nats(last)} ({ends}).",
        "high" if known else "medium",
        definition if known else f"the log does not say all of its definition: {definition}",
    )


def _is_known(definition: str) -> bool:
    """Whether it is said in full which entropy this is; a run folder says it always."""
    return "?" not in definition


def _doubted(answer: Answer, subject: Subject) -> Answer:
    """An answer is not sure where rows that it rests on are missing."""
    if answer.question not in RESTS_ON or answer.confidence == "none" or subject.run is None:
        return answer
    run = subject.run
    told = [note for note in run.notes if "missing" in note]
    missing = [
        file for file in RESTS_ON[answer.question] if file in run.gaps or any(f"{file}.jsonl" in note for note in told)
    ]
    if not missing:
        return answer
    return replace(answer, confidence="low", why=f"rows are missing in {' and '.join(missing)}.jsonl")


def _phase(subject: Subject) -> Answer | None:
    words = fate_of_subject(subject)
    if words is None:
        return None
    if subject.summary is not None and are_steps_lost(subject.summary):
        return Answer("Phase", words.name, f"{words.rule[:1].upper()}{words.rule[1:]}.", "none", "no entropy is there")
    steps = _num_entropies(subject)
    few = steps < FEW_STEPS
    return Answer(
        "Phase",
        words.name,
        f"By rule: {words.rule}.",
        "low" if few else "high",
        f"few points: {steps} entropies" if few else f"a rule on {steps} measured entropies",
    )


def _num_entropies(subject: Subject) -> int:
    if subject.points is not None:
        return len(subject.points.entropies)
    return 0 if subject.run is None else len(entropies(subject.run)[0])


def _accuracy(subject: Subject) -> Answer | None:
    """Sampled accuracy on test problems before and after, of a log what it logged; None for a run without both."""
    if subject.run is None and subject.told is not None:
        return _logged_accuracy(subject.told)
    changes = [] if subject.summary is None else subject.summary.accuracy
    change = next((c for c in changes if c.split == "test" and c.measure.startswith("avg")), None)
    if change is None or change.start is None or change.end is None:
        return None
    ends = f"{n.percent(change.start.value)} → {n.percent(change.end.value)}"
    reason = f"{change.measure} on {change.num_problems} test problems, before → after."
    if change.difference is None:
        return Answer("Accuracy", ends, reason, "medium", "no interval of the difference")
    clear = change.difference.shown
    why = f"{n.difference(change.difference)}, paired by problem{'' if clear else ': no clear change'}"
    return Answer("Accuracy", ends, reason, "high" if clear else "low", why)


def _logged_accuracy(told: Explanation) -> Answer:
    ends = [in_percent(value, told.unit) for value in (told.accuracy_start, told.accuracy_end)]
    edge = n.percent(EDGE_FRAC, 0)
    return Answer(
        "Accuracy",
        typographic(" → ".join(ends)),
        f"{told.metric}, means of the first and the last {edge} of {told.n} points.",
        "medium",
        "as logged, without an interval: the log has no answers to single problems",
    )


def _spent(subject: Subject, told: Explanation) -> Answer:
    return _spent_from(
        told.entropy_start,
        told.entropy_end,
        told.entropy_spent_frac,
        told.entropy_definition,
        of_log=subject.run is None,
    )


def _ceiling(law: FitResult) -> Answer:
    doubt = typographic(law.verdict[0]) if law.verdict else ""
    of = "Of the training reward, for want of validation accuracy. " if law.metric == TRAINING_REWARD else ""
    doubt = f"{of}{doubt}"
    if not law.identified or law.ceiling is None:
        return Answer("Ceiling", "Not identified", doubt or "The points do not determine the law.", "none", "no number")
    if not law.is_possible:
        return Answer("Ceiling", "Not determined", doubt, "none", f"the law gives {n.ceiling(law)}, which cannot be")
    if law.is_beaten:
        return Answer("Ceiling", n.ceiling(law), doubt, "low", "another curve fits clearly better")
    controlled = any(sentence.startswith("Entropy was under control") for sentence in law.verdict)
    wide = law.ceiling_interval is None or law.ceiling_interval[1] - law.ceiling_interval[0] > WIDE * law.ceiling
    if controlled or wide:
        why = "entropy was under control, where the law is no limit" if controlled else "a wide interval"
        return Answer("Ceiling", n.ceiling(law), f"The law at zero entropy. {doubt}".strip(), "medium", why)
    reason = f"The law at zero entropy. {of}".strip()
    if not _is_known(law.entropy_definition):
        return Answer("Ceiling", n.ceiling(law), reason, "medium", "the log does not say which entropy it holds")
    return Answer("Ceiling", n.ceiling(law), reason, "high", "identified, possible, no rival better")


def _next(told: Explanation, law: FitResult) -> Answer:
    by_law = "law" in told.advice or "law" in told.reason or told.gain_won_frac is not None
    if by_law:
        # Advice is no surer than the ceiling that it rests on, and not sure of a run too short to tell.
        sure = "none" if told.phase == "too short" else _ceiling(law).confidence
        confidence: Confidence = sure if sure in ("high", "medium") else "low"
    else:
        confidence = "medium"
    why = {
        "high": "it rests on the law, which is sound here",
        "medium": "it rests on the law, and is no surer than its ceiling" if by_law else "a rule on what was measured",
        "low": "the law carries no weight here",
    }[confidence]
    return Answer("What to do", told.advice, f"{told.reason[:1].upper()}{told.reason[1:]}", confidence, why)
