"""What the first part of a log says about the rest, and what the whole of it says about the steps to come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.errors import ConfigError
from covent.law import Forecast, LawFit, accuracy, fit_saturating, forecast, two_ceilings
from covent.logs.results import MOST_DOUBTED, FitResult, Interval, fit_result
from covent.logs.series import LogSeries


class Outlook(BaseModel):
    """A step that the log has not reached, foretold by the law and the decay of entropy, both of the whole log."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int
    entropy: float | None
    """Extrapolated, nats; None where no decay could be fitted."""
    accuracy: float | None
    """The law at that entropy; not clipped to possible accuracies."""
    low: float | None
    """95 % band for an observation; None where none can be drawn."""
    high: float | None
    gain: float | None
    """`accuracy` minus the law at the last logged point: what more steps of the same are worth."""


class SecondOpinion(BaseModel):
    """The ceiling from steps instead of entropy: ScaleRL's R = R0 + (A - R0)/(1 + (C_mid/C)^B), with steps as C."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ceiling: float | None
    ceiling_interval: Interval | None
    identified: bool
    agree: bool | None
    """Whether both intervals overlap; None unless both ceilings are identified."""
    sentence: str
    """What to think of it."""


class ForecastResult(FitResult):
    """The law of the part of a log that was used, and what it foretells."""

    until: float | None
    """Share of the log's steps that was used; None for all."""
    num_steps: int
    """Steps of the log."""
    backtest: Forecast | None
    """With `until`: predictions for the rest and their errors, conditional on the later entropy and not."""
    outlook: Outlook | None
    """Without `until`: the steps to come."""
    second_opinion: SecondOpinion | None
    """Without `until`, for at most `MOST_DOUBTED` points."""


def forecast_result(series: LogSeries, *, until: float | None = None, to: int | None = None) -> ForecastResult:
    """A forecast from a log.

    With `until` it is a test: only steps before that share of the log enter, the rest is predicted and compared, once
    with the entropy observed later (conditional) and once without (the forecast proper). Without, everything enters
    and the steps up to `to` are foretold.

    Args:
        series: the points of the log.
        until: share of the log's steps to use, in (0, 1); the paper's is 0.15.
        to: step to foretell, after the last logged one; twice the logged steps if None.

    Raises:
        ConfigError: `until` outside (0, 1), or `to` not after the last step.
    """
    first, last = _ends(series)
    num_steps = last - first + 1
    late = [f"The log begins at step {first}: shares are of the logged steps."] if first > 1 else []
    if until is not None and not 0 < until < 1:
        meant = f" Did you mean {until / 100:g}?" if 1 < until < 100 else ""
        raise ConfigError(f"--until is {until:g}; it is the share of the log to use, between 0 and 1.{meant}")
    if until is None:
        return _foretold(series, first, last, to if to is not None else last + num_steps, late)
    if to is not None:
        raise ConfigError("--to and --until exclude each other: --until tests a forecast on what was logged.")
    backtest = _forecast(series, first, num_steps, until)
    law = backtest.law
    used = fit_result(_before(series, backtest.num_prefix))
    return ForecastResult(
        **used.model_dump(exclude={"warnings"} | set(_LAW_FIELDS)),
        **{name: getattr(law, name) for name in _LAW_FIELDS},
        warnings=late + series.warnings + backtest.warnings,
        until=until,
        num_steps=num_steps,
        backtest=backtest,
        outlook=None,
        second_opinion=None,
    )


_LAW_FIELDS = ("a", "b", "ceiling", "a_interval", "b_interval", "ceiling_interval", "r2", "rmse", "n", "identified")
"""What the forecast's own law gives, so that the two can never differ."""


def forecast_of_rest(series: LogSeries, fraction: float) -> Forecast:
    """What the first part of a log says about the rest of it, with steps counted from its first one.

    Args:
        series: the points of the log.
        fraction: share of the log's steps to use, in (0, 1).

    Raises:
        ConfigError: `fraction` lies outside.
    """
    first, last = _ends(series)
    return _forecast(series, first, last - first + 1, fraction)


def _ends(series: LogSeries) -> tuple[int, int]:
    """First and last step of a log."""
    return int(min(series.step[0], series.entropy_steps[0])), int(max(series.step[-1], series.entropy_steps[-1]))


def _forecast(series: LogSeries, first: int, num_steps: int, fraction: float) -> Forecast:
    return forecast(
        series.step - first,
        series.entropy,
        series.accuracy,
        num_steps=num_steps,
        fraction=fraction,
        unit=series.unit,
        entropy_series=(series.entropy_steps - first, series.entropies),
        window=max(1.0, series.window_steps),
    )


def _foretold(series: LogSeries, first: int, last: int, to: int, late: list[str]) -> ForecastResult:
    """Everything logged is known: the cut lies after the last step, the end of the run at the step asked for."""
    if to <= last:
        raise ConfigError(f"--to is {to}, but the log reaches step {last}. Give a later step, or test with --until.")
    whole = fit_result(series)
    ahead = _forecast(series, first, to - first, (last - first + 0.5) / (to - first))
    final, now = ahead.final, None
    if whole.a is not None and whole.b is not None:
        now = float(accuracy(series.entropy[-1], whole.a, whole.b))
    outlook = Outlook(
        step=to,
        entropy=None if final is None else final.entropy,
        accuracy=None if final is None else final.accuracy,
        low=None if final is None else final.low,
        high=None if final is None else final.high,
        gain=None if final is None or now is None else final.accuracy - now,
    )
    new = [warning for warning in ahead.warnings if warning not in whole.warnings]
    return ForecastResult(
        **whole.model_dump(exclude={"warnings"}),
        warnings=late + whole.warnings + new,
        until=None,
        num_steps=last - first + 1,
        backtest=None,
        outlook=outlook,
        second_opinion=_second_opinion(series, first, ahead.law),
    )


def _second_opinion(series: LogSeries, first: int, law: LawFit) -> SecondOpinion | None:
    if len(series) > MOST_DOUBTED:
        return None
    saturating = fit_saturating(series.step - first + 1, series.accuracy, unit=series.unit)
    both = two_ceilings(law, saturating)
    return SecondOpinion(
        ceiling=saturating.ceiling,
        ceiling_interval=saturating.ceiling_interval,
        identified=saturating.identified,
        agree=both.agree,
        sentence=both.sentence,
    )


def _before(series: LogSeries, count: int) -> LogSeries:
    """The first `count` points of a series, for the fields that say what it is."""
    keep = np.arange(len(series)) < count
    return replace(series, step=series.step[keep], entropy=series.entropy[keep], accuracy=series.accuracy[keep])
