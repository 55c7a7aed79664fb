"""How often the law's 95 % intervals and bands hold what they promise. One command makes the JSON file and the tables:

    python -m benchmarks.law_coverage            about 10 minutes of one core
    python -m benchmarks.law_coverage --hard     only the worlds of strong correlation, into the file
    python -m benchmarks.law_coverage --tables   only writes the tables of docs/law.md again, from the JSON file

Runs are simulated with known truth (`benchmarks.law_worlds`); the functions under test are the ones that covent ships.
Nothing in covent was tuned on these worlds.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.law_tables import write_tables
from benchmarks.law_worlds import (
    DRAWN_LINES,
    HARD,
    RIGHT,
    UNEVEN,
    WRONG,
    World,
    autoregressive,
    digitised,
    entropies,
    true_ceiling,
    whole_run,
)
from covent import __version__
from covent.law import backtest, diagnose, fit, fit_saturating, forecast, pooled, rivals, shared_curve
from covent.law.backtest import ORIGINS, PooledScore
from covent.law.correlated import CORRELATIONS, CorrelatedDesign
from covent.law.fit import HIGH_CORRELATION
from covent.provenance import commit

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "law_coverage.json"
PAGE = ROOT / "docs" / "law.md"

LENGTHS = (30, 60, 200)
NUM_RUNS = 2000
NUM_HARD = 500
NUM_DIAGNOSED = 500
NUM_FORECAST = 100
NUM_SATURATING = 200
LEVEL = 0.95


def cell(world: World, n: int, num_runs: int, seed: int) -> dict[str, Any]:
    """Coverage and width of the interval of the ceiling in one world, at one length, over the three curves."""
    hits: dict[str, list[bool]] = {"robust": [], "naive": [], "known": []}
    widths: dict[str, list[float]] = {"robust": [], "naive": [], "known": []}
    said: list[bool] = []
    rng = np.random.default_rng([seed, n])
    gaps = world.gaps(n) / np.median(world.gaps(n))
    for index, (model, (a, b)) in enumerate(DRAWN_LINES.items()):
        h = entropies(model, n)
        x = np.exp(h)
        centre, unit = float(np.mean(x)), float(np.ptp(x))
        design, contrast = np.stack([np.ones(n), (x - centre) / unit], axis=1), np.array([1.0, (1.0 - centre) / unit])
        # `covent.law.fit` builds the same design for every run; here the runs share it.
        grids = {"robust": CORRELATIONS, "naive": np.zeros(1)}
        if world.rho is not None:
            grids["known"] = np.array([world.rho])
        designs = {name: CorrelatedDesign(design, gaps=gaps, correlations=grid) for name, grid in grids.items()}
        count = len(range(index, num_runs, len(DRAWN_LINES)))
        top = true_ceiling(world, a, b)
        for accuracy in world.accuracies(rng, count, h, a, b):
            for name, shared in designs.items():
                fitted = shared.fit(accuracy)
                low, high = fitted.interval(contrast, LEVEL)
                if name == "robust":
                    said.append(fitted.correlation >= HIGH_CORRELATION)
                hits[name].append(low <= top <= high)
                widths[name].append((high - low) / a)
    known = float(np.median(widths["known"])) if widths["known"] else None
    return {
        "world": world.name,
        "n": n,
        "num_runs": len(hits["robust"]),
        "coverage": float(np.mean(hits["robust"])),
        "naive_coverage": float(np.mean(hits["naive"])),
        "known_coverage": float(np.mean(hits["known"])) if known else None,
        "width_ratio": float(np.median(widths["robust"])) / known if known else None,
        "naive_width_ratio": float(np.median(widths["naive"])) / known if known else None,
        "width_over_naive": float(np.median(widths["robust"]) / np.median(widths["naive"])),
        "said_too_narrow": float(np.mean(said)),
    }


def hard(num_runs: int) -> list[dict[str, Any]]:
    """Coverage where the noise remembers longer than the points can show."""
    return [cell(world, n, num_runs, 70 + place) for place, (world, n) in enumerate(HARD)]


def alarms(rho: float, n: int, num_runs: int, seed: int) -> dict[str, Any]:
    """How often the law is doubted although it is true: each should be rare."""
    rng = np.random.default_rng([seed, n])
    a, b = DRAWN_LINES["7B"]
    h = entropies("7B", n)
    counts = dict.fromkeys(("bend", "curvature", "drift", "does_not_apply", "rival_preferred", "shared_rejected"), 0)
    for noise in autoregressive(rng, num_runs, rho, np.ones(n)):
        accuracy = b - a * np.exp(h) + 0.5 * noise
        found = diagnose(h, accuracy, unit="percent")
        assert found.bend and found.curvature and found.drift
        counts["bend"] += found.bend.is_clear
        counts["curvature"] += found.curvature.is_clear
        counts["drift"] += found.drift.is_clear
        counts["does_not_apply"] += found.drift.outweighs_entropy
        ranked = {form.name: form.aicc for form in rivals(h, accuracy, unit="percent").forms}
        counts["rival_preferred"] += ranked["law"] - min(ranked.values()) >= 4
        other = b - a * np.exp(h) + 0.5 * autoregressive(rng, 1, rho, np.ones(n))[0]
        both = shared_curve({"one": [(h, accuracy)], "other": [(h, other)]}, unit="percent")
        counts["shared_rejected"] += both.p_by_point < 0.05
    return {"rho": rho, "n": n, "num_runs": num_runs, **{name: count / num_runs for name, count in counts.items()}}


def forecasts(plateau: bool, num_runs: int, seed: int) -> dict[str, Any]:
    """Error and coverage of forecasts in runs that obey both models."""
    rng = np.random.default_rng([seed, int(plateau)])
    scored = []
    for _ in range(num_runs):
        run = whole_run(rng, num_steps=240, window=4, plateau=plateau)
        points = (run["step"], run["entropy"], run["accuracy"])
        series = (run["series_step"], run["series"])
        scored.append(backtest(*points, num_steps=240, unit="percent", entropy_series=series))
    rows = [
        {
            "fraction": origin.fraction,
            "forecast": _plain(origin.forecast),
            "conditional": _plain(origin.conditional),
            "unchanged": _plain(origin.unchanged),
        }
        for origin in pooled(scored)
    ]
    return {"world": "entropy settles at a plateau" if plateau else "entropy decays as a power", "origins": rows}


def _plain(score: PooledScore) -> dict[str, Any]:
    return score.model_dump()


def saturating(n: int, num_runs: int, seed: int) -> dict[str, Any]:
    """Coverage of the second ceiling where the saturating curve is true, by how much of it was seen."""
    rng = np.random.default_rng([seed, n])
    compute = np.arange(1.0, n + 1)
    rows = []
    for share in (0.1, 0.3):
        hits, identified = [], 0
        for noise in autoregressive(rng, num_runs, 0.5, np.ones(n)):
            accuracy = 15 + 20 / (1 + (share * n / compute) ** 1.7) + 0.5 * noise
            found = fit_saturating(compute, accuracy, unit="percent")
            if found.ceiling_interval is not None:
                hits.append(found.ceiling_interval[0] <= 35 <= found.ceiling_interval[1])
                identified += found.identified
        rows.append({"midpoint": share, "coverage": float(np.mean(hits)), "identified": identified / num_runs})
    return {"n": n, "num_runs": num_runs, "rows": rows}


def paper_curves() -> list[dict[str, Any]]:
    """Fits of the digitised curves, and conditional predictions from their first markers, in order of entropy."""
    rows = []
    for model, (a, b) in DRAWN_LINES.items():
        h, r = digitised()[model]
        whole = fit(h, r, unit="percent")
        assert whole.a and whole.b and whole.ceiling_interval
        row: dict[str, Any] = {"model": model, "n": h.size, "a": whole.a, "b": whole.b, "ceiling": whole.ceiling}
        row |= {"ceiling_interval": list(whole.ceiling_interval), "drawn": [a, b], "drawn_ceiling": b - a}
        row["prefixes"] = []
        for fraction in (0.15, 0.3):
            ahead = forecast(np.arange(h.size), h, r, num_steps=h.size, fraction=fraction, unit="percent")
            assert ahead.law.ceiling_interval
            told = ahead.conditional
            row["prefixes"].append(
                {
                    "fraction": fraction,
                    "num_prefix": ahead.num_prefix,
                    "rmse": told.rmse,
                    "end_error": told.end_error,
                    "covered": told.covered,
                    "ceiling": ahead.ceiling,
                    "ceiling_interval": list(ahead.law.ceiling_interval),
                }
            )
        rows.append(row)
    return rows


def results(scale: float) -> dict[str, Any]:
    """Everything, with the numbers of runs multiplied by `scale`."""

    def runs(number: int) -> int:
        return max(3, round(scale * number))

    started = time.monotonic()
    found = {
        "settings": {"level": LEVEL, "seed": 0, "runs": runs(NUM_RUNS), "origins": list(ORIGINS)},
        "versions": {"covent": __version__, "numpy": np.__version__, "python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, one process",
        "commit": commit(),
        "paper": paper_curves(),
        "right": [cell(world, n, runs(NUM_RUNS), seed) for seed, world in enumerate(RIGHT) for n in LENGTHS],
        "uneven": [cell(UNEVEN, n, runs(NUM_RUNS), 10) for n in LENGTHS],
        "wrong": [cell(world, n, runs(NUM_RUNS), 20 + i) for i, world in enumerate(WRONG) for n in LENGTHS],
        "hard": hard(runs(NUM_HARD)),
        "alarms": [alarms(rho, 60, runs(NUM_DIAGNOSED), 40) for rho in (0.0, 0.5, 0.8)],
        "forecasts": [forecasts(plateau, runs(NUM_FORECAST), 50) for plateau in (False, True)],
        "saturating": saturating(60, runs(NUM_SATURATING), 60),
    }
    return {**found, "seconds": round(time.monotonic() - started)}


def main() -> None:
    """Run the simulations, or take them from the file, and write file and tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", action="store_true", help="only write the tables again, from the JSON file")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the numbers of runs; writes nothing if < 1"
    )
    parser.add_argument("--hard", action="store_true", help="only the worlds of strong correlation, into the file")
    asked = parser.parse_args()
    kept = asked.tables or asked.hard
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if kept else results(asked.scale)
    if asked.hard:
        found["hard"] = hard(max(3, round(asked.scale * NUM_HARD)))
    if asked.scale < 1:
        print(json.dumps(found, indent=1))
        return
    if not asked.tables:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_tables(PAGE, found)


if __name__ == "__main__":
    main()
