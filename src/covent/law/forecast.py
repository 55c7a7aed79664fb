"""Forecast a run from its first part, and score the forecast against what happened.

Two predictions, never to be confused: the *conditional* one puts the entropy that was observed later into the law
fitted on the prefix, so it tests the law; the *unconditional* one extrapolates entropy too, by the decay fitted on the
prefix, so it uses nothing from after the cut. Only the second is a forecast. Each has a band (`covent.law.bands`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from covent.errors import ConfigError, FitError
from covent.law.bands import AccuracyBands, Band, drawn_entropies
from covent.law.curve import accuracy as law_accuracy
from covent.law.decay import FEWEST_FOR_BAND, FEWEST_POINTS, DecayMixture, EntropyDecay, fit_decay
from covent.law.fit import LawFit, fit
from covent.law.series import (
    FULL_MARKS,
    FloatArray,
    Unit,
    aligned,
    check_entropy,
    check_increasing,
    checked_points,
    in_percent,
)

END_POINTS = 3
"""Points whose mean is "the end": one evaluation alone is mostly sampling noise."""

StepEntropy = tuple[ArrayLike, ArrayLike]


class Prediction(BaseModel):
    """Accuracies predicted for the points after the cut, and their error. None: could not be predicted or scored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    entropy: list[float] | None
    """The entropy that went into the law at each later point, nats."""
    accuracy: list[float] | None
    """Raw values of the law: not clipped to possible accuracies."""
    end_error: float | None
    """Predicted minus observed, each averaged over the end points."""
    rmse: float | None
    """Root mean squared error over all later points."""
    low: list[float] | None = None
    """Lower end of the 95 % band for what will be observed at each later point; None where none can be drawn."""
    high: list[float] | None = None
    covered: float | None = None
    """Share of the later points that lie inside their bands."""


class Final(BaseModel):
    """The forecast for the end of the run, whether or not it has happened."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: float
    entropy: float
    """Nats."""
    accuracy: float
    """What the law gives at that entropy, not clipped."""
    low: float | None
    """95 % band for an observation; None where none can be drawn."""
    high: float | None


class Forecast(BaseModel):
    """What the first part of a run says about the rest, and what then happened."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fraction: float
    """Share of the run that was used."""
    num_steps: int
    cut: float
    """fraction·num_steps: a point is used if its step lies below."""
    unit: Unit
    num_prefix: int
    """Law points that were used."""
    law: LawFit
    """The law fitted on the prefix, with its ceiling and intervals."""
    decay: EntropyDecay | None
    """Entropy's decay fitted on the prefix; None if it could not be."""
    ceiling: float | None
    """The predicted ceiling: that of `law`."""
    identified: bool
    """False when the prefix does not determine the law; predictions are then shown but carry no weight."""
    later_steps: list[float]
    observed: list[float]
    """Accuracies observed at the later steps."""
    end_steps: list[float]
    """The end: the last later steps, 3 unless there are fewer, over which `end_error` averages."""
    conditional: Prediction
    """The law applied to the entropy observed later. Not a forecast: it knows what entropy did."""
    unconditional: Prediction
    """The forecast: entropy extrapolated, then the law."""
    unchanged: Prediction
    """The reference to beat: accuracy stays where it was at the last point before the cut."""
    final: Final | None = None
    """The forecast for the last step; None where there is no forecast."""
    warnings: list[str]


