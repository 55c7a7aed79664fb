"""What the row files of a run cover, held against what steps.jsonl and the settings say they should."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from covent.store.reader import Run

Gaps = dict[str, list[str]]
"""By row file, without its ending: what it lacks, in sentences."""

_MOST_SPANS = 3


def gaps(run: Run, files: Collection[str]) -> Gaps:
    """Rows that are missing, by file.

    Optimizer steps are counted in each row of steps.jsonl; evaluations, samples, verdicts and attributions are due by
    the settings. What nothing counts cannot be missed: forecasts, resumes, rejected rows, faults of verifiers, and an
    engine's own evaluations.

    Args:
        run: as it was read.
        files: row files that are there, without their ending.
    """
    found = {
        "steps": _steps(run),
        "updates": _updates(run),
        "evaluations": _evaluations(run) if is_own(run.header.config) else "",
        "verdicts": _verdicts(run) if is_own(run.header.config) else "",
        "samples": _samples(run, files),
        "attributions": _attributions(run),
        "faults": _faults(run),
    }
    return {kind: [sentence] for kind, sentence in found.items() if sentence}


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether covent's trainer made the run: it evaluates when its settings say, once at a step. Others need not."""
    return "task" in config


def lost_steps(run: Run) -> tuple[list[int], range]:
    """Rollout steps that were made and have no row in steps.jsonl, and all that were made.

    They are counted by status.json and by the optimizer steps of a later rollout; a rollout that was left out as not
    finite has no row and is not lost.
    """
    told = {row.step for row in run.steps} | {fault.step for fault in run.faults if fault.update is None}
    updated = {row.step for row in run.updates}
    made = range(min(told | updated, default=0), max(run.status.step, *(step + 1 for step in told), *updated, 0))
    return [step for step in made if step not in told], made


def _steps(run: Run) -> str:
    """Rollout steps of which other files speak; the last one may still be going on."""
    last = max((row.step for row in run.steps), default=-1)
    later = max((row.step for row in run.updates), default=-1)
    if later <= last + 1:
        return ""
    return f"steps.jsonl ends at {_at(last)}, updates.jsonl at step {later}."


def _updates(run: Run) -> str:
    made = Counter(row.step for row in run.updates)
    lacking = [row.step for row in run.steps if made[row.step] < row.num_updates]
    if not lacking:
        return ""
    all_made = sum(row.num_updates for row in run.steps)
    held = sum(min(made[row.step], row.num_updates) for row in run.steps)
    where = _steps_at(lacking, [row.step for row in run.steps])
    return f"updates.jsonl holds {held} of the {all_made} optimizer steps made; some are missing at {where}."


def _evaluations(run: Run) -> str:
    settings = _section(run, "evaluation")
    made = {(row.split, row.step) for row in run.evaluations}
    lacks = []
    if _number(settings.get("validation_problems")):
        due = _middles(run, settings)
        lacking = [step for step in due if ("validation", step) not in made]
        if lacking:
            lacks.append(f"the validation at {_steps_at(lacking, due)}")
    if _number(settings.get("test_problems")) and run.steps:
        ends = {0: "the test before the first step"}
        if run.status.state == "finished":
            ends[run.status.step] = f"the test after step {run.status.step}"
        lacks += [text for step, text in ends.items() if ("test", step) not in made]
    return f"evaluations.jsonl lacks {_listed(lacks)}." if lacks else ""


def _verdicts(run: Run) -> str:
    """Each problem of a test has one; a run that was stopped in between may lack those of its last."""
    if not _number(_section(run, "evaluation").get("test_problems")):
        return ""
    held = Counter(row.step for row in run.verdicts if row.split == "test")
    lacking = [
        f"{held[row.step]} of {row.num_problems} after step {row.step}"
        for row in run.evaluations
        if row.split == "test" and held[row.step] < row.num_problems
    ]
    return f"verdicts.jsonl holds the test problems in part: {', '.join(lacking)}." if lacking else ""


def _samples(run: Run, files: Collection[str]) -> str:
    own = is_own(run.header.config)
    kept = run.header.config.get("samples_kept") if own else _section(run, "covent").get("samples_kept")
    if not _number(kept) or not (own or "samples" in files):
        return ""
    trained = {row.step for row in run.steps if row.num_updates}
    due = [step for step in _middles(run, _section(run, "evaluation")) if step in trained]
    faulty = {row.step for row in run.faults}
    there = {row.step for row in run.samples}
    lacking = [step for step in due if step not in there and step not in faulty]
    return f"samples.jsonl holds no response of {_steps_at(lacking, due)}." if lacking else ""


def _attributions(run: Run) -> str:
    every = run.header.config.get("attribute_every")
    if not _number(every):
        return ""
    due = [row.update for row in run.updates if row.update % every == 0 and row.probe is not None]
    there = {row.update for row in run.attributions}
    lacking = [update for update in due if update not in there]
    return f"attributions.jsonl lacks optimizer steps {spans(lacking, due)}." if lacking else ""


def _faults(run: Run) -> str:
    """A rollout that was left out as a whole counts where it has a row, as one with a bad reward has."""
    rows = {row.step for row in run.steps}
    told = sum(row.num_not_applied for row in run.steps)
    held = sum(row.update is not None or row.step in rows for row in run.faults)
    if held >= told:
        return ""
    return f"faults.jsonl holds {held} of the {told} optimizer steps that were not applied."


def spans(chosen: Sequence[int], of: Sequence[int]) -> str:
    """Numbers in few words: those that follow one another in `of` as first and last.

    Example:
        >>> spans([2, 7, 12, 22], [2, 7, 12, 17, 22])
        '2 to 12 and 22'
    """
    place = {number: index for index, number in enumerate(of)}
    found: list[list[int]] = []
    for number in chosen:
        if found and place[number] == place[found[-1][-1]] + 1:
            found[-1].append(number)
        else:
            found.append([number])
    texts = [str(span[0]) if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in found]
    if len(texts) > _MOST_SPANS:
        more = sum(map(len, found[_MOST_SPANS:]))
        texts = [*texts[:_MOST_SPANS], f"{more} more"]
    return _listed(texts)


def _listed(texts: Sequence[str]) -> str:
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def _steps_at(chosen: Sequence[int], of: Sequence[int]) -> str:
    return f"rollout step{'s' if len(chosen) > 1 else ''} {spans(chosen, of)}"


def _middles(run: Run, settings: Mapping[str, Any]) -> list[int]:
    """Rollout steps in the middle of a block of the law, where the policy is validated and responses are kept."""
    every = settings.get("every")
    if not _number(every):
        return []
    return [row.step for row in run.steps if row.step % every == every // 2]


def _section(run: Run, name: str) -> Mapping[str, Any]:
    section = run.header.config.get(name)
    return section if isinstance(section, dict) else {}


def _number(value: object) -> TypeGuard[int]:
    """Whether a setting is a whole number above 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _at(step: int) -> str:
    return f"step {step}" if step >= 0 else "no step"
