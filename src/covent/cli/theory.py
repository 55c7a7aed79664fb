"""`covent theory`: the paper's lemma, proposition and theorems where they hold, and how far they are off elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from covent.tabular import CaseReading, ErrorOrder, Study

_PRINTED_SIZES = (1e-2, 1e-4)
"""The step sizes whose errors are printed; `--json` has them all."""

_VERDICTS = {"exact": "exact", "first order": "holds", "fails": "fails"}

_LEGEND = (
    "error: median of |predicted − observed| / |observed| at that step size η.",
    "order: slope of log error against log η; a first-order statement has 1. decades: of η over which it holds.",
    "observed / predicted: median [10 %, 90 %] of states and problems at η = 1e-6; sign: share of right signs.",
    "Lemma 1: whether its prediction from the logits as they moved holds.",
)


_MOST_PROBLEMS = 100_000


@dataclass(frozen=True)
class Theory:
    """Check Lemma 1, Proposition 1 and Theorems 1 and 2 on exact softmax policies, and measure each broken assumption.

    Exit code 1 if a statement does not hold where its assumptions are met.
    """

    problems: int = 100
    """Random problems for each row of the tables."""
    seed: int = 0
    """Decides the problems."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Measure every case and print two tables: where assumptions are met, and where one is broken."""
        from covent.tabular import study

        if self.problems > _MOST_PROBLEMS:
            raise ConfigError(f"--problems is {self.problems}; at most {_MOST_PROBLEMS} fit in hours. 100 are plenty.")
        with output.progress() as tell:
            found = study(self.seed, self.problems, progress=lambda done, total: tell("theory", done, total))
        output.say("Where the assumptions are met", _holding_table(found.holding), "")
        output.say("With one assumption broken", _broken_table(found.broken), "")
        output.say(*_LEGEND, "", _verdict(found))
        return Outcome(_facts(found), exit_code=0 if found.agrees else 1)


def _holding_table(readings: Sequence[CaseReading]) -> Table:
    from rich.table import Table

    heads = ("statement, setting", *map(_error_head, _PRINTED_SIZES), "order", "decades", "verdict")
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = True
    for reading in readings:
        order = reading.order
        is_exact = order.verdict == "exact"
        table.add_row(
            f"{reading.case.statement}\n  {reading.case.setting}",
            *(_error(order, size) for size in _PRINTED_SIZES),
            "–" if is_exact else _slope(order),
            "–" if is_exact else f"{order.linear_decades:.0f}",
            _VERDICTS[order.verdict],
        )
    return table


def _broken_table(readings: Sequence[CaseReading]) -> Table:
    from rich.table import Table

    size = _PRINTED_SIZES[-1]
    heads = ("statement, setting", _error_head(size), "observed /\npredicted", "sign", "verdict", "Lemma 1")
    table = Table(*heads, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    for reading in readings:
        order, lemma = reading.order, reading.lemma_1_order
        low, middle, high = reading.ratio
        table.add_row(
            f"{reading.case.statement}\n  {reading.case.setting}",
            _error(order, size),
            f"{_ratio(middle)}\n[{_ratio(low)}, {_ratio(high)}]",
            f"{reading.same_sign_frac:.0%}",
            _VERDICTS[order.verdict],
            "–" if lemma is None else _VERDICTS[lemma.verdict],
        )
    return table


def _error_head(size: float) -> str:
    return f"error,\nη {size:g}"


def _error(order: ErrorOrder, size: float) -> str:
    nearest = min(range(len(order.step_sizes)), key=lambda i: abs(order.step_sizes[i] - size))
    return f"{order.median_errors[nearest]:.1e}"


def _slope(order: ErrorOrder) -> str:
    # Rounding leaves slopes like -0.0004, which would print as "-0.00".
    return "–" if order.slope is None else f"{round(order.slope, 2) + 0.0:.2f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _verdict(found: Study) -> str:
    failed = [reading.case.statement for reading in found.holding if reading.order.verdict == "fails"]
    if failed:
        return f"Does not hold where it should: {', '.join(failed)}. This is a fault of covent; please report it."
    return "Every statement holds where its assumptions are met."


def _facts(found: Study) -> dict[str, Any]:
    return {
        "seed": found.seed,
        "problems": found.num_problems,
        "agrees": found.agrees,
        "holding": [_reading_facts(reading) for reading in found.holding],
        "broken": [_reading_facts(reading) for reading in found.broken],
    }


def _reading_facts(reading: CaseReading) -> dict[str, Any]:
    low, middle, high = reading.ratio
    lemma = reading.lemma_1_order
    return {
        "case": reading.case.name,
        "statement": reading.case.statement,
        "setting": reading.case.setting,
        **_order_facts(reading.order),
        "observed_over_predicted": {"p10": low, "p50": middle, "p90": high},
        "same_sign_frac": reading.same_sign_frac,
        "lemma_1": None if lemma is None else _order_facts(lemma),
    }


def _order_facts(order: ErrorOrder) -> dict[str, Any]:
    return {
        "step_sizes": list(order.step_sizes),
        "median_relative_errors": list(order.median_errors),
        "slope": order.slope,
        "linear_decades": order.linear_decades,
        "verdict": order.verdict,
    }