def forecast(
    step: ArrayLike,
    entropy: ArrayLike,
    accuracy: ArrayLike,
    *,
    num_steps: int,
    fraction: float,
    unit: Unit,
    entropy_series: StepEntropy | None = None,
    window: float | None = None,
) -> Forecast:
    """The law fitted on the first part of a run, applied to the rest, conditionally and unconditionally.

    Only points with step < fraction·num_steps enter the law and the decay, so whatever happens later can change the
    errors and the conditional prediction, but never the forecast.

    Args:
      step: rollout step at which each law point is complete, that is, known; increasing, shape (n,).
      entropy: mean H over each point's window, nats, shape (n,).
      accuracy: R of each point in `unit`, shape (n,).
      num_steps: length of the whole run in rollout steps.
      fraction: share of the run to use, in (0, 1); the paper's is 36/236 = 0.15.
      unit: "fraction" or "percent".
      entropy_series: (steps, entropies) of every rollout step, for the decay; None fits it to the points themselves.
      window: rollout steps that a point's entropy is the mean of, the last of which is its step; used only with
        `entropy_series`, to average the extrapolated decay as the points were averaged. None: since the point before.

    Returns:
      Predictions at all later points with their errors; None where the prefix has fewer than 3 points, never a crash.

    Raises:
      ConfigError: fraction outside (0, 1), or num_steps or window below 1.
      ShapeError, FitError: as `covent.law.fit.fit`; also for steps that do not increase.

    Source:
      arXiv 2505.22617, section 2.4 and Fig. 5. *Differs:* the paper does not say which entropy its prediction uses.
    """
    _check_settings(num_steps, fraction, window)
    points = checked_points(entropy, accuracy, unit, step)
    series = (points.step, points.entropy) if entropy_series is None else entropy_series
    cut = fraction * num_steps
    known = points.step < cut
    prefix = points.part(known)
    law = fit(prefix.entropy, prefix.accuracy, unit=unit, step=prefix.step)
    decay, mixture, decay_warnings = _decay_before(cut, series)

    later_t, later_h, observed = points.step[~known], points.entropy[~known], points.accuracy[~known]
    last_known = prefix.accuracy[-1:]
    bands = AccuracyBands(prefix) if AccuracyBands.can_be_drawn(prefix) else None
    told = bands.observed_entropy(later_h, later_t) if bands else None
    conditional = _prediction(law, later_h, observed, told)
    single = entropy_series is None
    starts = later_t if single else _window_starts(points.step, window)[~known]
    unconditional, final = _unconditional(law, decay, mixture, bands, starts, later_t, observed, float(num_steps))
    predictions = {"conditional prediction": conditional, "forecast": unconditional}
    return Forecast(
        fraction=fraction,
        num_steps=num_steps,
        cut=cut,
        unit=unit,
        num_prefix=int(known.sum()),
        law=law,
        decay=decay,
        ceiling=law.ceiling,
        identified=law.identified,
        later_steps=later_t.tolist(),
        observed=observed.tolist(),
        end_steps=later_t[-END_POINTS:].tolist(),
        conditional=conditional,
        unconditional=unconditional,
        unchanged=_scored(None, np.full(observed.size, last_known[0]) if last_known.size else None, observed),
        final=final,
        warnings=law.warnings + decay_warnings + _impossible(predictions, final, unit),
    )


def _unconditional(
    law: LawFit,
    decay: EntropyDecay | None,
    mixture: DecayMixture | None,
    bands: AccuracyBands | None,
    starts: FloatArray,
    ends: FloatArray,
    observed: FloatArray,
    last_step: float,
) -> tuple[Prediction, Final | None]:
    """The forecast at the later points and at the last step, which may lie beyond them."""
    if decay is None or law.a is None or law.b is None:
        return _prediction(law, None, observed, None), None
    last_step = max(last_step, float(ends[-1]) if ends.size else decay.last_step)
    expected = _window_means(decay, np.append(starts, last_step), np.append(ends, last_step))
    band = None
    if bands is not None and mixture is not None:
        windows = [(max(start, mixture.origin), end) for start, end in zip(starts, ends, strict=True)]
        drawn = drawn_entropies(mixture, [*windows, (last_step, last_step)])
        band = bands.drawn_entropy(drawn, np.append(ends, last_step))
    final = Final(
        step=last_step,
        entropy=float(expected[-1]),
        accuracy=float(law_accuracy(expected[-1], law.a, law.b)),
        low=None if band is None else float(band[0][-1]),
        high=None if band is None else float(band[1][-1]),
    )
    later = None if band is None else (band[0][:-1], band[1][:-1])
    return _prediction(law, expected[:-1], observed, later), final


