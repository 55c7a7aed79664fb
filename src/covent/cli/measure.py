"""`covent measure`: covariances from a token dump, and what Clip-Cov and KL-Cov would choose by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import tyro

from covent.cli.log_options import NOT_KNOWN, number
from covent.cli.options import option
from covent.cli.output import Outcome, Output
from covent.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from covent.logs import Measurement
    from covent.logs.measure import MicroChoice

LEGEND = (
    "entropy: mean over the tokens, as the dump has it; −mean log-prob: the same from the sampled tokens alone.",
    "Cov(log π, A): token covariance of log-prob and advantage, nats; above 0 the step lowers entropy.",
    "p50 … max, mean of top x %: of the single tokens' covariances, how heavy the tail is that the controls act on.",
    "ratio: the share asked for, a fraction of the tokens. asked: that many tokens. eligible: tokens that the control"
    " may choose, for Clip-Cov those within its band. selected: chosen by covent over the whole step.",
    "micro n: chosen by verl's rule in micro-batches of n responses: the number, and the share of the exact choice"
    " that it holds (Clip-Cov draws, so of what is eligible).",
)
"""What the rows and columns mean."""

Value = TypeVar("Value", int, float)


@dataclass(frozen=True)
class Measure:
    """Measure a token dump (prime-rl, slime, ROLL, JSON Lines): covariance, its tail, what the controls choose."""

    dump: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DUMP")]
    """A JSON Lines file with one response or one token a line, a folder of them, or a run folder of covent."""
    step: Annotated[int | None, option("INT")] = None
    """Measure this step only, where the dump holds several."""
    kl_cov_ratio: str = "2e-4,2e-3,2e-2"
    """Shares of KL-Cov to try: fractions, separated by commas."""
    clip_cov_ratio: str = "2e-4,2e-3,2e-2"
    """Shares of Clip-Cov to try."""
    clip_cov_lb: float = 1.0
    """Lower end of Clip-Cov's band."""
    clip_cov_ub: float = 5.0
    """Upper end of Clip-Cov's band."""
    micro: str = "1,4,32"
    """Sequences in a micro-batch, to try; the whole step is always tried."""
    group_advantages: bool = False
    """Where the dump has no advantages: take GRPO's from the rewards of the responses to one prompt."""
    json: bool = False
    """Print one JSON line last; text goes to standard error."""

    def run(self, output: Output) -> Outcome:
        """Read, measure, print; steps are measured one by one, as an optimizer would see them."""
        from covent.logs import Settings, measurement, read_dump
        from covent.logs.run_folder import is_run_folder

        settings = Settings(
            kl_cov_ratio=_list("--kl-cov-ratio", self.kl_cov_ratio, float),
            clip_cov_ratio=_list("--clip-cov-ratio", self.clip_cov_ratio, float),
            clip_cov_lb=self.clip_cov_lb,
            clip_cov_ub=self.clip_cov_ub,
            micro=_list("--micro", self.micro, int),
        )
        batches = read_dump(self.dump, group_advantages=self.group_advantages)
        if is_run_folder(self.dump):
            output.warn(
                f"{self.dump} is a run folder: its samples.jsonl was read, a few responses of each validation. What the"
                " whole batches gave is in its report."
            )
        wanted = [batch for batch in batches if self.step in (None, batch.step)]
        if not wanted:
            steps = ", ".join(str(batch.step) for batch in batches[:10])
            raise ConfigError(f"{self.dump} has no step {self.step}, which --step asks for. It has {steps}.")
        results = [measurement(batch, settings) for batch in wanted]
        for result in results:
            output.say("" if result.step is None else f"step {result.step}")
            output.console.print(_numbers(result))
            output.console.print(_controls(result))
            for warning in dict.fromkeys(
                [*result.warnings, *(choice.note for choice in result.controls if choice.note)]
            ):
                output.warn(warning)
        output.say("", *LEGEND)
        if len(results) == 1:
            return Outcome(results[0].model_dump(mode="json"))
        return Outcome({"steps": [result.model_dump(mode="json") for result in results]})


def _list(option: str, text: str, kind: Callable[[str], Value]) -> tuple[Value, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{option} is '{text}'; give numbers separated by commas, such as 2e-4,2e-3.") from error


def _numbers(result: Measurement) -> Table:
    from rich.table import Table

    tail = result.covariance
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    rows: Sequence[tuple[str, str]] = (
        ("tokens / responses / prompts", f"{result.num_tokens} / {result.num_sequences} / {result.num_groups}"),
        ("entropy, nats", number(result.entropy)),
        ("  −mean log-prob", number(result.sampled_entropy)),
        ("Cov(log π, A)", number(tail.mean)),
        ("  correlation", number(result.correlation)),
        (
            "  p50 / p99 / p99.9 / max",
            " / ".join(number(tail.quantiles[key]) for key in ("p50", "p99", "p99.9", "max")),
        ),
        *((f"  mean of top {100 * float(key):g} %", number(value)) for key, value in tail.top_means.items()),
    )
    for row in rows:
        table.add_row(*row)
    return table


def _controls(result: Measurement) -> Table:
    from rich.table import Table

    sizes = list(dict.fromkeys(micro.sequences for choice in result.controls for micro in choice.micro))
    names = ("control", "ratio", "asked", "eligible", "selected", *(f"micro {size}" for size in sizes))
    table = Table(*names, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for choice in result.controls:
        cells = [_cell(micro) for micro in choice.micro]
        counts = (choice.num_asked, choice.num_candidates, choice.num_selected)
        table.add_row(choice.control, f"{choice.ratio:g}", *map(str, counts), *cells)
    return table


def _cell(micro: MicroChoice) -> str:
    overlap = NOT_KNOWN if micro.overlap is None else f"{100 * micro.overlap:.0f}%"
    return f"{micro.num_selected} {overlap}"
