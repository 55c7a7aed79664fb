"""What choosing inside micro-batches does to Clip-Cov and KL-Cov, on batches of the embedded trainer's own runs.

Plain GRPO runs of the clock task are trained for some steps. Every few optimizer steps the measured batch is kept; on
each of them the exact choice (`clip_cov`, `kl_cov`) is compared with the released code's (`clip_cov_released`,
`kl_cov_released`), for every size of the micro-batch and two orders of the responses: groups together, as they are
sampled, and shuffled, as a length-balanced packing leaves them. Nothing is trained under a control here: it is the same
batch, chosen from twice.

    python benchmarks/selection.py --seeds 3 --steps 32 --json benchmarks/results/selection.json
    python benchmarks/selection.py --table benchmarks/results/selection.json

About a minute and a half of one core a seed, once the warm start is in the cache.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from covent.controls import ClipCov, ClipCovReleased, KLCov, KLCovReleased, plan
from covent.core.keys import TokenIdentity, key
from covent.core.plan import Measured
from covent.law.student import mixture_interval
from covent.store.reader import read_run
from covent.train import loop
from covent.train.config import TrainConfig
from covent.train.config_file import load_config
from covent.train.run import train

RECIPE = Path(__file__).parents[1] / "recipes" / "clock.yaml"
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64)
RATIOS = {"kl_cov": (0.05, 0.002), "clip_cov": (0.012, 0.002)}
"""The demo's shares, and shares near the paper's, which ask for a token or two of a batch of this size."""
SMALLEST = 16
"""Optimizer batches with fewer responses are left out: a micro-batch of half of them says nothing of micro-batches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--every", type=int, default=3, help="optimizer steps between two batches that are kept")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/selection.json"))
    parser.add_argument("--settings", nargs="*", default=[], metavar="key=value", help="for all runs")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of a result and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is None:
        settings = [f"steps={arguments.steps}", "evaluation.test_problems=0", "probe_prompts=0"]
        # No validation: nothing here looks at it.
        settings += [f"evaluation.every={3 * arguments.steps}", *arguments.settings]
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        runs = [measured_run([*settings, f"seed={seed}"], arguments.every) for seed in seeds]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(collect(runs, settings), indent=1) + "\n")
    print(tables(json.loads((arguments.table or arguments.json).read_text())))


def measured_run(settings: list[str], every: int) -> dict[str, Any]:
    """Train one run and compare the choices on some of its optimizer batches."""
    config = load_config(RECIPE, settings)
    dumped: list[Measured] = []
    num_updates = 0
    measure = loop.measure

    def measure_and_keep(*args: Any, **settings: Any) -> Measured:
        nonlocal num_updates
        measured = measure(*args, **settings)
        if num_updates % every == 0:
            dumped.append(measured)
        num_updates += 1
        return measured

    with tempfile.TemporaryDirectory() as folder, patch.object(loop, "measure", measure_and_keep):
        train(config, Path(folder) / "run")
        header = read_run(Path(folder) / "run").header
    batches = [batch for batch in dumped if len(batch.mask) >= SMALLEST]
    print(f"seed {config.seed}: {len(batches)} of {len(dumped)} optimizer batches", flush=True)
    return {
        "seed": config.seed,
        "header": header.model_dump(mode="json"),
        "num_batches": len(batches),
        "num_left_out": len(dumped) - len(batches),
        "responses": fmean(len(batch.mask) for batch in batches),
        "tokens": fmean(batch.num_tokens for batch in batches),
        "rows": [row for order in ("grouped", "shuffled") for row in comparisons(batches, config, order)],
    }


def comparisons(batches: list[Measured], config: TrainConfig, order: str) -> Iterator[dict[str, Any]]:
    """One row a control, share and micro-batch: sums over the optimizer batches of one run."""
    kept = [in_order(batch, order, key(config.seed, "benchmark", index)) for index, batch in enumerate(batches)]
    for control, ratios in RATIOS.items():
        for ratio in ratios:
            exact = [choices(control, ratio, None, batch, index) for index, batch in enumerate(kept)]
            for size in MICRO_BATCHES:
                micro = [choices(control, ratio, size, batch, index) for index, batch in enumerate(kept)]
                yield {
                    "control": control,
                    "ratio": ratio,
                    "order": order,
                    "micro_batch": size,
                    **sums(kept, exact, micro),
                }


def in_order(batch: Measured, order: str, seed: int) -> Measured:
    if order == "grouped":
        return batch
    rows = torch.randperm(len(batch.mask), generator=torch.Generator().manual_seed(seed))
    columns = ("logprobs", "old_logprobs", "entropies", "advantages", "mask")
    identity = TokenIdentity(*(column[rows] for column in batch.identity))
    return replace(batch, **{name: getattr(batch, name)[rows] for name in columns}, identity=identity)


class Choice(NamedTuple):
    """Bool [B, T]: what a control chose, and from what."""

    chosen: Tensor
    candidates: Tensor
    """Clip-Cov: every token that it may draw. KL-Cov draws nothing: the chosen."""


def choices(control: str, ratio: float, size: int | None, batch: Measured, index: int) -> Choice:
    """Of the exact control where size is None, else of the released code."""
    chosen = choose(control, ratio, size, batch, index)
    # Two draws from one band differ, so what can be compared is whom Clip-Cov may draw: a share of 1 draws all.
    return Choice(chosen, choose(control, 1.0, size, batch, index) if control == "clip_cov" else chosen)


