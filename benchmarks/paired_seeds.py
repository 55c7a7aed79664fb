"""GRPO, Clip-Cov and KL-Cov from the same start, over many seeds: does the mechanism show, and do the controls help?

Every seed has its own facts, corpus, warm start, prompts and sampling; the test problems are the same for all and are
looked at once, before and after each run. Differences to GRPO are paired within a seed; intervals are Student's t over
seeds, nominal 95 %.

    python benchmarks/paired_seeds.py --seeds 12 --out runs/paired --json benchmarks/results/paired_seeds.json
    python benchmarks/paired_seeds.py --table benchmarks/results/paired_seeds.json

About two and a half minutes of one core a seed; two seeds run at a time. Runs that are there already are not repeated;
runs of other settings than the ones asked for are refused. `--collect` takes the folders as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from covent.errors import ConfigError
from covent.law.student import mixture_interval
from covent.report.summary import RunSummary, summarise
from covent.store.reader import Run, read_run
from covent.train.config_file import config_yaml, load_config, parse_config
from covent.train.demo import METHODS, DemoRun, demo_runs

MATCHED_STEPS = (20, 40, 80, 120)
MEASURES = ("greedy", "avg@32", "pass@8", "pass@32")
END_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/paired"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/paired_seeds.json"))
    parser.add_argument("--settings", nargs="*", default=[], metavar="key=value", help="for all runs")
    parser.add_argument("--collect", action="store_true", help="train nothing: take the folders in --out as they are")
    parser.add_argument("--table", type=Path, metavar="JSON", help="print the tables of a result and do nothing else")
    arguments = parser.parse_args()
    if arguments.table is None:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        runs = [planned(arguments.out, seed, arguments.settings) for seed in seeds]
        if not arguments.collect:
            try:
                refuse_other_settings([run for of_a_seed in runs for run in of_a_seed])
            except ConfigError as error:
                parser.exit(2, f"{error}\n")
            with ThreadPoolExecutor(max_workers=2) as pool:
                list(pool.map(train_seed, runs))
        result = collect([run.folder for of_a_seed in runs for run in of_a_seed], arguments.settings)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(tables(json.loads((arguments.table or arguments.json).read_text())))


def planned(out: Path, seed: int, settings: Sequence[str]) -> list[DemoRun]:
    """All methods of one seed with their whole settings; nothing is written in `out`."""
    runs = demo_runs(out / f"seed-{seed}", parse_config({"seed": seed}, source="--first-seed"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "settings.yaml"
        for index, run in enumerate(runs):
            path.write_text(config_yaml(run.config))
            runs[index] = replace(run, config=load_config(path, list(settings)))
    return runs


def refuse_other_settings(runs: Sequence[DemoRun]) -> None:
    """Raises: ConfigError when a folder holds a run of other settings than the planned ones; it lists them."""
    refusals = []
    for run in runs:
        if (run.folder / "run.json").exists():
            recorded = flat(read_run(run.folder).header.config)
            asked = flat(run.config.model_dump(mode="json"))
            pairs = {name: (recorded.get(name, _UNKNOWN), asked.get(name, _UNKNOWN)) for name in {**recorded, **asked}}
            changes = [f"{name} {there} there, {here} asked" for name, (there, here) in pairs.items() if there != here]
            refusals += [f"{run.folder}: {'; '.join(changes)}"] if changes else []
    if refusals:
        listed = "\n".join(refusals)
        raise ConfigError(
            f"Runs of other settings are there already:\n{listed}\nChoose another --out, ask for their settings, or"
            " take the folders as they are with --collect."
        )


_UNKNOWN = "(no such setting)"


def flat(nested: dict[str, Any], inside: str = "") -> dict[str, Any]:
    """Nested settings as one level, with dots: `optimizer.lr`."""
    found: dict[str, Any] = {}
    for name, value in nested.items():
        found |= flat(value, f"{inside}{name}.") if isinstance(value, dict) else {f"{inside}{name}": value}
    return found


def train_seed(runs: Sequence[DemoRun]) -> None:
    """All methods of one seed, one after the other; the first leaves the warm start in the cache for the rest."""
    for run in runs:
        if not (run.folder / "status.json").exists() or read_run(run.folder).status.state != "finished":
            _train(run)
        print(f"seed {run.config.seed} {run.name} done", flush=True)


def _train(run: DemoRun) -> None:
    config = run.folder.with_suffix(".yaml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(config_yaml(run.config))
    command = [sys.executable, "-m", "covent", "train", str(config), "--out", str(run.folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with run.log.open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def collect(folders: list[Path], settings: list[str]) -> dict[str, Any]:
    """The numbers of all runs, ready for the tables, and what each run was.

    `common` is what all runs share of commit, versions, hardware and settings; `own` of a run is the rest of its own.
    """
    runs = [read_run(folder) for folder in folders]
    origins = [origin(run) for run in runs]
    shared = set.intersection(*({(name, json.dumps(value)) for name, value in each.items()} for each in origins))
    common = {name: value for name, value in origins[0].items() if (name, json.dumps(value)) in shared}
    own = [{name: value for name, value in each.items() if name not in common} for each in origins]
    return {
        "settings": settings,
        "common": common,
        "runs": [{**row(run), "own": rest} for run, rest in zip(runs, own, strict=True)],
    }


def origin(run: Run) -> dict[str, Any]:
    """Commit, versions, hardware and settings of a run, on one level."""
    header = run.header
    return flat(
        {
            "commit": header.commit,
            "versions": header.versions,
            "hardware": header.hardware,
            "config": header.config,
        }
    )


def row(run: Run) -> dict[str, Any]:
    """One run's numbers."""
    summary = summarise(run)
    entropy = np.array([step.entropy.value for step in run.steps])
    assert summary.probe is not None
    return {
        "method": run.header.name,
        "seed": run.header.seed,
        "entropy_start": float(entropy[0]),
        "entropy_end": float(entropy[-END_STEPS:].mean()),
        "entropy_area": float(entropy.mean()),
        "entropy_at": {str(step): float(entropy[step - 2 : step + 3].mean()) for step in MATCHED_STEPS},
        "took_all_frac": summary.control.took_all_frac if summary.control else None,
        "realised_frac": summary.control.realised_frac if summary.control else None,
        "test": {
            when: {name: estimate(run, name, step) for name in MEASURES}
            for when, step in (("start", 0), ("end", len(run.steps)))
        },
        "last_third_gain_share": last_third_gain_share(run),
        "laws": {source: law(summary, source) for source in ("validation", "training")},
        "probes": [agreement.model_dump() for agreement in summary.probe.agreements],
        "seconds": sum(summary.seconds.values()),
    }