def _check_settings(num_steps: int, fraction: float, window: float | None) -> None:
    if not 0 < fraction < 1:
        raise ConfigError(f"fraction is {fraction:g}; a share between 0 and 1 is needed, such as 0.3 for 30 %.")
    if num_steps < 1:
        raise ConfigError(f"num_steps is {num_steps}; give the length of the whole run, at least 1.")
    if window is not None and not window >= 1:
        raise ConfigError(f"window is {window:g}; give the number of rollout steps a point averages, at least 1.")


def _decay_before(cut: float, series: StepEntropy) -> tuple[EntropyDecay | None, DecayMixture | None, list[str]]:
    """The decay of the series before the cut and the mixture for its band, or None with the reason."""
    steps, entropies = aligned(entropy_series_step=series[0], entropy_series=series[1])
    check_increasing("entropy_series_step", steps)
    check_entropy("entropy_series", entropies)
    known = steps < cut
    num_known = int(known.sum())
    if num_known < FEWEST_POINTS:
        return None, None, [f"No forecast: {num_known} entropies before the cut; the decay needs {FEWEST_POINTS}."]
    try:
        decay = fit_decay(steps[known], entropies[known])
    except FitError as error:
        return None, None, [f"No forecast: {error}"]
    mixture = DecayMixture(steps[known], entropies[known]) if num_known >= FEWEST_FOR_BAND else None
    return decay, mixture, decay.warnings


def _window_starts(step: FloatArray, window: float | None) -> FloatArray:
    """First rollout step of each window: `window` steps ending with the point's own, or all since the point before."""
    if window is not None:
        return step - window + 1
    return np.concatenate([step[:1], step[:-1] + 1])


def _window_means(decay: EntropyDecay, starts: FloatArray, ends: FloatArray) -> FloatArray:
    """Mean of the decay over the whole steps of each window, as far as the curve reaches back."""
    means = np.empty(ends.size)
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        first = min(max(start, decay.origin), end)
        means[index] = np.mean(decay.at(np.arange(first, end + 0.5)))
    return means


def _prediction(law: LawFit, entropy: FloatArray | None, observed: FloatArray, band: Band | None) -> Prediction:
    if law.a is None or law.b is None or entropy is None:
        return Prediction(entropy=None, accuracy=None, end_error=None, rmse=None)
    return _scored(entropy, law_accuracy(entropy, law.a, law.b), observed, band)


def _scored(
    entropy: FloatArray | None, predicted: FloatArray | None, observed: FloatArray, band: Band | None = None
) -> Prediction:
    error = predicted - observed if predicted is not None and observed.size else None
    inside = None if band is None else (band[0] <= observed) & (observed <= band[1])
    return Prediction(
        entropy=None if entropy is None else entropy.tolist(),
        accuracy=None if predicted is None else predicted.tolist(),
        end_error=None if error is None else float(np.mean(error[-END_POINTS:])),
        rmse=None if error is None else float(np.sqrt(np.mean(error**2))),
        low=None if band is None else band[0].tolist(),
        high=None if band is None else band[1].tolist(),
        covered=float(np.mean(inside)) if inside is not None and inside.size else None,
    )


def _impossible(predictions: dict[str, Prediction], final: Final | None, unit: Unit) -> list[str]:
    told = {name: prediction.accuracy or [] for name, prediction in predictions.items()}
    if final is not None:
        told["forecast"] = [*told["forecast"], final.accuracy]
    return [
        f"The {name} leaves 0 to 100 % (from {in_percent(min(values), unit)} to {in_percent(max(values), unit)}); it is"
        " shown as it is, and means that the law does not carry that far."
        for name, values in told.items()
        if values and not (min(values) >= 0 and max(values) <= FULL_MARKS[unit])
    ]
