"""Logs of other engines: what a run logged becomes points of the law, a fit, a forecast, words. Never imports torch.

    all_series(paths, Choice())     any log, or run folder → points (entropy, accuracy) with every decision said
    fit_result, forecast_result, explanation, comparison       points → what the commands print
    read_dump, measurement          tokens of a step → covariance, its tail, whom the controls would choose

Where the next thing goes: a format is one file with a function `path → list[LoggedRun]`, told apart in `read`; an
engine's entropy is a row in `definitions`; a name for accuracy is a row in `metrics`. What commands and report both say
of a run stands in `phrases` and `advice`.
"""

from covent.logs.against import ComparisonResult, comparison
from covent.logs.ahead import ForecastResult, forecast_result
from covent.logs.definitions import EntropyDefinition
from covent.logs.dump import TokenBatch, read_dump
from covent.logs.explain import Explanation, explanation
from covent.logs.measure import Measurement, Settings, measurement
from covent.logs.read import read_logs
from covent.logs.results import FitResult, all_series, fit_result, pooled_result
from covent.logs.rows import LogError, LoggedRun
from covent.logs.series import Choice, LogSeries, log_series

__all__ = [
    "Choice",
    "ComparisonResult",
    "EntropyDefinition",
    "Explanation",
    "FitResult",
    "ForecastResult",
    "LogError",
    "LogSeries",
    "LoggedRun",
    "Measurement",
    "Settings",
    "TokenBatch",
    "all_series",
    "comparison",
    "explanation",
    "fit_result",
    "forecast_result",
    "log_series",
    "measurement",
    "pooled_result",
    "read_dump",
    "read_logs",
]
