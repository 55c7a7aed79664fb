"""What one model scores on a data set: avg@k, maj@k and pass@k, by source and over all sources.

    avg@k    mean over problems of the share of right samples
    maj@k    share of problems that a vote of the samples gets right
    pass@k   expected share of problems for which one of k samples is right, unbiased

Over all sources there are two means, and neither is wrong: `sample_weighted` counts every sampled response once, as the
paper's averages do, so that a source with many problems or samples dominates; `plain_mean` counts every source once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from covent.readings import EntropyReading, Mean
from covent.store.estimates import pass_at_k, powers_of_two, wilson
from covent.store.ranges import Count, Entropy, Positive, Proportion, Share
from covent.store.schema import Estimate, Row


class Score(Row):
    """A proportion, with its 95 % interval where there is one."""

    value: Proportion
    low: Proportion | None = None
    high: Proportion | None = None


class SourceScores(Row):
    """One source. Intervals are Wilson intervals over its problems."""

    source: str
    """As the rows name it; empty for rows that name none."""
    num_problems: Positive
    num_samples: Positive
    """k: sampled responses to each problem."""
    temperature: float
    """0: the most likely response."""
    avg: Score | None
    """None where no response could be judged; so below."""
    maj: Score | None
    """None where responses give no answer that can be voted on, as programs do not."""
    pass_at: dict[str, Score]
    """Keys are k as text."""
    unparsable: Share
    truncated: Share
    error: Share
    """Responses that could not be judged; they are left out of the scores."""
    entropy: Entropy
    """Of the policy on its own responses."""


class OverSources(Row):
    """All sources in one number. An interval is there where every problem counts the same."""

    avg: Score
    maj: Score | None
    """None unless every source has it; so below."""
    pass_at: dict[str, Score]


class Scores(Row):
    """One evaluation of one model."""

    num_problems: Count
    num_responses: Count
    sources: list[SourceScores]
    """In the order of their first rows."""
    sample_weighted: OverSources | None
    """Every sampled response counts once."""
    plain_mean: OverSources | None
    """Every source counts once."""


class ProblemResult(NamedTuple):
    """The judged samples of one problem."""

    num_judged: int
    num_right: int
    vote: float | None
    """Whether the vote is right; between 0 and 1 where several answers have the most votes."""


def majority_vote(answers: Sequence[str | None], right: Sequence[bool]) -> float | None:
    """Whether the most frequent answer is right; of several, the mean over them. None if there is no answer.

    Args:
        answers: what each sample answers, equal answers written the same; None does not vote.
        right: the verdict on each.

    Example:
        >>> majority_vote(["7", "8", "7", None], [True, False, True, False])
        1.0
        >>> majority_vote(["7", "8", None], [True, False, False]), majority_vote([None], [False])
        (0.5, None)
    """
    votes: dict[str, list[bool]] = {}
    for answer, is_right in zip(answers, right, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(is_right)
    most = max((len(found) for found in votes.values()), default=0)
    winners = [fmean(found) for found in votes.values() if len(found) == most]
    return fmean(winners) if winners else None


def source_scores(
    source: str,
    results: Sequence[ProblemResult],
    *,
    num_samples: int,
    temperature: float,
    can_vote: bool,
    unparsable: Mean,
    truncated: Mean,
    error: Mean,
    entropy: EntropyReading,
) -> SourceScores:
    """The scores of one source from the results of its problems.

    Args:
        can_vote: whether its responses have answers at all. A problem without any vote then counts as wrong.
    """
    judged = [result for result in results if result.num_judged]
    votes = [result.vote or 0.0 for result in judged]
    return SourceScores(
        source=source,
        num_problems=len(results),
        num_samples=num_samples,
        temperature=temperature,
        avg=_with_interval([result.num_right / result.num_judged for result in judged]),
        maj=_with_interval(votes) if can_vote else None,
        pass_at={
            str(k): score
            for k in powers_of_two(num_samples)
            if (score := _with_interval([_pass_at(each, k) for each in judged if each.num_judged >= k]))
        },
        unparsable=unparsable,
        truncated=truncated,
        error=error,
        entropy=entropy,
    )


def scores(sources: Sequence[SourceScores]) -> Scores:
    """All of them, and both means over them where every source has a score."""
    found = Scores(
        num_problems=sum(each.num_problems for each in sources),
        num_responses=sum(each.num_problems * each.num_samples for each in sources),
        sources=list(sources),
        sample_weighted=None,
        plain_mean=None,
    )
    if not sources or any(each.avg is None for each in sources):
        return found
    by_samples = [each.num_problems * each.num_samples for each in sources]
    return found.model_copy(
        update={
            "sample_weighted": _over(sources, by_samples),
            "plain_mean": _over(sources, [1] * len(sources)),
        }
    )


def _over(sources: Sequence[SourceScores], weights: Sequence[int]) -> OverSources:
    counts = [each.num_problems for each in sources]
    # Then the mean is over problems, each with the same weight, and so is the interval.
    alike = all(weight * counts[0] == count * weights[0] for weight, count in zip(weights, counts, strict=True))

    def mean(parts: Iterable[Score | None]) -> Score | None:
        found = list(parts)
        values = [part.value for part in found if part is not None]
        if len(values) < len(found):
            return None
        value = sum(weight * part for weight, part in zip(weights, values, strict=True)) / sum(weights)
        return _score(wilson([value] * sum(counts))) if alike else Score(value=value)

    avg = mean(each.avg for each in sources)
    assert avg is not None
    shared = [k for k in sources[0].pass_at if all(k in each.pass_at for each in sources)]
    pass_at = {k: score for k in shared if (score := mean(each.pass_at[k] for each in sources))}
    return OverSources(avg=avg, maj=mean(each.maj for each in sources), pass_at=pass_at)


def _pass_at(result: ProblemResult, k: int) -> float:
    return pass_at_k(result.num_judged, result.num_right, k)


def _with_interval(values: Sequence[float]) -> Score | None:
    return _score(wilson(values)) if values else None


def _score(found: Estimate) -> Score:
    return Score(value=found.value, low=found.low, high=found.high)
