"""What covent costs inside TRL: CPU time of an optimizer step against TRL's own, side by side in one run.

A Qwen2 of hidden size 256 with random weights learns from 128 random completions of 32 tokens, so nothing is sampled
and only TRL's update is timed: its forward and backward pass, the clip of the gradient's norm and AdamW. The
vocabulary has 15 tokens; with a real one the model does more work and covent the same, so these shares are upper
bounds. In each round every variant takes the same steps on the same completions, in another order, and the shares are
taken within a round. CPU time on a shared machine grows with what runs beside it and never shrinks, so the least of
all rounds is the best measure of a cost, and it stands beside the median. Scoring the completions after generation is
timed apart: there covent asks TRL for their entropies too.

    python -m benchmarks.trl_overhead --rounds 8 --json benchmarks/results/trl_overhead.json
    python -m benchmarks.trl_overhead --table benchmarks/results/trl_overhead.json

Half a minute of one core a round; run it in the environment of `make test-trl`.
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
from transformers import TrainerCallback
from trl import GRPOTrainer

from covent.integrations.trl import CoventGRPOTrainer
from covent.provenance import commit
from tests.support.tiny_trl import WORDS, network, trainer

BATCH, LENGTH, HIDDEN, LAYERS = 128, 32, 256, 2
UPDATES = 4
"""Optimizer steps on each generation: the first is on-policy, the others are not."""
CONTROLS: dict[str, Any] = {
    "clip_cov": {"type": "clip_cov", "clip_cov_ratio": 0.01, "clip_cov_lb": 0.05},
    "kl_cov": {"type": "kl_cov", "kl_cov_ratio": 0.01},
}
ACCUMULATIONS = (1, 4)
"""Micro-batches of an optimizer step."""
BARE = "TRL"


class _Fixed:
    """Random completions instead of sampled ones."""

    def _generate_single_turn(self, prompt_ids: Any, *_: Any, **__: Any) -> Any:
        generator = torch.Generator().manual_seed(self.args.seed)
        ids = torch.randint(3, len(WORDS), (len(prompt_ids), LENGTH), generator=generator)
        return ids.tolist(), None

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        start = time.process_time()
        found = super()._generate_and_score_completions(inputs)
        self.scoring_s = time.process_time() - start
        return found


class BareTrainer(_Fixed, GRPOTrainer):
    """TRL's own, on fixed completions."""


class OurTrainer(_Fixed, CoventGRPOTrainer):
    """covent's, on fixed completions; the time inside its own methods is kept too."""

    inside_s = 0.0


def _timed(name: str) -> Any:
    method = getattr(CoventGRPOTrainer, name)

    def timed(self: Any, *args: Any) -> Any:
        start = time.process_time()
        try:
            return method(self, *args)
        finally:
            self.inside_s += time.process_time() - start

    return timed


# What covent does in an update beside handing on to TRL: choosing and planning (with the extra forward pass, where
# there is one), its own terms of the loss, and the readings. Only the backward pass through its own terms is not in it.
for _name in ("_covent_plan_ahead", "_covent_take_hold", "_covent_with_own_terms", "_covent_passed"):
    setattr(OurTrainer, _name, _timed(_name))


class Clock(TrainerCallback):
    """CPU seconds of each optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.inside: list[float] = []
        self.trainer: Any = None
        self._start = self._inside = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start, self._inside = time.process_time(), getattr(self.trainer, "inside_s", 0.0)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self._start)
        self.inside.append(getattr(self.trainer, "inside_s", 0.0) - self._inside)


def variants() -> dict[str, tuple[type, Any]]:
    """Name → (trainer, covent's settings)."""
    found: dict[str, tuple[type, Any]] = {BARE: (BareTrainer, None), "measuring alone": (OurTrainer, {})}
    for name, control in CONTROLS.items():
        for scope in ("micro", "window"):
            found[f"{name}, {scope}"] = (OurTrainer, {"control": control, "scope": scope})
    return found


def seconds_of(kind: type, covent: Any, *, accumulation: int, seed: int) -> dict[str, float]:
    """CPU seconds of scoring, of the first update and of a later one (least)."""
    with tempfile.TemporaryDirectory() as folder:
        made = trainer(
            kind,
            Path(folder),
            model=network(hidden=HIDDEN, layers=LAYERS, seed=seed),
            per_device_train_batch_size=BATCH // accumulation,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=accumulation,
            num_generations=8,
            num_iterations=UPDATES,
            max_steps=UPDATES,
            max_completion_length=LENGTH,
            learning_rate=1e-4,
            logging_steps=UPDATES,
            seed=seed,
            **({} if covent is None else {"covent": covent}),
        )
        clock = Clock()
        clock.trainer = made
        made.add_callback(clock)
        made.train()
    # The first step holds the scoring of the completions too.
    first = clock.seconds[0] - made.scoring_s
    return {
        "scoring": made.scoring_s,
        "first update": first,
        "later update": min(clock.seconds[1:]),
        "inside covent, first": clock.inside[0],
        "inside covent, later": min(clock.inside[1:]),
    }


def run(rounds: int, path: Path) -> None:
    """All rounds; the result so far is written after each."""
    names = list(variants())
    found: dict[str, dict[str, dict[str, list[float]]]] = {
        str(accumulation): {name: defaultdict(list) for name in names} for accumulation in ACCUMULATIONS
    }
    # Once for nothing: the first run of a process pays for what is loaded late.
    seconds_of(BareTrainer, None, accumulation=1, seed=0)
    for number in range(rounds):
        for accumulation in ACCUMULATIONS:
            for place in range(len(names)):
                name = names[(place + number) % len(names)]
                kind, covent = variants()[name]
                for phase, value in seconds_of(kind, covent, accumulation=accumulation, seed=number).items():
                    found[str(accumulation)][name][phase].append(value)
        result = {
            "hardware": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
            "versions": {name: version(name) for name in ("trl", "transformers", "accelerate", "torch")},
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
    """TRL's CPU seconds, and what covent adds to them."""
    rounds = result["settings"]["rounds"]
    lines = []
    for accumulation, table in result["cpu_seconds"].items():
        bare = table[BARE]
        lines += [
            "",
            f"Micro-batches in an optimizer step: {accumulation}. Least of {rounds} rounds (median of the shares)",
            "",
            "| variant | scoring | first update | later update | inside covent, first | inside covent, later |",
            "|---|---|---|---|---|---|",
        ]
        for name, phases in table.items():
            if name == BARE:
                cells = [f"{min(values):.3f} s" for phase, values in phases.items() if "inside" not in phase]
                lines.append(f"| {name} | {' | '.join(cells)} | – | – |")
                continue
            cells = [_share(values, bare[phase]) for phase, values in phases.items() if "inside" not in phase]
            for phase in ("first", "later"):
                cells.append(f"{100 * min(phases[f'inside covent, {phase}']) / min(bare[f'{phase} update']):.1f} %")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(values: list[float], bare: list[float]) -> str:
    """How much more than TRL's own."""
    shares = [100 * (ours / theirs - 1) for ours, theirs in zip(values, bare, strict=True)]
    return f"{100 * (min(values) / min(bare) - 1):+.1f} % ({median(shares):+.1f} %)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/trl_overhead.json"))
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
