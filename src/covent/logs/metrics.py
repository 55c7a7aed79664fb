"""Which metric of a log is the accuracy R, which the entropy H, and what else is worth telling.

A choice among several is never made silently: one name per rank is taken, several are an error that lists them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from covent.errors import suggestion
from covent.logs.definitions import ENTROPY_METRICS, EntropyMetric, engine_of
from covent.logs.rows import LogError, LoggedRun

Kind = Literal["validation", "training"]

ACCURACY_PATTERNS: tuple[tuple[Kind, str], ...] = (
    # verl: the mean over samples; best@N and maj@N are other quantities.
    ("validation", r"val-core/.+/(acc|reward|score)/mean@\d+|val/test_score/.+"),
    # TRL and what derives from it, as logged and as its trackers rename it.
    ("validation", r"eval_rewards/.+/mean|eval/rewards/.+/mean"),
    ("validation", r"eval_reward|eval/reward"),
    # prime-rl and SkyRL.
    ("validation", r"eval/.+/avg@\d+|eval/.+/avg_score"),
    ("validation", r"(eval|test|val|validation)[/_](.+[/_])?(acc|accuracy|correct|score|pass@1)"),
    ("validation", r"val_correct/all/mean|(acc|accuracy|R|pass@1)"),
    ("training", r"critic/score/mean|critic/rewards/mean"),
    ("training", r"(train/)?rewards/.+/mean"),
    ("training", r"(train/)?reward|(train/)?reward/mean|(.+/)?reward/mean"),
)
"""(kind, pattern over the whole name): the ranks of a search for R, validation before training."""

ALSO_KNOWN = {
    "zero_variance": r"(train/)?frac_reward_zero_std",
    "clipped_length": r"(train/)?completions/clipped_ratio|response_length/clip_ratio",
    "length": r"(train/)?completions/mean_length|response_length/mean",
    "clip_share": r"(train/)?clip_ratio/region_mean|actor/pg_clipfrac",
    "grad_norm": r"(train/)?grad_norm|actor/grad_norm|optim/grad_norm",
    "covariance": r"(.+/)?cov(ariance)?(/mean|_mean)?",
}
"""Metrics that `explain` tells of where a log has them."""

_SHOWN = 8


@dataclass(frozen=True)
class Chosen:
    """The metrics that stand for R; several are averaged with equal weight."""

    names: tuple[str, ...]
    kind: Kind
    note: str = ""

    @property
    def label(self) -> str:
        """The name, or the names with the averaging said."""
        return self.names[0] if len(self.names) == 1 else f"mean of {', '.join(self.names)}"


def accuracy_metrics(run: LoggedRun, wanted: str | None = None) -> Chosen:
    """The metrics that stand for R.

    Args:
        run: the log.
        wanted: the user's choice: a name, or a pattern with * whose matches are averaged with equal weight.

    Raises:
        LogError: `wanted` does not exist; or nothing in the log looks like an accuracy; or several do, and the user
        must
            choose.
    """
    names = run.metrics
    if wanted is not None:
        chosen = _wanted(run, names, wanted, "metric")
        wrong = next((name for name in chosen.names if "entropy" in name.lower()), None)
        if wrong is not None:
            raise LogError(
                f"{run.source}: --metric '{wanted}' takes '{wrong}', an entropy, for the accuracy R. Name the accuracy"
                " with --metric, and the entropy with --entropy."
            )
        return chosen
    for kind, pattern in ACCURACY_PATTERNS:
        found = _distinct(run, [name for name in names if re.fullmatch(pattern, name)])
        if len(found) > 1:
            raise LogError(_ask(run, "an accuracy", found, "--metric"))
        if found:
            note = (
                f"No validation accuracy was logged, so R is the training reward '{found[0]}': it moves with the"
                " problems of each step, and the law is stated for validation accuracy."
                if kind == "training"
                else ""
            )
            return Chosen((found[0],), kind, note)
    raise LogError(
        f"{run.source} holds no metric that covent knows as an accuracy. Name it with --metric. {_inventory(names)}"
    )


def entropy_metric(run: LoggedRun, wanted: str | None = None) -> tuple[str, EntropyMetric, str]:
    """The metric that is the policy's entropy, what it means, and what had to be decided.

    Args:
        run: the log.
        wanted: the user's choice.

    Raises:
        LogError: `wanted` does not exist; or no entropy was logged; or several entropies are equally good.
    """
    names = run.metrics
    if wanted is not None:
        (name, *more) = _wanted(run, names, wanted, "entropy").names
        if more:
            raise LogError(
                f"--entropy '{wanted}' matches {1 + len(more)} metrics: name one of {name}, {', '.join(more)}."
            )
        return name, _known_entropy(name, names), ""
    for metric in ENTROPY_METRICS:
        found = _distinct(run, [name for name in names if metric.matches(name)])
        if len(found) > 1:
            raise LogError(_ask(run, "an entropy", found, "--entropy"))
        if found:
            others = [name for name in names if _any_entropy(name) and name not in found]
            note = f"Of several entropies '{found[0]}' was taken; also logged: {', '.join(others)}." if others else ""
            return found[0], _known_entropy(found[0], names), note
    near = [name for name in names if "entrop" in name.lower()]
    if near:
        raise LogError(_ask(run, "an entropy", near, "--entropy"))
    raise LogError(
        f"{run.source} holds no entropy, so there is nothing to fit. {_how_to_log(names)} {_inventory(names)}"
    )


def also_known(run: LoggedRun) -> dict[str, str]:
    """Names of the metrics in `ALSO_KNOWN` that the log has, by their key there."""
    names = run.metrics
    matches = (
        (key, next((name for name in names if re.fullmatch(pattern, name)), None))
        for key, pattern in ALSO_KNOWN.items()
    )
    return {key: name for key, name in matches if name is not None}


def _wanted(run: LoggedRun, names: Sequence[str], wanted: str, option: str) -> Chosen:
    found = [name for name in names if name == wanted] or [name for name in names if fnmatchcase(name, wanted)]
    if not found:
        raise LogError(
            f"{run.source} has no metric '{wanted}', which --{option} asks for. {suggestion(wanted, list(names))}"
        )
    kind: Kind = "training" if all(_is_training(name) for name in found) else "validation"
    note = f"R is the mean of {len(found)} metrics with equal weight." if len(found) > 1 else ""
    return Chosen(tuple(found), kind, note)


def _is_training(name: str) -> bool:
    return any(kind == "training" and re.fullmatch(pattern, name) for kind, pattern in ACCURACY_PATTERNS)


def _distinct(run: LoggedRun, names: Sequence[str]) -> list[str]:
    """The names whose values differ: TRL logs one reward function twice, once as the sum over functions."""
    seen: dict[tuple[tuple[int | None, float], ...], str] = {}
    for name in names:
        values = tuple((row.step, value) for row in run.rows if (value := row.values.get(name)) is not None)
        seen.setdefault(values, name)
    return list(seen.values())


def _known_entropy(name: str, names: Sequence[str]) -> EntropyMetric:
    engine = engine_of(list(names))
    for metric in ENTROPY_METRICS:
        # The bare word is TRL's only in a log that is TRL's.
        if metric.matches(name) and not (metric.engine == "TRL" and engine != "TRL"):
            return metric
    return ENTROPY_METRICS[-1]


def _any_entropy(name: str) -> bool:
    return any(metric.matches(name) for metric in ENTROPY_METRICS)


def _ask(run: LoggedRun, what: str, found: Sequence[str], option: str) -> str:
    shown = "\n".join(f"  {option} '{name}'" for name in found[:_SHOWN])
    more = f"\n  … and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{run.source} holds {len(found)} metrics that could be {what}; say which one is meant:\n{shown}{more}"


def _how_to_log(names: Sequence[str]) -> str:
    engine = engine_of(list(names))
    if engine == "verl":
        return "verl logs actor/entropy unless it bypasses old log-probabilities; set actor.calculate_entropy=True."
    if engine == "TRL":
        return "TRL logs entropy except with Liger's fused loss; switch use_liger_kernel off."
    return "Name it with --entropy if it has another name, or switch its logging on in the trainer."


def _inventory(names: Sequence[str]) -> str:
    if not names:
        return "The log holds no metric with a finite number at all."
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"The log has {', '.join(names[:_SHOWN])}{more}."
