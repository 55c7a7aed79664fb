"""What the first part of a log says about the rest, and what the whole of it says about the steps to come."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict

from covent.errors import ConfigError, FitError
from covent.law import Forecast, accuracy, fit_decay, forecast
from covent.logs.results import FitResult, fit_result
from covent.logs.series import LogSeries


class Outlook(BaseModel):
    """Accuracy at a step that the log has not reached, by the law and the decay of entropy, both of the whole log."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int
    entropy: float | None
    """Extrapolated, nats; None where no decay could be fitted."""
    accuracy: float | None
    """The law at that entropy; not clipped to possible accuracies."""
    gain: float | None
    """`accuracy` minus the law at the last logged point: what more steps of the same are worth."""


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


def forecast_result(series: LogSeries, *, until: float | None = None, to: int | None = None) -> ForecastResult:
    """A forecast from a log.

    With `until` it is a test: only steps before that share of the log enter, the rest is predicted and compared, once with
    the entropy observed later (conditional) and once without (the forecast proper). Without, everything enters and the steps
    up to `to` are foretold.

    Args:
        series: the points of the log.
        until: share of the log's steps to use, in (0, 1); the paper's is 0.15.
        to: step to foretell, after the last logged one; twice the logged steps if None.

    Raises:
        ConfigError: `until` outside (0, 1), or `to` not after the last step.
    """
    first = int(min(series.step[0], series.entropy_steps[0]))
    last = int(max(series.step[-1], series.entropy_steps[-1]))
    num_steps = last - first + 1
    late = [f"The log begins at step {first}: shares are of the logged steps."] if first > 1 else []
    if until is None:
        whole = fit_result(series)
        outlook = _outlook(series, whole, to if to is not None else first + 2 * num_steps, last)
        fields = whole.model_dump() | {"warnings": late + whole.warnings}
        return ForecastResult(**fields, until=None, num_steps=num_steps, backtest=None, outlook=outlook)
    backtest = forecast(
        series.step - first,
        series.entropy,
        series.accuracy,
        num_steps=num_steps,
        fraction=until,
        unit=series.unit,
        entropy_series=(series.entropy_steps - first, series.entropies),
        window=max(1.0, series.window_steps),
    )
    law = backtest.law
    used = fit_result(_first(series, backtest.num_prefix))
    return ForecastResult(
        **used.model_dump(exclude={"warnings"} | set(_LAW_FIELDS)),
        **{name: getattr(law, name) for name in _LAW_FIELDS},
        warnings=late + series.warnings + backtest.warnings,
        until=until,
        num_steps=num_steps,
        backtest=backtest,
        outlook=None,
    )


_LAW_FIELDS = ("a", "b", "ceiling", "a_interval", "b_interval", "ceiling_interval", "r2", "rmse", "n", "identified")


def _outlook(series: LogSeries, law: FitResult, to: int, last: int) -> Outlook:
    if to <= last:
        raise ConfigError(
            f"--to is {to}, but the log reaches step {last}; give a later step, or --until to test a forecast."
        )
    try:
        entropy = float(fit_decay(series.entropy_steps, series.entropies).at([to])[0])
    except FitError:
        return Outlook(step=to, entropy=None, accuracy=None, gain=None)
    if law.a is None or law.b is None:
        return Outlook(step=to, entropy=entropy, accuracy=None, gain=None)
    then, now = accuracy([entropy, series.entropy[-1]], law.a, law.b)
    return Outlook(step=to, entropy=entropy, accuracy=float(then), gain=float(then - now))


def _first(series: LogSeries, count: int) -> LogSeries:
    """The first `count` points of a series, for the fields that say what it is."""
    from dataclasses import replace

    keep = np.arange(len(series)) < count
    return replace(series, step=series.step[keep], entropy=series.entropy[keep], accuracy=series.accuracy[keep])
