"""What covent costs inside verl: CPU time of an optimizer step against verl's own, side by side in one process.

verl's FSDP2 engine, one rank, trains a model of hidden size 256 with random weights on 128 random responses of 32
tokens, so nothing is sampled and only the update is timed: forward and backward pass, the clip of the gradient's norm
and AdamW. The vocabulary has 15 tokens; with a real one the model does more work and covent the same, so these shares
are upper bounds. In each round every variant takes the same steps on the same responses, in another order, and the
shares are taken within a round. CPU time on a shared machine grows with what runs beside it and never shrinks, so the
least of all rounds is the best measure of a cost, and it stands beside the median. verl's own Clip-Cov and KL-Cov stand
among the variants.

    export VERL_PLATFORM=cpu VERL_USE_EXTERNAL_MODULES=recipes.verl.cpu
    python -m torch.distributed.run --standalone --nproc_per_node 1 -m benchmarks.verl_overhead --rounds 8 --page
    python -m benchmarks.verl_overhead --table benchmarks/results/verl_overhead.json

Run it in the environment of `make test-verl`.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_overhead import BATCH, HIDDEN, LAYERS, LENGTH, MICRO_BATCHES, UPDATES, Inside, command, record

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/verl_overhead.json", ROOT / "docs/inside_verl.md"
SHARES = {"clip_cov_ratio": 0.01, "clip_cov_lb": 0.05, "kl_cov_ratio": 0.01, "ppo_kl_coef": 1.0}
BARE = "verl, vanilla"
INSIDE = Inside()


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


def watch() -> None:
    """Time what covent's worker does beside handing on to verl."""
    from covent.integrations.verl.window import OnItsWay, Window
    from covent.integrations.verl.worker import CoventTrainingWorker

    INSIDE.watch(CoventTrainingWorker, "_plan_ahead", "_read")
    INSIDE.watch(Window, "scored", "part")
    INSIDE.watch(OnItsWay, "plan_for")


def seconds_of(made: Any, data: Any) -> dict[str, float]:
    """CPU seconds of verl's scoring, of the first update and of a later one (least)."""
    from tests.integrations.verl import mini_batches

    start = time.process_time()
    scores = mini_batches.scored(made, data())
    scoring = time.process_time() - start
    seconds, inside = [], []
    for _ in range(UPDATES):
        batch = mini_batches.with_old(data(), *scores)
        with made.engine.train_mode():
            start, before = time.process_time(), INSIDE.seconds
            made.train_batch(batch)
            seconds.append(time.process_time() - start)
            inside.append(INSIDE.seconds - before)
    return {
        "scoring": scoring,
        "first update": seconds[0],
        "later update": min(seconds[1:]),
        "inside covent, first": inside[0],
        "inside covent, later": min(inside[1:]),
    }


def run(rounds: int, path: Path) -> None:
    """All rounds; the result so far is written after each."""
    from recipes.verl.sums import WORDS, make_model
    from tests.integrations.verl import mini_batches

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    watch()
    names = list(variants())
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
    settings = {
        "batch": BATCH,
        "length": LENGTH,
        "hidden": HIDDEN,
        "layers": LAYERS,
        "vocabulary": len(WORDS),
        "updates": UPDATES,
    }
    libraries = ("verl", "transformers", "tensordict")
    record(
        path,
        settings,
        libraries,
        names,
        MICRO_BATCHES,
        lambda micro, name, _: seconds_of(made[micro, name], data),
        rounds,
    )


if __name__ == "__main__":
    command(__doc__ or "", run, RESULT, PAGE)
