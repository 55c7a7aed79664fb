"""The worked example of docs/attribution.md: short runs of a tiny model, every optimizer step split by cause.

    python benchmarks/attribution.py --out runs/attribution --json benchmarks/results/attribution.json
    python benchmarks/attribution.py --table benchmarks/results/attribution.json

Under a minute of one core a run. One seed: an example of reading the numbers, not a claim about the controls.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from covent.report.attribution import attribution_summary
from covent.store.reader import Run, read_run
from covent.train.config_file import parse_config
from covent.train.run import train

OPTIMIZER = {"lr": 5e-4, "updates_per_rollout": 4}
SETTINGS: dict[str, Any] = {
    "steps": 40,
    "task": {"name": "clock", "min_operations": 1, "max_operations": 2},
    "model": {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 84},
    # The example needs a policy in motion, not a good one: it starts from the model as it is.
    "warm_start": {"steps": 250, "batch_size": 32, "lr": 0.006, "lr_warmup_steps": 20, "min_teacher_frac": 0},
    "rollout": {"prompts_per_step": 16, "samples_per_prompt": 8},
    "optimizer": OPTIMIZER,
    "evaluation": {"validation_problems": 32, "validation_samples": 2, "test_problems": 0},
    "attribute_every": 1,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "grpo": {"control": {"type": "ppo_clip"}},
    "grpo, no momentum": {"control": {"type": "ppo_clip"}, "optimizer": {**OPTIMIZER, "betas": [0.0, 0.99]}},
    "clip_cov": {"control": {"type": "clip_cov", "clip_cov_ratio": 0.02, "clip_cov_lb": 0.5}},
    "kl_cov": {"control": {"type": "kl_cov", "kl_cov_ratio": 0.05}},
}
SHOWN_UPDATES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/attribution"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/attribution.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of a result and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is None:
        runs = [
            run_of(arguments.out / name.replace(", ", "-").replace(" ", "_"), name, arguments.seed) for name in VARIANTS
        ]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(collect(runs), indent=1) + "\n")
    print(tables(json.loads((arguments.table or arguments.json).read_text())))


def run_of(folder: Path, name: str, seed: int) -> Run:
    """The run of one variant; one that is there already is not repeated."""
    if not (folder / "run.json").is_file():
        settings = {**SETTINGS, **VARIANTS[name], "name": name, "seed": seed}
        train(parse_config(settings, source=Path(__file__).name), folder)
    return read_run(folder)


def collect(runs: list[Run]) -> dict[str, Any]:
    """Everything that the tables say, with what produced it."""
    header = runs[0].header
    found: dict[str, Any] = {
        "seed": header.seed,
        "commit": header.commit,
        "hardware": header.hardware,
        "versions": {name: version for name, version in header.versions.items() if name != "platform"},
        "settings": SETTINGS,
        "variants": VARIANTS,
        "runs": {},
    }
    for run in runs:
        summary = attribution_summary(run)
        assert summary is not None
        found["runs"][run.name] = {
            "sum": summary.model_dump(mode="json"),
            "entropy": [run.steps[0].entropy.value, run.steps[-1].entropy.value],
            "first_updates": [row.model_dump(mode="json") for row in run.attributions[:SHOWN_UPDATES]],
            "largest_unattributed": max(abs(row.unattributed) for row in run.attributions),
        }
    return found


def tables(found: dict[str, Any]) -> str:
    """Two Markdown tables: the first steps of GRPO, and the sums over each run."""
    first = {
        f"step {row['update']}": row["parts"]
        | {
            "unattributed": row["unattributed"],
            "second order, logits": row["second_order_logits"],
            "second order, entropy": row["second_order_entropy"],
            "**observed**": row["observed"],
        }
        for row in found["runs"]["grpo"]["first_updates"]
    }
    sums = {
        name: run["sum"]["parts"] | run["sum"]["left_over"] | {"**observed**": run["sum"]["observed"]}
        for name, run in found["runs"].items()
    }
    return f"{_table('ΔH of one optimizer step, nats', first)}\n\n{_table('ΔH of all optimizer steps, nats', sums)}"


def _table(title: str, columns: dict[str, dict[str, float]]) -> str:
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    # Leftovers and the whole come last, after the causes of every column.
    last = [name for name in names if name.startswith(("unattributed", "second order", "**"))]
    lines = [f"| {title} | {' | '.join(columns)} |", f"|---|{'--:|' * len(columns)}"]
    for name in [name for name in names if name not in last] + last:
        cells = [_number(column.get(name)) for column in columns.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:+.1e}" if abs(value) < 5e-6 else f"{value:+.5f}"
    return text.replace("-", "−")


if __name__ == "__main__":
    main()