def estimate(run: Run, measure: str, step: int) -> float | None:
    evaluation = next(row for row in run.evaluations if row.split == "test" and row.step == step)
    if measure == "greedy":
        return None if evaluation.greedy is None else evaluation.greedy.value
    kind, k = measure.split("@")
    return evaluation.avg.value if kind == "avg" else evaluation.pass_at[k].value


def last_third_gain_share(run: Run) -> float:
    """Held-out gain of the last third over the whole gain.

    (end - at two thirds) / (end - start): start is avg@32 on test problems before RL; the other two are means of the
    validation avg@k over the 3 evaluations up to that point.
    """
    validation = [(row.step, row.avg.value) for row in run.evaluations if row.split == "validation"]
    two_thirds = 2 * len(run.steps) / 3
    early = [value for step, value in validation if step < two_thirds][-3:]
    late = [value for _, value in validation][-3:]
    start = estimate(run, "avg@32", 0)
    assert start is not None
    return float((np.mean(late) - np.mean(early)) / (np.mean(late) - start))


def law(summary: RunSummary, source: Any) -> dict[str, Any]:
    found = summary.law(source)
    fitted = found.fit
    if fitted is None:
        return {"reason": found.reason}
    return {
        "a": fitted.a,
        "b": fitted.b,
        "ceiling": fitted.ceiling,
        "ceiling_interval": fitted.ceiling_interval,
        "r2": fitted.r2,
        "r2_line": fitted.line_r2,
        "identified": fitted.identified,
        "forecasts": {
            str(forecast.fraction): {
                "unconditional": forecast.unconditional.end_error,
                "conditional": forecast.conditional.end_error,
                "unchanged": forecast.unchanged.end_error,
            }
            for forecast in found.forecasts
        },
    }


