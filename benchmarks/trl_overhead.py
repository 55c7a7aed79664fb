"""What covent costs inside TRL: CPU time of an optimizer step against TRL's own, side by side in one run.

A Qwen2 of hidden size 256 with random weights learns from 128 random completions of 32 tokens, so nothing is sampled
and only TRL's update is timed: its forward and backward pass, the clip of the gradient's norm and AdamW. The
vocabulary has 15 tokens; with a real one the model does more work and covent the same, so these shares are upper
bounds. In each round every variant takes the same steps on the same completions, in another order, and the shares are
taken within a round. CPU time on a shared machine grows with what runs beside it and never shrinks, so the least of
all rounds is the best measure of a cost, and it stands beside the median. Scoring the completions after generation is
timed apart: there covent asks TRL for their entropies too.

    python -m benchmarks.trl_overhead --rounds 8 --page
    python -m benchmarks.trl_overhead --table benchmarks/results/trl_overhead.json

Half a minute of one core a round; run it in the environment of `make test-trl`.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

from benchmarks.engine_overhead import BATCH, HIDDEN, LAYERS, LENGTH, MICRO_BATCHES, UPDATES, Inside, command, record
from covent.integrations.trl import CoventGRPOTrainer
from tests.support.tiny_trl import WORDS, network, trainer

ROOT = Path(__file__).parents[1]
RESULT, PAGE = ROOT / "benchmarks/results/trl_overhead.json", ROOT / "docs/trl.md"
CONTROLS: dict[str, Any] = {
    "clip_cov": {"type": "clip_cov", "clip_cov_ratio": 0.01, "clip_cov_lb": 0.05},
    "kl_cov": {"type": "kl_cov", "kl_cov_ratio": 0.01},
}
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
    """covent's, on fixed completions."""


INSIDE = Inside()
INSIDE.watch(OurTrainer, "_covent_plan_ahead", "_covent_take_hold", "_covent_with_own_terms", "_covent_passed")


class Clock(TrainerCallback):
    """CPU seconds of each optimizer step, and of those inside covent."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.inside: list[float] = []
        self._start = self._inside = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._start, self._inside = time.process_time(), INSIDE.seconds

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self._start)
        self.inside.append(INSIDE.seconds - self._inside)


def variants() -> dict[str, tuple[type, Any]]:
    """Name → (trainer, covent's settings)."""
    found: dict[str, tuple[type, Any]] = {BARE: (BareTrainer, None), "measuring alone": (OurTrainer, {})}
    for name, control in CONTROLS.items():
        for scope in ("micro", "window"):
            found[f"{name}, {scope}"] = (OurTrainer, {"control": control, "scope": scope})
    return found


def seconds_of(accumulation: int, name: str, seed: int) -> dict[str, float]:
    """CPU seconds of scoring, of the first update and of a later one (least)."""
    kind, covent = variants()[name]
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
        made.add_callback(clock)
        made.train()
    return {
        "scoring": made.scoring_s,
        # The first step holds the scoring of the completions too.
        "first update": clock.seconds[0] - made.scoring_s,
        "later update": min(clock.seconds[1:]),
        "inside covent, first": clock.inside[0],
        "inside covent, later": min(clock.inside[1:]),
    }


def run(rounds: int, path: Path) -> None:
    """All rounds; the result so far is written after each."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    settings = {
        "batch": BATCH,
        "length": LENGTH,
        "hidden": HIDDEN,
        "layers": LAYERS,
        "vocabulary": len(WORDS),
        "updates": UPDATES,
    }
    # Once for nothing: the first run of a process pays for what is loaded late.
    seconds_of(1, BARE, 0)
    libraries = ("trl", "transformers", "accelerate")
    record(path, settings, libraries, list(variants()), MICRO_BATCHES, seconds_of, rounds)


if __name__ == "__main__":
    command(__doc__ or "", run, RESULT, PAGE)