def choose(control: str, ratio: float, size: int | None, batch: Measured, index: int) -> Tensor:
    if control == "kl_cov":
        exact, released = KLCov(kl_cov_ratio=ratio), KLCovReleased(kl_cov_ratio=ratio)
    else:
        exact, released = ClipCov(clip_cov_ratio=ratio), ClipCovReleased(clip_cov_ratio=ratio)
    settings = exact if size is None else released.model_copy(update={"responses_per_micro_batch": size})
    return plan(batch, settings, key(0, "benchmark", index)).chosen


def sums(batches: list[Measured], exact: list[Choice], micro: list[Choice]) -> dict[str, float]:
    """Counts over all batches of a run; shares are formed from them once."""
    covariances = [batch.covariances() for batch in batches]
    pairs = list(zip(exact, micro, strict=True))

    def covariance(made: list[Choice]) -> float:
        return sum(float(each[one.chosen].sum()) for each, one in zip(covariances, made, strict=True))

    def positive(made: list[Choice]) -> int:
        return sum(int((one.chosen & (each > 0)).sum()) for each, one in zip(covariances, made, strict=True))

    return {
        "tokens": sum(batch.num_tokens for batch in batches),
        "exact": sum(int(one.chosen.sum()) for one in exact),
        "micro": sum(int(one.chosen.sum()) for one in micro),
        "both": sum(int((one.chosen & other.chosen).sum()) for one, other in pairs),
        "candidates_exact": sum(int(one.candidates.sum()) for one in exact),
        "candidates_micro": sum(int(one.candidates.sum()) for one in micro),
        "candidates_both": sum(int((one.candidates & other.candidates).sum()) for one, other in pairs),
        "covariance_exact": covariance(exact),
        "covariance_micro": covariance(micro),
        "positive_micro": positive(micro),
    }


def collect(runs: list[dict[str, Any]], settings: list[str]) -> dict[str, Any]:
    header = runs[0]["header"]
    shared = {name: header[name] for name in ("versions", "commit", "hardware", "config")}
    return {"settings": settings, **shared, "runs": [{k: v for k, v in run.items() if k != "header"} for run in runs]}


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown: one table a control and share."""
    runs = result["runs"]
    responses, tokens = (fmean(run[name] for run in runs) for name in ("responses", "tokens"))
    lines = [
        f"{len(runs)} seeds, {sum(run['num_batches'] for run in runs)} optimizer batches of {responses:.0f} responses"
        f" and {tokens:.0f} tokens in the mean. Means over seeds, in brackets their 95 % interval.",
    ]
    for control, ratios in RATIOS.items():
        for ratio in ratios:
            lines += ["", *_table(runs, control, ratio)]
    return "\n".join(lines)


def _table(runs: list[dict[str, Any]], control: str, ratio: float) -> list[str]:
    exact = _interval([_one(run, control, ratio, "grouped", 1, _exact_share) for run in runs], "{:.4f}")
    overlap = "of the exact choice" if control == "kl_cov" else "of the exact band"
    columns = {"realised / asked": _realised, overlap: _overlap, "mean covariance / exact": _strength}
    lines = [
        f"**{control}, share {ratio:g}**. The exact choice takes {exact} of the tokens.",
        "",
        "| responses in a micro-batch | " + " | ".join(f"{name}, {o}" for name in columns for o in _ORDERS) + " |",
        "|---|" + "---|" * (len(columns) * len(_ORDERS)),
    ]
    for size in MICRO_BATCHES:
        cells = [
            _interval([_one(run, control, ratio, order, size, quantity) for run in runs], "{:.2f}")
            for quantity in columns.values()
            for order in _ORDERS
        ]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return lines


_ORDERS = ("grouped", "shuffled")


def _one(run: dict[str, Any], control: str, ratio: float, order: str, size: int, quantity: Any) -> float | None:
    wanted = {"control": control, "ratio": ratio, "order": order, "micro_batch": size}
    (row,) = [row for row in run["rows"] if all(row[name] == value for name, value in wanted.items())]
    found: float | None = quantity(row)
    return found


def _exact_share(row: dict[str, Any]) -> float:
    return row["exact"] / row["tokens"]


def _realised(row: dict[str, Any]) -> float:
    return row["micro"] / (row["ratio"] * row["tokens"])


def _overlap(row: dict[str, Any]) -> float | None:
    return row["candidates_both"] / row["candidates_exact"] if row["candidates_exact"] else None


def _strength(row: dict[str, Any]) -> float | None:
    if not row["exact"] or not row["micro"]:
        return None
    return (row["covariance_micro"] / row["micro"]) / (row["covariance_exact"] / row["exact"])


def _interval(values: list[float | None], form: str) -> str:
    """Mean over seeds with its Student-t interval; the mean alone where all seeds agree to the last digit shown."""
    known = np.array([value for value in values if value is not None])
    if known.size == 0:
        return "–"
    mean = form.format(known.mean())
    if known.size == 1 or len({form.format(value) for value in known}) == 1:
        return mean
    error = known.std(ddof=1) / np.sqrt(known.size)
    low, high = mixture_interval(known[:1] * 0 + known.mean(), np.array([error]), np.ones(1), known.size - 1, 0.95)
    return f"{mean} [{form.format(low)}, {form.format(high)}]".replace("-", "−")


if __name__ == "__main__":
    main()