def tables(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    by_method = {
        method: sorted((run for run in result["runs"] if run["method"] == method), key=lambda run: run["seed"])
        for method in METHODS
    }
    grpo = by_method["grpo"]
    return "\n\n".join([_seeds_table(grpo), _paired_table(by_method), _forecast_table(grpo), _probe_table(by_method)])


def _seeds_table(grpo: list[dict[str, Any]]) -> str:
    lines = [
        "GRPO, every seed (test problems; law on validation avg@4 against 5-step means of H):",
        "",
        "| seed | H start → end | end/start | greedy | avg@32 | pass@32 | gain in last third | R² law | R² line"
        " | ceiling [95 %] |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for run in grpo:
        start, end, fitted = run["test"]["start"], run["test"]["end"], run["laws"]["validation"]
        accuracy = " | ".join(f"{start[name]:.3f} → {end[name]:.3f}" for name in ("greedy", "avg@32", "pass@32"))
        low, high = fitted["ceiling_interval"]
        lines.append(
            f"| {run['seed']} | {run['entropy_start']:.3f} → {run['entropy_end']:.4f}"
            f" | {run['entropy_end'] / run['entropy_start']:.3f} | {accuracy} | {run['last_third_gain_share']:.3f}"
            f" | {fitted['r2']:.3f} | {fitted['r2_line']:.3f} | {fitted['ceiling']:.3f} [{low:.3f}, {high:.3f}] |"
        )
    return "\n".join(lines)


def _paired_table(by_method: dict[str, list[dict[str, Any]]]) -> str:
    quantities = {
        "H end": lambda run: run["entropy_end"],
        "H area (mean over steps)": lambda run: run["entropy_area"],
        **{f"H at step {step}": lambda run, step=step: run["entropy_at"][str(step)] for step in MATCHED_STEPS},
        **{name: lambda run, name=name: run["test"]["end"][name] for name in MEASURES},
    }
    lines = [
        f"Means over {len(by_method['grpo'])} seeds; in brackets the paired difference to GRPO with its 95 % interval,"
        " and in how many seeds it is above 0:",
        "",
        "| | GRPO | Clip-Cov − GRPO | KL-Cov − GRPO |",
        "|---|---|---|---|",
    ]
    for name, quantity in quantities.items():
        base = np.array([quantity(run) for run in by_method["grpo"]])
        cells = [f"{base.mean():.4f}"]
        for method in ("clip_cov", "kl_cov"):
            values = np.array([quantity(run) for run in by_method[method]])
            cells.append(f"{values.mean():.4f} ({_interval(values - base)}; {int((values > base).sum())}/{len(base)})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name in ("realised_frac", "took_all_frac"):
        cells = [f"{np.mean([run[name] for run in by_method[method]]):.4f}" for method in ("clip_cov", "kl_cov")]
        lines.append(f"| {name} | | {' | '.join(cells)} |")
    return "\n".join(lines)


def _interval(differences: np.ndarray) -> str:
    n = len(differences)
    mean = differences.mean()
    if n < 2:
        return f"{mean:+.4f} [one seed]"
    error = differences.std(ddof=1) / np.sqrt(n)
    low, high = mixture_interval(np.array([mean]), np.array([error]), np.array([1.0]), n - 1, 0.95)
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


def _forecast_table(grpo: list[dict[str, Any]]) -> str:
    lines = [
        "GRPO, error at the end (predicted minus observed, mean of the last 3 points), every seed:",
        "",
        "| source | first part | kind | "
        + " | ".join(str(run["seed"]) for run in grpo)
        + " | mean absolute | unchanged: mean absolute |",
        "|---|---|---|" + "---|" * (len(grpo) + 2),
    ]
    for source in ("validation", "training"):
        for fraction in ("0.15", "0.3"):
            found = [run["laws"][source]["forecasts"][fraction] for run in grpo]
            for kind, label in (("unconditional", "forecast"), ("conditional", "conditional on later H")):
                errors = [entry[kind] for entry in found]
                known = [error for error in errors if error is not None]
                reference = np.mean([abs(entry["unchanged"]) for entry in found if entry["unchanged"] is not None])
                cells = " | ".join("-" if error is None else f"{error:+.3f}" for error in errors)
                mean = f"{np.mean(np.abs(known)):.3f}" if known else "-"
                lines.append(f"| {source} | {float(fraction):.0%} | {label} | {cells} | {mean} | {reference:.3f} |")
    return "\n".join(lines)


def _probe_table(by_method: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "Probe states, against the observed change: correlation and slope, median over seeds [smallest, largest]:",
        "",
        "| quantity | per | trend | method | correlation | slope |",
        "|---|---|---|---|---|---|",
    ]
    first = next(iter(by_method.values()))[0]["probes"]
    for index, agreement in enumerate(first):
        for method, runs in by_method.items():
            found = [run["probes"][index] for run in runs]
            cells = [_spread([entry[name] for entry in found]) for name in ("correlation", "slope")]
            lines.append(
                f"| {agreement['quantity']} | {agreement['per']} | {agreement['trend']} | {method}"
                f" | {' | '.join(cells)} |"
            )
    return "\n".join(lines)


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.median(known):.3f} [{min(known):.3f}, {max(known):.3f}]" if known else "-"


if __name__ == "__main__":
    main()
