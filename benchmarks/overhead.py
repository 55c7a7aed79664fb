"""What a training step of the embedded trainer costs beside sampling and learning, and the switch for each part.

One run of the demo's recipe with short settings. Every part is a function of the trainer; each is wrapped by a clock
that counts its own CPU time and wall time, without those of the parts inside it. Sampling, the learner's passes and
what no clock sees are the step itself. CPU time is the trainer's process alone: what the disk makes it wait is in the
wall time, and what a tracker's own process does is in neither.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --table
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.law_tables import write_table
from covent.provenance import commit
from covent.store.writer import RunWriter
from covent.train import loop as loop_module
from covent.train import run as run_module
from covent.train.config_file import parse_config
from covent.train.evaluate import Exam
from covent.train.loop import Loop
from covent.train.probes import Probes
from covent.train.rollouts import RolloutSource
from covent.train.samples import KeptSamples

RESULT = Path(__file__).parent / "results" / "overhead.json"
PAGE = Path(__file__).parents[1] / "docs" / "trainer.md"
SETTINGS: dict[str, Any] = {
    "steps": 15,
    "warm_start": {"steps": 30, "min_teacher_frac": 0, "cache": False},
    "evaluation": {"test_problems": 0},
    "checkpoint": {"every": 10},
    "control": {"type": "clip_cov", "clip_cov_ratio": 0.012},
}
PARTS: dict[str, tuple[Any, str]] = {
    "sampling and judging": (RolloutSource, "next"),
    "learning": (loop_module, "execute"),
    "old log-probs of the learner": (Loop, "_scores"),
    "measurement: log-probs, entropies, covariances": (loop_module, "measure"),
    "probe states": (Probes, "change"),
    "validation": (Exam, "take"),
    "samples with token columns": (Loop, "_chosen"),
    "their rows": (KeptSamples, "rows"),
    "the law's forecast": (Loop, "_forecast"),
    "rows and status": (RunWriter, "append"),
    "status": (RunWriter, "status"),
    "checkpoints": (run_module, "save_checkpoint"),
}
SWITCHES = {
    "old log-probs of the learner": "none: the ratio is between two passes of the learner",
    "measurement: log-probs, entropies, covariances": "none: the control chooses by it",
    "probe states": "`probe_prompts=0`",
    "validation": "`evaluation.every`, `evaluation.validation_problems`, `evaluation.validation_samples`",
    "samples with token columns": "`samples_kept=0`, `samples_detail=false`",
    "the law's forecast": "none",
    "rows and status": "none: they are the record",
    "checkpoints": "`checkpoint.every`",
    "a tracker that hangs": "`report_to`",
}
STEP = "everything else of the step"


class Clocks:
    """CPU and wall seconds of each part, without the parts inside it."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)

    def wrapped(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with its time counted."""

        def timed(*args: Any, **settings: Any) -> Any:
            before = time.process_time(), time.perf_counter()
            inside = dict(self.cpu), dict(self.wall)
            try:
                return function(*args, **settings)
            finally:
                taken = time.process_time() - before[0], time.perf_counter() - before[1]
                for total, seconds, had in zip((self.cpu, self.wall), taken, inside, strict=True):
                    counted = sum(total.values()) - sum(had.values())
                    total[name] += seconds - counted

        return timed


def measured(tracker: bool) -> dict[str, Any]:
    """Seconds of each part of one run."""
    clocks, before = Clocks(), {name: getattr(*where) for name, where in PARTS.items()}
    for name, (owner, attribute) in PARTS.items():
        setattr(owner, attribute, clocks.wrapped(name, before[name]))
    whole = Loop.run
    Loop.run = clocks.wrapped(STEP, whole)  # type: ignore[method-assign]  # replaced for the measurement
    watched = run_module.watched
    if tracker:
        run_module.watched = with_a_hanging_tracker(clocks, watched)  # type: ignore[assignment]  # replaced for the measurement
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_module.train(parse_config(SETTINGS, source="overhead"), Path(folder) / "run")
    finally:
        Loop.run, run_module.watched = whole, watched  # type: ignore[method-assign]  # replaced for the measurement
        for name, (owner, attribute) in PARTS.items():
            setattr(owner, attribute, before[name])
    parts = {name: [clocks.cpu[name], clocks.wall[name]] for name in clocks.cpu}
    for part, whole_part in (("status", "rows and status"), ("their rows", "samples with token columns")):
        for at, seconds in enumerate(parts.pop(part, [0.0, 0.0])):
            parts[whole_part][at] += seconds
    return parts


def with_a_hanging_tracker(clocks: Clocks, watched: Any) -> Any:
    """Trackers as a run has them, with one whose process never does anything."""
    import contextlib
    import subprocess
    import sys

    from covent.trackers import watch

    class Hanging(watch._Watched):
        def _start(self) -> None:
            words = [sys.executable, "-c", "import time; time.sleep(10**6)"]
            self._process = subprocess.Popen(words, start_new_session=True)

    @contextlib.contextmanager
    def patched(folder: Path, trackers: Any, project: str, warn: Any) -> Any:
        each = Hanging(folder, "trackio", project, warn)
        look = clocks.wrapped("a tracker that hangs", each.look)
        look()
        try:
            yield look
        finally:
            each.close(time.monotonic())

    return patched


def table(found: dict[str, Any]) -> str:
    """Shares of the CPU time of the training steps, and of their wall time."""
    parts = found["parts"]
    cpu, wall = (sum(each[at] for each in parts.values()) for at in (0, 1))
    lines = ["| part | CPU time | wall time | switch |", "|---|---:|---:|---|"]
    for name in sorted(parts, key=lambda name: -parts[name][0]):
        shares = [100 * parts[name][at] / total for at, total in ((0, cpu), (1, wall))]
        lines.append(f"| {name} | {shares[0]:.2f} % | {shares[1]:.2f} % | {SWITCHES.get(name, '')} |")
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    lines += [
        "",
        f"{found['settings']['steps']} steps, {cpu:.1f} s of one CPU thread, {found['hardware']}; {versions}.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure, keep the result, and write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    if not parser.parse_args().table:
        torch.set_num_threads(1)
        found = {
            "hardware": platform.machine(),
            "versions": {name: version(name) for name in ("torch", "transformers")},
            "commit": commit(),
            "settings": SETTINGS,
            "parts": measured(tracker=True),
        }
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    found = json.loads(RESULT.read_text(encoding="utf-8"))
    print(table(found))
    write_table(PAGE, "overhead", table(found))


if __name__ == "__main__":
    main()
