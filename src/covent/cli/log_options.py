"""What the commands on logs have in common: the logs, what the user decides about them, how results are printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

if TYPE_CHECKING:
    from covent.logs import FitResult, LogSeries

NOT_KNOWN = "–"


@dataclass(frozen=True)
class LogOptions:
    """Options of every command that reads logs."""

    logs: Annotated[tyro.conf.Positional[tuple[Path, ...]], option("LOG ...")] = ()
    """Logs of any engine (TRL, verl, wandb, TensorBoard, trackio, MLflow, CSV, Parquet, …), or covent run folders."""
    metric: Annotated[str | None, option("NAME")] = None
    """Metric that is the accuracy R; with * several, which are averaged. If not given: the validation accuracy."""
    entropy: Annotated[str | None, option("NAME")] = None
    """Metric that is the entropy H. If not given: the one the engine is known to log."""
    unit: Annotated[Literal["fraction", "percent"] | None, option("fraction|percent")] = None
    """Unit of R. If not given: told from the values, and said."""
    window: Annotated[int | None, option("INT")] = None
    """Entropies, logged at or before an accuracy, whose mean it meets. If not given: since the last one, at most 4."""
    temperature: Annotated[float | None, option("FLOAT")] = None
    """Temperature at which the entropy was taken, where the log does not say."""
    step: Annotated[str | None, option("NAME")] = None
    """Metric that counts steps."""
    by: Annotated[str | None, option("COLUMN")] = None
    """Column that tells several runs of one table apart."""
    which: Annotated[str | None, option("NAME", name="run")] = None
    """Name of the run that is wanted, where a log holds several."""
    plot: Annotated[Path | None, option("FILE")] = None
    """Draw points and law into FILE: .html, or .png with the plots extra."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def series(self, command: str) -> list[LogSeries]:
        """The points of every log.

        Raises:
            ConfigError: no log is given.
            CoventError: a log cannot be read, or does not hold what is needed.
        """
        if not self.logs:
            raise ConfigError(f"covent {command} needs at least one log: covent {command} trainer_state.json")
        if self.plot is not None:
            from covent.logs.figure import check_target

            check_target(self.plot)
        from covent.logs import Choice, all_series

        choice = Choice(
            metric=self.metric,
            entropy=self.entropy,
            unit=self.unit,
            window=self.window,
            temperature=self.temperature,
            step=self.step,
            by=self.by,
            run=self.which,
        )
        return all_series(self.logs, choice)

    def draw(self, series: Sequence[LogSeries], results: Sequence[FitResult], output: Output) -> None:
        """The picture, if one is asked for."""
        if self.plot is not None:
            from covent.logs.figure import write_figure

            write_figure(series, results, self.plot)
            output.say(f"plot: {self.plot}")


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return NOT_KNOWN if value is None else f"{value:.4g}"


def say_warnings(results: Sequence[FitResult], output: Output, said: Sequence[str] = ()) -> None:
    """Every warning once, with the logs it concerns where there are several; not what was said already."""
    told: dict[str, list[str]] = {}
    for result in results:
        for warning in result.warnings:
            if warning in said:
                continue
            told.setdefault(warning, []).append(result.label)
    for warning, names in told.items():
        where = f"{', '.join(dict.fromkeys(names))}: " if len(results) > 1 else ""
        output.warn(f"{where}{warning}")


def outcome(results: Sequence[FitResult], pooled: FitResult | None) -> Outcome:
    """The JSON of a command: the result itself for one log, all and the pooled one for several."""
    if pooled is None:
        return Outcome(results[0].model_dump(mode="json"))
    runs: list[dict[str, Any]] = [result.model_dump(mode="json") for result in results]
    return Outcome({"runs": runs, "pooled": pooled.model_dump(mode="json")})
