"""Forecasts of finished embedded runs from their earlier parts: error, and coverage clustered by run.

    python -m benchmarks.law_backtest runs/*/*          reads run folders; writes the JSON file and the tables
    python -m benchmarks.law_backtest --table           only writes the tables of docs/law.md again

Points of the law are validation evaluations (`covent.store.series.law_series`). Each run counts as one observation.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.law_tables import backtest_tables, write_table
from covent.errors import CoventError
from covent.law import Backtest, backtest, fit, pooled, rivals
from covent.report.summary import entropies, method
from covent.store.reader import Run, read_run
from covent.store.series import law_series

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "law_backtest.json"
PAGE = ROOT / "docs" / "law.md"


def task(run: Run) -> str:
    """The name of the task in the run's settings."""
    section = run.header.config.get("task")
    return str(section.get("type", section.get("name"))) if isinstance(section, dict) else str(section)


def scored(run: Run) -> tuple[dict[str, Any], Backtest]:
    """One run: what it is, its law over all points, and its backtest."""
    series = law_series(run, "validation")
    num_steps = run.steps[-1].step + 1
    tested = backtest(
        series.step,
        series.entropy,
        series.accuracy,
        num_steps=num_steps,
        unit="fraction",
        entropy_series=entropies(run),
        window=series.window,
    )
    law = fit(series.entropy, series.accuracy, unit="fraction", step=series.step)
    forms = rivals(series.entropy, series.accuracy, unit="fraction", step=series.step).forms
    behind = next(form.aicc for form in forms if form.name == "law") - forms[0].aicc if forms else None
    about = {
        "task": task(run),
        "method": method(run),
        "seed": run.header.seed,
        "covent": run.header.versions.get("covent"),
        "hardware": run.header.hardware,
        "num_steps": num_steps,
        "n": len(series),
    }
    about |= {"ceiling": law.ceiling, "identified": law.identified, "r2": law.r2, "last": float(series.accuracy[-1])}
    about |= {"best_form": forms[0].name if forms else None, "aicc_behind_it": behind}
    return about, tested


def results(folders: list[Path]) -> dict[str, Any]:
    """Every run that has a law to test, and the sums over groups of runs; folders that have none are named."""
    groups: dict[tuple[str, str], list[Backtest]] = defaultdict(list)
    runs, left_out = [], []
    for folder in folders:
        try:
            about, tested = scored(read_run(folder))
        except (CoventError, IndexError) as error:
            left_out.append(f"{folder.name}: {error}")
            continue
        runs.append({**about, "origins": [origin.model_dump() for origin in tested.origins]})
        for group in ((about["task"], about["method"]), (about["task"], "all"), ("all", "all")):
            groups[group].append(tested)
    summed = [
        {"task": name, "method": control, "runs": len(tests), "origins": [one.model_dump() for one in pooled(tests)]}
        for (name, control), tests in sorted(groups.items())
    ]
    return {"runs": runs, "left_out": left_out, "groups": summed}


def main() -> None:
    """Score the runs, or take the scores from the file, and write file and tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="run folders")
    parser.add_argument("--table", action="store_true", help="only write the tables again, from the JSON file")
    asked = parser.parse_args()
    if not asked.table:
        found = results([folder for folder in asked.folders if (folder / "run.json").exists()])
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, table in backtest_tables(json.loads(RESULTS.read_text(encoding="utf-8"))).items():
        write_table(PAGE, name, table)


if __name__ == "__main__":
    main()
