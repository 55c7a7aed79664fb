"""What covent costs inside verl: CPU time of an optimizer step against verl's own, side by side in one process.

verl's FSDP2 engine, one rank, trains a model of hidden size 256 with random weights on 128 random responses of 32
tokens, so nothing is sampled and only the update is timed: forward and backward pass, the clip of the gradient's norm
and AdamW. The vocabulary has 15 tokens; with a real one the model does more work and covent the same, so these shares
are upper bounds. In each round every variant takes the same steps on the same responses, in another order, and the
shares are taken within a round. CPU time on a shared machine grows with what runs beside it and never shrinks, so the
least of all rounds is the best measure of a cost, and it stands beside the median. verl's own Clip-Cov and KL-Cov stand
among the variants.

    export VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=recipes.verl.cpu
    python -m torch.distributed.run --standalone --nproc_per_node 1 -m benchmarks.verl_overhead --rounds 8
    python -m benchmarks.verl_overhead --table benchmarks/results/verl_overhead.json

Run it in the environment of `make test-verl`.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
import warnings
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from covent.provenance import commit

BATCH, LENGTH, HIDDEN, LAYERS = 128, 32, 256, 2
UPDATES = 4
"""Optimizer steps on each rollout: the first is on-policy, the others are not."""
SHARES = {"clip_cov_ratio": 0.01, "clip_cov_lb": 0.05, "kl_cov_ratio": 0.01, "ppo_kl_coef": 1.0}
MICRO_BATCHES = (1, 4)
BARE = "verl, vanilla"


def variants() -> dict[str, tuple[str, dict[str, Any] | None]]:
    """Name → (whose worker, settings of the policy loss)."""
    found: dict[str, tuple[str, dict[str, Any] | None]] = {BARE: ("verl", {"loss_mode": "vanilla"})}
    for name in ("clip_cov", "kl_cov"):
        found[f"verl, {name}"] = ("verl", {"loss_mode": name})
        found[f"covent's loss in verl, {name}, micro"] = ("verl", {"loss_mode": f"covent_{name}", "scope": "micro"})
    found["covent, measuring alone"] = ("covent", {"loss_mode": "vanilla"})
    for name in ("clip_cov", "kl_cov"):
        for scope in ("micro", "window"):
            found[f"covent, {name}, {scope}"] = ("covent", {"loss_mode": f"covent_{name}", "scope": scope})
    return found


def worker(whose: str, loss: dict[str, Any], model: Path, micro_batches: int) -> Any:
    """verl's training worker, or covent's."""
    from verl.workers.engine_workers import TrainingWorker

    from covent.integrations.verl.worker import CoventTrainingWorker
    from tests.integrations.verl import mini_batches

    kind = {"verl": TrainingWorker, "covent": CoventTrainingWorker}[whose]
    return mini_batches.worker(str(model), BATCH // micro_batches, kind, **SHARES | loss)


def seconds_of(made: Any, data: Any) -> dict[str, float]:
    """CPU seconds of verl's scoring, of the first update and of a later one (least)."""
    from tests.integrations.verl import mini_batches

    start = time.process_time()
    scores = mini_batches.scored(made, data())
    scoring = time.process_time() - start
    seconds = []
    for _ in range(UPDATES):
        batch = mini_batches.with_old(data(), *scores)
        with made.engine.train_mode():
            start = time.process_time()
            made.train_batch(batch)
            seconds.append(time.process_time() - start)
    return {"scoring": scoring, "first update": seconds[0], "later update": min(seconds[1:])}


def run(rounds: int, path: Path) -> None:
    """All rounds; the result so far is written after each."""
    from recipes.verl.sums import WORDS, make_model
    from tests.integrations.verl import mini_batches

    names = list(variants())
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        str(micro): {name: defaultdict(list) for name in names} for micro in MICRO_BATCHES
    }
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), hidden=HIDDEN, layers=LAYERS)
        made = {
            (micro, name): worker(*variants()[name], Path(folder), micro) for micro in MICRO_BATCHES for name in names
        }
    responses = mini_batches.random_responses(0, BATCH, LENGTH, ragged=False)

    def data() -> Any:
        return mini_batches.tensors(responses, list(range(BATCH)), step=0)

    # Once for nothing: the first pass of a worker pays for what is made late.
    for each in made.values():
        seconds_of(each, data)
    for number in range(rounds):
        for micro in MICRO_BATCHES:
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                for phase, value in seconds_of(made[micro, name], data).items():
                    found[str(micro)][name][phase].append(value)
        result = {
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
            "versions": {name: version(name) for name in ("verl", "transformers", "tensordict", "torch")},
            "commit": commit(),
            "settings": {
                "batch": BATCH,
                "length": LENGTH,
                "hidden": HIDDEN,
                "layers": LAYERS,
                "vocabulary": len(WORDS),
                "updates": UPDATES,
                "rounds": number + 1,
            },
            "cpu_seconds": found,
        }
        path.write_text(json.dumps(result, indent=1) + "\n")


def tables(result: dict[str, Any]) -> str:
    """verl's CPU seconds, and what the others add to them: by the least and by the median of the rounds."""
    lines = []
    for micro, table in result["cpu_seconds"].items():
        lines += [
            "",
            f"Micro-batches in an optimizer step: {micro}. Least of {result['settings']['rounds']} rounds"
            " (median of the rounds' shares)",
            "",
            "| variant | scoring | first update | later update |",
            "|---|---|---|---|",
        ]
        for name, phases in table.items():
            cells = [_cell(values, table[BARE][phase], name) for phase, values in phases.items()]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float], bare: list[float], name: str) -> str:
    if name == BARE:
        return f"{min(values):.3f} s"
    shares = [100 * (ours / theirs - 1) for ours, theirs in zip(values, bare, strict=True)]
    return f"{100 * (min(values) / min(bare) - 1):+.1f} % ({median(shares):+.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/verl_overhead.json"))
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of a result and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is None:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        run(arguments.rounds, arguments.json)
    print(tables(json.loads((arguments.table or arguments.json).read_text())))


if __name__ == "__main__":
    main()
