"""The verdict on a run: phase, accuracy, entropy spent, ceiling, what to do; each with why and how sure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from covent.logs.explain import Explanation
from covent.logs.join import EDGE_FRAC
from covent.logs.phrases import typographic
from covent.logs.results import FitResult
from covent.logs.run_folder import END_STEPS, TRAINING_REWARD
from covent.report import numbers as n
from covent.report.phases import fate
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
        return []
    accuracy = _accuracy(subject)
    between = [] if accuracy is None else [accuracy]
    found = [_phase(subject, told), *between, _spent(subject, told), _ceiling(law), _next(told, law)]
    return [_doubted(answer, subject) for answer in found]


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


def _phase(subject: Subject, told: Explanation) -> Answer:
    steps = 0 if subject.points is None else len(subject.points.entropies)
    words = fate(told.phase, told.entropy_spent_frac, steps)
    few = steps < FEW_STEPS
    return Answer(
        "Phase",
        words.name,
        f"By rule: {words.rule}.",
        "low" if few else "high",
        f"few points: {steps} entropies" if few else f"a rule on {steps} measured entropies",
    )


def _accuracy(subject: Subject) -> Answer | None:
    """Sampled accuracy on test problems before and after; None for a run without both."""
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


def _spent(subject: Subject, told: Explanation) -> Answer:
    share = told.entropy_spent_frac
    known = subject.run is not None or "?" not in told.entropy_definition
    verb = "spent" if share >= 0 else "gained"
    ends = f"mean of the last {END_STEPS} steps" if subject.run is not None else f"means of {n.percent(EDGE_FRAC, 0)}"
    return Answer(
        "Entropy spent",
        f"{n.share(abs(share))} {verb}",
        f"From {n.plain(told.entropy_start)} to {n.nats(told.entropy_end)} ({ends}).",
        "high" if known else "medium",
        told.entropy_definition if known else f"the log does not say all of its definition: {told.entropy_definition}",
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
