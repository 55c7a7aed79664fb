"""Which runs are repetitions of one experiment: the same settings but for the seed."""

from __future__ import annotations

from collections.abc import Sequence

from covent.report.settings import Flat, differing, experiment, scalar
from covent.report.summary import method
from covent.store.coverage import is_own, lost_steps, spans
from covent.store.reader import Run
from covent.visible import visible

SAME = "is the same run as another one"
"""Why a copy does not count."""

_MOST_TOLD = 2
"""Settings in the name of an experiment."""


def experiments(runs: Sequence[Run]) -> list[str]:
    """The name of each run's experiment: its method's, with what sets it apart from others of that method.

    Runs share a name exactly if they differ in nothing but the seed and what `OF_NO_MATTER` lists. A run whose
    settings are lost is an experiment of its own.
    """
    words = method_names([(run.name, method(run)) for run in runs])
    settings = [experiment(run.header.config) for run in runs]
    found: list[str] = []
    for place, (run, word) in enumerate(zip(runs, words, strict=True)):
        if run.is_header_lost and not run.header.config:
            found.append(f"{word} · {run.folder.name}, settings not known ({place + 1})")
            continue
        others = [each for each, other in zip(settings, words, strict=True) if other == word and each]
        found.append(_name(word, settings[place], others))
    return [visible(name) for name in found]


def method_names(named: Sequence[tuple[str, str]]) -> list[str]:
    """One word for each run's method: the name that all its runs carry and no run of another, else its control's.

    Args:
        named: name and method of each run.

    Example:
        >>> method_names([("grpo", "ppo_clip"), ("grpo", "ppo_clip"), ("clock", "clip_cov"), ("clock", "kl_cov")])
        ['grpo', 'grpo', 'clip_cov', 'kl_cov']
    """
    names: dict[str, set[str]] = {}
    methods: dict[str, set[str]] = {}
    for name, kind in named:
        names.setdefault(kind, set()).add(name)
        methods.setdefault(name, set()).add(kind)
    return [name if len(names[kind]) == 1 and len(methods[name]) == 1 else kind for name, kind in named]


def repetitions(runs: Sequence[Run]) -> tuple[list[int], dict[int, str]]:
    """Places of the runs of one experiment that count, and why the others do not.

    A run is left out that is another one of them over again, as far as both go; one whose rows of steps.jsonl are not
    all there; and one that has not reached its end where others have, since it has no end to compare.
    """
    left_out: dict[int, str] = {}
    broken = [_broken(run) for run in runs]
    states = [run.status.state for run in runs]
    best = sorted(range(len(runs)), key=lambda at: (-len(runs[at].steps), broken[at] != "", states[at] != "finished"))
    for nth, place in enumerate(best):
        if any(_is_same(runs[place], runs[other]) for other in best[:nth] if other not in left_out):
            left_out[place] = SAME
    left_out |= {place: why for place, why in enumerate(broken) if why and place not in left_out}
    whole = max((run.status.num_steps for run in runs if run.status.state == "finished"), default=None)
    for place, run in enumerate(runs):
        if place not in left_out and whole is not None and (why := _unfinished(run, whole)):
            left_out[place] = why
    return [place for place in range(len(runs)) if place not in left_out], left_out


def _broken(run: Run) -> str:
    """Which rollout steps it made and does not hold; empty if none."""
    lost, made = lost_steps(run)
    steps = "steps" if len(lost) > 1 else "step"
    return f"lacks rollout {steps} {spans(lost, made)} in steps.jsonl" if lost else ""


def _unfinished(run: Run, whole: int) -> str:
    """Why it is not at its end; empty if it is. Without its status the rows tell.

    Args:
        run: one without gaps.
        whole: rollout steps of a finished run of the same settings.
    """
    status, done = run.status, lost_steps(run)[1].stop
    if status.state == "finished" or (status.is_lost and done >= whole):
        return ""
    if status.is_lost:
        return f"ended at {done} of {whole} rollout steps, and {status.message}"
    if done >= status.num_steps:
        return f"is {status.state} after the last of its {status.num_steps} rollout steps"
    return f"ended at {done} of {status.num_steps} rollout steps"


def unlike(one: Run, other: Run) -> list[str]:
    """Settings besides the control in which two runs differ, other than the seed and what changes no number."""
    paths = differing([experiment(one.header.config), experiment(other.header.config)])
    return [visible(".".join(path)) for path in paths if path[0] != "control"]


def made_otherwise(name: str, runs: Sequence[Run]) -> list[str]:
    """In what besides the seed the runs of one experiment were made otherwise: code, versions, machine, start model.

    Args:
        name: of the experiment.
        runs: those of it that count.
    """
    known = [run for run in runs if not run.is_header_lost]
    heads = [run.header for run in known]
    made: list[dict[str, str | None]] = [
        {"commit": head.commit, **head.versions, "hardware": head.hardware, "start model": head.start_model}
        for head in heads
    ]
    names = list(dict.fromkeys(fact for each in made for fact in each))
    other = [fact for fact in names if len({each.get(fact) for each in made}) > 1]
    starts = {(run.seed, run.header.start_model) for run in known}
    each_its_own = len({seed for seed, _ in starts}) == len({model for _, model in starts}) == len(starts)
    notes = []
    if "start model" in other and each_its_own and all(map(_starts_by_seed, known)):
        other.remove("start model")
        notes.append(f"each seed of {name} also makes its own start model")
    if other:
        notes.insert(0, f"not the seed alone: the runs of {name} also differ in {', '.join(map(visible, other))}")
    return notes


def _starts_by_seed(run: Run) -> bool:
    """Whether the settings make the start model with the seed: new weights, or a warm start."""
    model, warm = run.header.config.get("model"), run.header.config.get("warm_start")
    new = isinstance(model, dict) and model.get("path") is None
    return is_own(run.header.config) and (new or (isinstance(warm, dict) and bool(warm.get("steps"))))


def _is_same(one: Run, other: Run) -> bool:
    """Whether the same numbers were recorded, over the steps that both have."""
    if one.folder.resolve() == other.folder.resolve():
        return True
    both = list(zip(one.steps, other.steps, strict=False))
    return (
        one.seed == other.seed
        and bool(both)
        and all(
            (mine.step, mine.entropy.sum, mine.reward.sum) == (theirs.step, theirs.entropy.sum, theirs.reward.sum)
            for mine, theirs in both
        )
    )


def _name(word: str, mine: Flat, all_of_them: Sequence[Flat]) -> str:
    """A method, with the settings that others of its name have otherwise."""
    paths = differing(all_of_them)
    if not paths:
        return word
    told = [f"{'.'.join(path)} {scalar(mine.get(path))}" for path in paths[:_MOST_TOLD]]
    if len(paths) > _MOST_TOLD:
        # Two experiments that differ only in settings that are not told still have two names.
        others = list(dict.fromkeys(repr(sorted(map(repr, each.items()))) for each in all_of_them))
        told.append(f"settings {others.index(repr(sorted(map(repr, mine.items())))) + 1} of {len(others)}")
    return f"{word} · {', '.join(told)}"
