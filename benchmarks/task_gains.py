"""What small models learn on tasks with verifiers in children: held-out accuracy before and after RL, over five seeds.

    python -m benchmarks.task_gains gym_numbers gym_spelling code    # trains recipes/NAME.yaml with seeds 0 to 4
    python -m benchmarks.task_gains code --runs FOLDER               # reads FOLDER/NAME-SEED, trained before
    python -m benchmarks.task_gains --table                          # writes docs/verifiers.md again

Needs the `tasks` extra for reasoning-gym, and a machine that can isolate programs for the code task. One to two minutes
of one core a seed. Results: benchmarks/results/task_gains.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.law_tables import with_table
from covent.store.reader import Run, read_run

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "task_gains.json"
PAGE = ROOT / "docs" / "verifiers.md"
SEEDS = range(5)
T_975 = 2.776
"""97.5 % quantile of Student's t with 4 degrees of freedom."""
MEASURES = {
    "avg": lambda row: row.avg.value,
    "greedy": lambda row: row.greedy.value,
    "pass": lambda row: row.pass_at["8"].value,
    "entropy": lambda row: row.entropy.value,
}


def main() -> None:
    """Train or read the runs that are asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="NAME", help="of recipes/NAME.yaml")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "task_gains", help="where the run folders are")
    parser.add_argument("--table", action="store_true", help="train nothing")
    asked = parser.parse_args()
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in asked.recipes:
        runs = [read_run(trained(name, seed, asked.runs)) for seed in SEEDS]
        found[name] = {"seeds": [ends(run) for run in runs], **circumstances(runs[0])}
        RESULT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), "gains", table(found)), encoding="utf-8")


def trained(name: str, seed: int, runs: Path) -> Path:
    """The run folder of a recipe and a seed; trained if it is not there."""
    folder = runs / f"{name}-{seed}"
    if not (folder / "run.json").exists():
        command = [
            sys.executable,
            "-m",
            "covent",
            "train",
            f"recipes/{name}.yaml",
            f"seed={seed}",
            "--out",
            str(folder),
        ]
        subprocess.run(command, cwd=ROOT, check=True)
    return folder


def ends(run: Run) -> dict[str, Any]:
    """Each measure of the test before the first and after the last step."""
    assert run.status.state == "finished", run.folder
    first, last = (test for test in run.evaluations if test.split == "test")
    return {
        "seed": run.header.seed,
        "steps": len(run.steps),
        "problems": first.num_problems,
        **{name: [_value(measure(row)) for row in (first, last)] for name, measure in MEASURES.items()},
        "commit": run.header.commit,
    }


def _value(found: float | None) -> float:
    assert found is not None
    return round(found, 4)


def circumstances(run: Run) -> dict[str, Any]:
    """Where the runs were made, and with which versions."""
    versions = dict(run.header.versions)
    if run.header.config["task"]["name"] == "reasoning_gym":
        versions["reasoning-gym"] = version("reasoning-gym")
    return {"hardware": run.header.hardware, "versions": versions}


def gain(seeds: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Mean gain of avg@8 over the seeds, and its 95 % interval by Student's t."""
    gains = [seed["avg"][1] - seed["avg"][0] for seed in seeds]
    mean, half = statistics.mean(gains), T_975 * statistics.stdev(gains) / len(gains) ** 0.5
    return mean, mean - half, mean + half


def table(found: dict[str, Any]) -> str:
    """One row a recipe: means over the seeds, and the gain with its interval."""
    lines = [
        "| recipe | steps | avg@8 | gain, 95 % interval | greedy | pass@8 | entropy, nats |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in sorted(found.items()):
        seeds = entry["seeds"]
        assert len(seeds) == len(SEEDS)
        mean, low, high = gain(seeds)
        avg, greedy, solved, entropy = (
            " → ".join(f"{statistics.mean(seed[key][end] for seed in seeds):.3f}" for end in (0, 1)) for key in MEASURES
        )
        link = f"[{name}](../recipes/{name}.yaml)"
        interval = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"| {link} | {seeds[0]['steps']} | {avg} | {interval} | {greedy} | {solved} | {entropy} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
